"""A shard: a fixed number of trajectories, a pure function of policy weights, run seed, iteration and shard number.

What travels between processes is this, as columns: samples and not images, never features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

WARMUP_ITERATION = 0
"""Iteration whose trajectories only warm up the reward model; training starts with 1."""


class ShardKey(NamedTuple):
    """Names a shard, and seeds its noise."""

    seed: int
    iteration: int
    number: int


class PolicyWeights(NamedTuple):
    """What a runner draws with: named arrays (or a reference to them) and their content hash."""

    state: Any
    digest: str


@dataclass
class Shard:
    """B trajectories in lock-step; `len` counts env steps, as RLlib expects of an episode.

    Args:
        key: which shard. weights_digest: of the policy weights it was drawn with.
        samples: `[B, T+1, *sample shape]` storage dtype: before each step and after the last.
        context: `[B]` int64. actions: `[B, T, A]` float32. log_probs: `[B, T]` float32.
        decisions: `[B, T, K]` float32. num_passes: `[B]` int16.
        num_steps: `[B]` int16, steps until an image was finished, after which actions have no effect; None: T each.
        returns: `[B, T]` float32; set by the algorithm once rewards are in.
        advantages: `[B, T]` float32; set with them where no critic is learned.
        features: `[B, T, L, D]` in the generator's `feature_dtype` on its device, kept only where runner and learner
            are one process; never serialised.
    """

    key: ShardKey
    weights_digest: str
    samples: np.ndarray
    context: np.ndarray
    actions: np.ndarray
    log_probs: np.ndarray
    decisions: np.ndarray
    num_passes: np.ndarray
    num_steps: np.ndarray | None = None
    returns: np.ndarray | None = None
    advantages: np.ndarray | None = None
    features: Tensor | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.actions.shape[0] * self.actions.shape[1]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "features": None}

    @property
    def num_trajectories(self) -> int:
        """B."""
        return len(self.context)

    @property
    def has_effect(self) -> np.ndarray:
        """`[B, T]` bool: steps before the image was finished."""
        trajectories, horizon = self.actions.shape[:2]
        if self.num_steps is None:
            return np.ones((trajectories, horizon), bool)
        return np.arange(horizon) < self.num_steps[:, None]

    @property
    def final_samples(self) -> np.ndarray:
        """Finished samples `[B, *sample shape]`."""
        return self.samples[:, -1]

    @property
    def trajectory_ids(self) -> list[str]:
        """One id per trajectory, unique in a run: iteration-shard-row."""
        return [f"{self.key.iteration:06d}-{self.key.number:05d}-{row:05d}" for row in range(self.num_trajectories)]


def digest_weights(state: Mapping[str, np.ndarray]) -> str:
    """Content hash of named arrays: a number that counts updates would not tell apart two histories."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(state[name]).tobytes())
    return digest.hexdigest()


def hash_batch(shards: Iterable[Shard]) -> str:
    """Content hash of a train batch: equal exactly if keys, samples, contexts, actions and log-probabilities are."""
    digest = hashlib.blake2b(digest_size=16)
    for shard in shards:
        digest.update(repr(tuple(shard.key)).encode())
        for column in (shard.samples, shard.context, shard.actions, shard.log_probs, shard.decisions):
            digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
