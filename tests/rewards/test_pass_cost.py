from __future__ import annotations

import pytest
import torch

from adanat_rl.config.loading import resolve
from adanat_rl.rewards.base import RewardBatch
from adanat_rl.rewards.build import build_reward_parts
from adanat_rl.rewards.nat_pass_cost import PassCostReward

NO_PIXELS, LABELS = torch.zeros(3, 0, 0, 0), torch.tensor([4, 0, 9])


def test_the_score_is_minus_the_price_of_the_passes() -> None:
    scores = PassCostReward(0.25).score(RewardBatch(NO_PIXELS, LABELS, torch.tensor([4, 7, 8]))).scores
    assert scores.dtype == torch.float32
    assert scores.tolist() == [-1.0, -1.75, -2.0]


def test_passes_that_were_not_counted_cost_an_error_and_not_nothing() -> None:
    with pytest.raises(ValueError, match="passes of these images were not counted"):
        PassCostReward().score(RewardBatch(NO_PIXELS, LABELS))


def test_the_price_is_that_of_the_configuration() -> None:
    model = build_reward_parts(resolve(overrides=["reward.kind=nat_pass_cost", "reward.nat_pass_cost.price=2"])).model
    assert model.score(RewardBatch(NO_PIXELS, LABELS, torch.tensor([4, 7, 8]))).scores.tolist() == [-8, -14, -16]
