"""The learner's pipeline: shards in, one train batch of tensors out.

Features are the only large column. They are those that the rollout kept, or they are computed here by a frozen
generator that lives in the connector: in no optimizer, no weight sync, no checkpoint. Where they would not fit, they go
to a file and the batch names its rows.
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
from adanat_rl.rl.feature_file import FeatureFile
from adanat_rl.rl.rl_module import BASE_ACTIONS, CONTEXT, EFFECT_MASK, FEATURE_ROWS, FEATURES, RETURNS, STEP
from adanat_rl.rl.shards import Shard


class ShardsToBatch(ConnectorV2):
    """Stacks the columns of all shards, trajectory by trajectory, and adds features, values and advantages.

    Args:
        effect_mask: `[T, A]`. needs_features: whether the policy looks at the image.
        generator_factory: builds the frozen generator; called once, on the first batch that lacks features.
        normalize_advantages: whether advantages are standardised over the batch too.
        rollout_threads: threads of torch while features are computed, as many as in the rollout.
        num_threads: shards whose features are computed at once.
        value_chunk: samples of one pass of the critic.
        on_disk: whether features go to a file (`feature_file`), a block of rows at a time.
        learns_critic: whether advantages take values of the critic; else they come with the shards.
        base_actions: `[T, A]` that a leash holds on to; None without one.
    """

    def __init__(
        self,
        effect_mask: Tensor,
        needs_features: bool,
        generator_factory: Callable[[], Generator],
        normalize_advantages: bool,
        rollout_threads: int = 1,
        num_threads: int = 1,
        value_chunk: int = 4096,
        on_disk: bool = False,
        learns_critic: bool = True,
        base_actions: Tensor | None = None,
    ) -> None:
        super().__init__()
        self._effect_mask = effect_mask.float()
        self._needs_features = needs_features
        self._generator_factory = generator_factory
        self._generator: Generator | None = None
        self._normalize_advantages = normalize_advantages
        self._rollout_threads = rollout_threads
        self._num_threads = num_threads
        self._value_chunk = value_chunk
        self._on_disk = on_disk
        self._learns_critic = learns_critic
        self._base_actions = base_actions
        self.feature_file: FeatureFile | None = None

    @override(ConnectorV2)
    def __call__(self, *, rl_module: Any, batch: Any, episodes: list[Shard], **kwargs: Any) -> dict[str, Any]:
        """The batch of the one module; every column `[N, …]`, N = trajectories · T, less the steps behind the end of an
        image.
        """
        module = rl_module[DEFAULT_MODULE_ID].unwrapped()
        device = next(module.parameters()).device
        trajectories, horizon = sum(shard.num_trajectories for shard in episodes), len(self._effect_mask)
        columns: dict[str, Any] = {
            STEP: torch.arange(horizon).repeat(trajectories),
            CONTEXT: _concatenate([shard.context for shard in episodes]).repeat_interleave(horizon),
            Columns.ACTIONS: _concatenate([shard.actions for shard in episodes]).flatten(0, 1),
            Columns.ACTION_LOGP: _concatenate([shard.log_probs for shard in episodes]).flatten(),
            RETURNS: _concatenate([_scored(shard, shard.returns) for shard in episodes]).flatten(),
            EFFECT_MASK: self._effect_mask.repeat(trajectories, 1),
        }
        if self._base_actions is not None:
            columns[BASE_ACTIONS] = self._base_actions.repeat(trajectories, 1)
        if not self._learns_critic:
            given = [_scored(shard, shard.advantages) for shard in episodes]
            columns[Columns.ADVANTAGES] = _concatenate(given).flatten()
        columns = {name: column.to(device) for name, column in columns.items()}
        if self._needs_features and self._on_disk:
            columns[FEATURE_ROWS] = self._write_features(episodes)
        elif self._needs_features:
            columns[FEATURES] = self._joined_features(episodes, device)
        has_effect = _concatenate([shard.has_effect for shard in episodes]).flatten()
        if not has_effect.all():
            columns = {name: column[has_effect.to(column.device)] for name, column in columns.items()}
        if self._learns_critic:
            columns[Columns.VF_PREDS] = self._values(module, columns)
            columns[Columns.ADVANTAGES] = columns[RETURNS] - columns[Columns.VF_PREDS]
        if self._normalize_advantages:
            columns[Columns.ADVANTAGES] = _standardised(columns[Columns.ADVANTAGES])
        return {DEFAULT_MODULE_ID: columns}

    def _joined_features(self, shards: list[Shard], device: torch.device) -> Tensor:
        """`[N, L, D]` in the generator's `feature_dtype`: those that the rollout kept, or the same bits computed again,
        shard by shard into their place.
        """
        kept = [shard.features.flatten(0, 1) for shard in shards if shard.features is not None]
        if len(kept) == len(shards):
            return torch.cat(kept).to(device)
        generator = self._frozen_generator
        sizes = [len(shard) for shard in shards]
        joined = torch.empty(sum(sizes), *generator.feature_shape, dtype=generator.feature_dtype, device=device)

        def fill(task: tuple[Tensor, Shard]) -> None:
            task[0].copy_(_features(generator, task[1]))

        tasks = list(zip(joined.split(sizes), shards, strict=True))
        with torch_threads(self._rollout_threads):  # as in the rollout: other kernels would give other bits
            map_in_threads(fill, tasks, self._num_threads)
        return joined

    def _write_features(self, shards: list[Shard]) -> Tensor:
        """Computes features block by block into a new file; returns the number of each sample's row."""
        generator = self._frozen_generator
        if self.feature_file is not None:
            self.feature_file.close()
        file = self.feature_file = FeatureFile(generator.feature_shape, generator.feature_dtype)
        horizon, first = generator.horizon, 0
        with torch_threads(self._rollout_threads):
            for shard in shards:
                rows = torch.arange(first, first + len(shard)).view(-1, horizon)
                for step in range(horizon):
                    for part in torch.arange(len(rows)).split(generator.block_rows):
                        file.write(rows[part, step], _features_of_step(generator, shard, step, part))
                first += len(shard)
        return torch.arange(first)

    @property
    def _frozen_generator(self) -> Generator:
        if self._generator is None:
            self._generator = self._generator_factory()
        return self._generator

    @torch.no_grad()
    def _values(self, module: Any, columns: dict[str, Tensor]) -> Tensor:
        size, chunk = len(columns[STEP]), self._value_chunk
        device = columns[STEP].device
        parts = []
        for start in range(0, size, chunk):
            part = {name: column[start : start + chunk] for name, column in columns.items()}
            parts.append(module.compute_values(with_features(part, self.feature_file, device)))
        return torch.cat(parts)


