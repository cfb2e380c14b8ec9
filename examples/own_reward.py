"""A reward of your own: how much ink an image has. Check it and train with it from the folder of this file:

    cd examples && adanat-rl check-reward own_reward:InkReward
    adanat-rl train reward.kind=own_reward:InkReward reward.args.target=0.3 --run-dir runs/ink

Needs nothing but this file.
"""

from __future__ import annotations

from typing import ClassVar

from adanat_rl.rewards.base import Requirement, RewardBatch, RewardModel, RewardOutput


class InkReward(RewardModel):
    """Best where the mean grey value is `target`; images and scores as in `RewardModel.score`."""

    requires: ClassVar[frozenset[Requirement]] = frozenset()

    def __init__(self, target: float = 0.3) -> None:
        self.target = target

    def score(self, batch: RewardBatch) -> RewardOutput:
        """Minus the squared distance to the target; the ink itself goes into the rollout table as `reward_ink`."""
        ink = batch.images.mean(dim=(1, 2, 3))
        return RewardOutput(-((ink - self.target) ** 2), {"ink": ink})
