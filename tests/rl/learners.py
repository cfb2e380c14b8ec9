"""What tests of the learner alone share: shards of random numbers, and looks at one update."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from adanat_rl.rl.learner import GenerationPPOLearner
from adanat_rl.rl.shards import Shard, ShardKey

SHARDS, SHARD_SIZE = 3, 10
HORIZON, ACTIONS = 4, 4
STEPS = SHARDS * SHARD_SIZE * HORIZON


def random_shard(number: int) -> Shard:
    """A scored shard that nobody has drawn."""
    generator = np.random.default_rng(number)

    def normal(*shape: int) -> np.ndarray:
        return generator.standard_normal((SHARD_SIZE, *shape)).astype(np.float32)

    return Shard(
        key=ShardKey(0, 1, number),
        weights_digest="",
        samples=generator.integers(0, 129, (SHARD_SIZE, HORIZON + 1, 16)).astype(np.uint8),
        context=generator.integers(0, 10, SHARD_SIZE),
        actions=normal(HORIZON, ACTIONS),
        log_probs=normal(HORIZON) - 4,
        decisions=normal(HORIZON, ACTIONS),
        num_passes=np.full(SHARD_SIZE, 6, np.int16),
        returns=normal(HORIZON),
        advantages=normal(1).repeat(HORIZON, axis=1),  # seen by learners without a critic
    )


def update(
    learner: GenerationPPOLearner, shards: list[Shard], num_epochs: int = 1, minibatch: int | None = None
) -> Any:
    """One update; returns what the learner logs."""
    return learner.update(
        episodes=shards,
        timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: STEPS},
        num_epochs=num_epochs,
        minibatch_size=minibatch,
    )[DEFAULT_MODULE_ID]


def gradients(learner: GenerationPPOLearner, shards: list[Shard], minibatch: int | None = None) -> list[torch.Tensor]:
    """What the learner hands to its optimizer, a flat vector for each gradient step; the weights stay as they are."""
    steps = []
    learner.apply_gradients = lambda found: steps.append(  # type: ignore[method-assign]
        torch.cat([gradient.flatten().clone() for gradient in found.values()])
    )
    update(learner, shards, minibatch=minibatch)
    return steps


def assert_equal_to_rounding(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    """Gradients of one gradient step each."""
    assert len(found) == len(expected)
    for ours, whole in zip(found, expected, strict=True):
        assert whole.norm() > 1e-2
        assert (ours - whole).norm() < 2e-6 * whole.norm()
