"""Samples that are no whole numbers reach the learner whole: its features are those of the rollout."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from torch import Tensor, nn

from adanat_rl.generation.noise import ShardNoise
from adanat_rl.rl.connectors import ShardsToBatch, with_features
from adanat_rl.rl.rl_module import FEATURES
from adanat_rl.rl.shards import Shard, ShardKey
from tests.fakes import PointGenerator

SIZE = 7


class Critic(nn.Module):
    """Looks at nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def unwrapped(self) -> Critic:
        return self

    def compute_values(self, part: dict[str, Tensor]) -> Tensor:
        return torch.zeros(len(part[FEATURES]))


def drawn(generator: PointGenerator, number: int, storage: np.dtype) -> tuple[Shard, Tensor]:
    """A shard of points, and the features `[B, T, L, D]` that the policy saw."""
    context = torch.arange(SIZE) % 4
    state = generator.reset(context, ShardNoise((0, 1, number), SIZE))
    samples, features = [state.sample], []
    for step in range(generator.horizon):
        features.append(state.features)
        decision = generator.decision_space.decide(torch.full((SIZE, 2), 0.3 * number - 0.2), step)[0]
        state = generator.step(state, decision)
        samples.append(state.sample)
    shape = (SIZE, generator.horizon)
    shard = Shard(
        key=ShardKey(0, 1, number),
        weights_digest="",
        samples=torch.stack(samples, dim=1).numpy().astype(storage),
        context=context.numpy(),
        actions=np.zeros((*shape, 2), np.float32),
        log_probs=np.zeros(shape, np.float32),
        decisions=np.zeros((*shape, 2), np.float32),
        num_passes=np.full(SIZE, generator.horizon, np.int16),
        returns=np.zeros(shape, np.float32),
    )
    return shard, torch.stack(features, dim=1)


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("storage", [np.float32, np.float64, np.float16], ids=lambda kind: kind.__name__)
def test_features_of_points_are_those_that_the_policy_saw(on_disk: bool, storage: type) -> None:
    generator = PointGenerator("per_image")
    generator.sample_spec = replace(generator.sample_spec, storage_dtype=np.dtype(storage))
    shards, seen = zip(*(drawn(generator, number, np.dtype(storage)) for number in range(3)), strict=True)
    connector = ShardsToBatch(torch.ones(3, 2), True, lambda: generator, True, on_disk=on_disk)
    batch = connector(rl_module={DEFAULT_MODULE_ID: Critic()}, batch={}, episodes=list(shards))[DEFAULT_MODULE_ID]
    found = with_features(dict(batch), connector.feature_file, torch.device("cpu"))[FEATURES]
    expected = torch.cat([features.flatten(0, 1) for features in seen])
    assert (expected[:, 0, 1] % 1 != 0).any(), "the costs are no whole numbers"
    torch.testing.assert_close(found, expected, rtol=1e-3 if storage is np.float16 else 0, atol=0)
    assert Columns.ADVANTAGES in batch