def with_features(part: dict[str, Tensor], file: FeatureFile | None, device: torch.device) -> dict[str, Tensor]:
    """A piece of a batch with its features in float32, also where they are named by rows of a file."""
    if FEATURES in part and part[FEATURES].dtype != torch.float32:
        return {**part, FEATURES: part[FEATURES].float()}
    if FEATURE_ROWS not in part or file is None:
        return part
    rest = {name: column for name, column in part.items() if name != FEATURE_ROWS}
    return {**rest, FEATURES: file.read(part[FEATURE_ROWS]).to(device)}


def _concatenate(columns: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(columns))


def _scored(shard: Shard, column: np.ndarray | None) -> np.ndarray:
    """A column that is there once the shard was scored."""
    if column is None:
        raise ValueError(f"shard {tuple(shard.key)} has no returns or advantages yet: it was not scored")
    return column


def _standardised(values: Tensor) -> Tensor:
    return (values - values.mean()) / (values.std() + 1e-7)


def _features(generator: Generator, shard: Shard) -> Tensor:
    """`[B·T, L, D]`, with the same calls as in the rollout."""
    rows = torch.arange(shard.num_trajectories)
    per_step = [_features_of_step(generator, shard, step, rows) for step in range(generator.horizon)]
    return torch.stack(per_step, dim=1).flatten(0, 1)


def _features_of_step(generator: Generator, shard: Shard, step: int, rows: Tensor) -> Tensor:
    """Features `[R, L, D]` of some trajectories of a shard at a step."""
    context = torch.tensor(shard.context[rows], device=generator.device)  # a copy: what Ray hands out is read-only
    sample = generator.sample_spec.restored(shard.samples[rows, step]).to(generator.device)
    return generator.features(Observation(sample, context, step, None))
