"""The learner's pipeline: shards in, one train batch of tensors out.

Features are the only large column. They are those that the rollout kept, or they are computed here by a frozen
generator that lives in the connector: in no optimizer, no weight sync, no checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.utils.annotations import override
from torch import Tensor

from adanat_rl.generation.generator import Generator, Observation
from adanat_rl.generation.threads import map_in_threads, torch_threads
from adanat_rl.rl.rl_module import CONTEXT, EFFECT_MASK, FEATURES, RETURNS, STEP
from adanat_rl.rl.shards import Shard


class ShardsToBatch(ConnectorV2):
    """Stacks the columns of all shards, trajectory by trajectory, and adds features, values and advantages.

    Args:
        effect_mask: `[T, A]`. needs_features: whether the policy looks at the image.
        generator_factory: builds the frozen generator; called once, on the first batch that lacks features.
        normalize_advantages: whether advantages are standardised over the batch too.
        num_threads: shards whose features are computed at once.
        value_chunk: samples of one pass of the critic.
    """

    def __init__(
        self,
        effect_mask: Tensor,
        needs_features: bool,
        generator_factory: Callable[[], Generator],
        normalize_advantages: bool,
        num_threads: int = 1,
        value_chunk: int = 4096,
    ) -> None:
        super().__init__()
        self._effect_mask = effect_mask.float()
        self._needs_features = needs_features
        self._generator_factory = generator_factory
        self._generator: Generator | None = None
        self._normalize_advantages = normalize_advantages
        self._num_threads = num_threads
        self._value_chunk = value_chunk

    @override(ConnectorV2)
    def __call__(self, *, rl_module: Any, batch: Any, episodes: list[Shard], **kwargs: Any) -> dict[str, Any]:
        """The batch of the one module; every column `[N, …]`, N = trajectories · T."""
        module = rl_module[DEFAULT_MODULE_ID].unwrapped()
        device = next(module.parameters()).device
        trajectories, horizon = sum(shard.num_trajectories for shard in episodes), len(self._effect_mask)
        columns: dict[str, Any] = {
            STEP: torch.arange(horizon).repeat(trajectories),
            CONTEXT: _concatenate([shard.context for shard in episodes]).repeat_interleave(horizon),
            Columns.ACTIONS: _concatenate([shard.actions for shard in episodes]).flatten(0, 1),
            Columns.ACTION_LOGP: _concatenate([shard.log_probs for shard in episodes]).flatten(),
            RETURNS: _concatenate([_returns(shard) for shard in episodes]).flatten(),
            EFFECT_MASK: self._effect_mask.repeat(trajectories, 1),
        }
        columns = {name: column.to(device) for name, column in columns.items()}
        if self._needs_features:
            columns[FEATURES] = torch.cat(self._all_features(episodes)).to(device)
        columns[Columns.VF_PREDS] = self._values(module, columns)
        columns[Columns.ADVANTAGES] = self._advantages(columns)
        return {DEFAULT_MODULE_ID: columns}

    def _all_features(self, shards: list[Shard]) -> list[Tensor]:
        """`[B·T, L, D]` of each shard: those that the rollout kept, or the same bits computed again."""
        kept = [torch.from_numpy(shard.features).flatten(0, 1) for shard in shards if shard.features is not None]
        if len(kept) == len(shards):
            return kept
        if self._generator is None:
            self._generator = self._generator_factory()
        generator = self._generator
        with torch_threads(1):  # as in the rollout: other kernels would give other bits
            return map_in_threads(lambda shard: _features(generator, shard), shards, self._num_threads)

    @torch.no_grad()
    def _values(self, module: Any, columns: dict[str, Tensor]) -> Tensor:
        size, chunk = len(columns[STEP]), self._value_chunk
        parts = [
            module.compute_values({name: column[start : start + chunk] for name, column in columns.items()})
            for start in range(0, size, chunk)
        ]
        return torch.cat(parts)

    def _advantages(self, columns: dict[str, Tensor]) -> Tensor:
        advantages = columns[RETURNS] - columns[Columns.VF_PREDS]
        if self._normalize_advantages:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-7)
        return advantages


def _concatenate(columns: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(columns))


def _returns(shard: Shard) -> np.ndarray:
    if shard.returns is None:
        raise ValueError(f"shard {tuple(shard.key)} has no returns yet: it was not scored")
    return shard.returns


def _features(generator: Generator, shard: Shard) -> Tensor:
    """`[B·T, L, D]`, with the same calls as in the rollout."""
    context = torch.tensor(shard.context, device=generator.device)  # a copy: what Ray hands out is read-only
    per_step = []
    for step in range(generator.horizon):
        sample = torch.from_numpy(shard.samples[:, step].astype(np.int64)).to(generator.device)
        sample = sample.to(generator.sample_spec.dtype)
        per_step.append(generator.features(Observation(sample, context, step, None)))
    return torch.stack(per_step, dim=1).flatten(0, 1)
