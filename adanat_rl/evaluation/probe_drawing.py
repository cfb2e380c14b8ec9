"""Drawings of the adaptivity probe: half-drawn images that are finished again and again, with one decision changed.

Rewards are float64. C contexts, n images of each, R finishes of an image, K decisions, M levels of a decision. A finish
has its own noise from the changed step on, the same for all decisions and levels (common random numbers).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adanat_rl.generation.decisions import Decision, DecisionSpace
from adanat_rl.generation.generator import Generator
from adanat_rl.generation.noise import ImageNoise, Noise, Stream
from adanat_rl.generation.policies.base import GenerationPolicy
from adanat_rl.generation.threads import map_in_threads

Scorer = Callable[[Tensor, Tensor], Tensor]  # finished images [B, C, H, W] and context [B] → scores [B]


class BranchedNoise:
    """One source of noise until `branch` is called, another one afterwards.

    The call counts, not the step of a draw: what a generator draws when it starts belongs to the half-drawn image, even
    if it is labelled as a draw of step 0. Draws behind the branch are kept, because every level asks for the same ones.

    Args:
        before, after: for the same B images.
    """

    def __init__(self, before: Noise, after: Noise) -> None:
        self._before, self._after = before, after
        self._branched = False
        self._kept: dict[tuple[int, Stream, tuple[int, ...]], Tensor] = {}

    def branch(self) -> None:
        """Goes over to the second source."""
        self._branched = True

    def exponential(self, step: int, stream: Stream, shape: tuple[int, ...]) -> Tensor:
        """Standard exponential draws, float32 `[B, *shape]`."""
        if not self._branched:
            return self._before.exponential(step, stream, shape)
        key = (step, stream, shape)
        if key not in self._kept:
            self._kept[key] = self._after.exponential(step, stream, shape)
        return self._kept[key].clone()


@dataclass(frozen=True)
class ProbeImages:
    """Which images are drawn, and with what noise.

    Args:
        context: `[C, n]` int64, the same along a row. seeds: `[C, n]` int64. finish_seeds: `[C, n, R]` int64.
    """

    context: Tensor
    seeds: Tensor
    finish_seeds: Tensor


@dataclass(frozen=True)
class StepRewards:
    """Rewards of all finishes that part at one step.

    Args:
        step: t. decisions: the K that were changed, by name.
        base: `[C, n, R]` with nothing changed. changed: `[K, C, n, R, M]`.
        base_values: `[K]` mean decision with nothing changed. values: `[K, M]` with each level.
        features: `[C, n, F]` what the policy could look at before it decides: mean and spread over the positions.
        alike: whether all images of a class are observed alike, as before the first step of most generators.
    """

    step: int
    decisions: tuple[str, ...]
    base: np.ndarray
    changed: np.ndarray
    base_values: np.ndarray
    values: np.ndarray
    features: np.ndarray
    alike: bool


def starting_schedule(space: DecisionSpace) -> Tensor:
    """`[T, K]`: what a policy decides whose actions are all 0. This is where training starts."""
    rows, carry = [], None
    for step in range(space.horizon):
        decision, carry = space.decide(torch.zeros(1, space.num_actions), step, carry)
        rows.append(decision[0])
    return torch.stack(rows)


def moved(values: Tensor, row: Decision, offset: float) -> Tensor:
    """Values `[B]` of a decision, moved by an offset in pre-activation space.

    As for a base schedule, a value that goes up starts from `base_low` at least, one that goes down from `base_high` at
    most: from the flat end of an activation no move would be seen.
    """
    numbers = values.double().cpu().numpy()
    if offset > 0 and row.base_low is not None:
        numbers = np.maximum(numbers, row.base_low)
    if offset < 0 and row.base_high is not None:
        numbers = np.minimum(numbers, row.base_high)
    pre = torch.from_numpy(row.pre_activation(numbers) + offset)
    return row.value(pre).to(values)


def draw_rewards(
    generator: Generator,
    policy: GenerationPolicy,
    scorer: Scorer,
    images: ProbeImages,
    step: int,
    decisions: Sequence[str],
    offsets: Sequence[float],
    *,
    batch_size: int = 256,
    num_threads: int = 1,
    report: Callable[[], None] | None = None,
) -> StepRewards:
    """Finishes every image R times: as the policy would, and with each decision of one step at each level.

    Args:
        policy: decides everything that is not changed, also after the change.
        batch_size: finishes drawn at once; the result does not depend on it.
        num_threads: batches drawn at once.
        report: called after each batch.
    """
    num_classes, per_class, repeats = images.finish_seeds.shape
    context, seeds = images.context.flatten(), images.seeds.flatten()
    finish_seeds = images.finish_seeds.flatten(0, 1)
    columns = [generator.decision_space.names.index(name) for name in decisions]
    lock = threading.Lock()

    def run(rows: Tensor) -> _Batch:
        batch = _draw_batch(
            generator, policy, scorer, context[rows], seeds[rows], finish_seeds[rows], step, columns, offsets
        )
        if report is not None:
            with lock:
                report()
        return batch

    batches = map_in_threads(run, torch.arange(len(context)).split(max(1, batch_size // repeats)), num_threads)
    base = np.concatenate([batch.base for batch in batches])
    changed = np.concatenate([batch.changed for batch in batches])
    shape = (num_classes, per_class)
    return StepRewards(
        step=step,
        decisions=tuple(decisions),
        base=base.reshape(*shape, repeats),
        changed=np.moveaxis(changed.reshape(*shape, repeats, len(columns), len(offsets)), 3, 0),
        base_values=np.concatenate([batch.base_values for batch in batches]).mean(axis=0),
        values=np.concatenate([batch.values for batch in batches]).mean(axis=0),
        features=np.concatenate([batch.features for batch in batches]).reshape(*shape, -1),
        alike=_are_alike(torch.cat([batch.observed for batch in batches]).unflatten(0, shape)),
    )


@dataclass(frozen=True)
class _Batch:
    """Of b images: base `[b, R]`, changed `[b, R, K, M]`, values `[b·R, K]` and `[b·R, K, M]`, features `[b, F]`,
    observed `[b, *sample shape]`.
    """

    base: np.ndarray
    changed: np.ndarray
    base_values: np.ndarray
    values: np.ndarray
    features: np.ndarray
    observed: Tensor


@torch.no_grad()
def _draw_batch(
    generator: Generator,
    policy: GenerationPolicy,
    scorer: Scorer,
    context: Tensor,
    seeds: Tensor,
    finish_seeds: Tensor,
    step: int,
    columns: Sequence[int],
    offsets: Sequence[float],
) -> _Batch:
    """One row for each finish; up to the branch the rows of an image are copies of each other."""
    device, repeats = generator.device, finish_seeds.shape[1]
    context = context.repeat_interleave(repeats).to(device)
    before = ImageNoise(seeds.repeat_interleave(repeats).to(device))
    noise = BranchedNoise(before, ImageNoise(finish_seeds.flatten().to(device)))
    state: Any = generator.reset(context, noise)  # no plan: what is changed was not planned
    carry: Any = None
    for _ in range(step):
        decision, carry = policy.decide(state.observation, carry)
        state = generator.step(state, decision)
    features = state.observation.features
    if features is None:
        raise ValueError(f"nothing is left to decide at step {step}")
    decision, carry = policy.decide(state.observation, carry)
    noise.branch()

    def rewards(first: Tensor) -> np.ndarray:
        sample = _finish(generator, policy, state, first, carry)
        return _checked(scorer(generator.decode(sample), context), len(context)).reshape(-1, repeats)

    values = np.empty((len(context), len(columns), len(offsets)))
    changed = np.empty((len(seeds), repeats, len(columns), len(offsets)))
    for (place, column), (level, offset) in (
        (first, second) for first in enumerate(columns) for second in enumerate(offsets)
    ):
        other = decision.clone()
        other[:, column] = moved(decision[:, column], generator.decision_space.decisions[column], offset)
        values[:, place, level] = other[:, column].double().cpu().numpy()
        changed[:, :, place, level] = rewards(other)
    return _Batch(
        base=rewards(decision),
        changed=changed,
        base_values=decision[:, list(columns)].double().cpu().numpy(),
        values=values,
        features=_pooled(features[::repeats]),
        observed=state.observation.sample[::repeats].cpu(),
    )


def _finish(generator: Generator, policy: GenerationPolicy, state: Any, decision: Tensor, carry: Any) -> Tensor:
    """The finished sample after one given decision; the policy makes those that follow."""
    state = generator.step(state, decision)
    while state.observation.step < generator.horizon:
        decision, carry = policy.decide(state.observation, carry)
        state = generator.step(state, decision)
    sample: Tensor = state.observation.sample
    return sample


def _pooled(features: Tensor) -> np.ndarray:
    """`[b, 2D]`: mean and standard deviation of features `[b, L, D]` over the positions."""
    features = features.double()
    return torch.cat([features.mean(dim=1), features.std(dim=1, correction=0)], dim=1).cpu().numpy()


def _are_alike(samples: Tensor) -> bool:
    """Whether samples `[C, n, …]` differ between classes only."""
    return bool((samples == samples[:, :1]).all())


def _checked(scores: Tensor, count: int) -> np.ndarray:
    if tuple(scores.shape) != (count,) or not bool(torch.isfinite(scores).all()):
        raise ValueError(
            f"the scorer returned shape {list(scores.shape)} or numbers that are not finite, expected [{count}]"
        )
    return scores.detach().double().cpu().numpy()
