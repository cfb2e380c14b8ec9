"""Baselines found by search: the best hand-made schedule of a grid, and the best static schedule by CMA-ES.

A baseline that is searched carelessly proves nothing: the grid is widened until its best point lies inside, and the
static search starts from the best hand-made schedule and minimises the very distance that is reported.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from adanat_rl.evaluation.evaluator import Evaluator
from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.masked.schedules import hand_made_schedule
from adanat_rl.generation.policies.base import SchedulePolicy

Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Axis:
    """One parameter of the hand-made schedules.

    Args:
        name: of the parameter. values: ascending. least: the least value that exists, or None.
        num_widenings: how often the axis may still be widened.
    """

    name: str
    values: tuple[float, ...]
    least: float | None = None
    num_widenings: int = 8

    def widened(self, best: float) -> Axis:
        """The axis with one more value beyond the end at which `best` lies; unchanged where nothing lies beyond."""
        first, last = self.values[0], self.values[-1]
        if self.num_widenings == 0 or best not in (first, last) or best == self.least:
            return self
        if best == last:
            values = (*self.values, last * last / self.values[-2])
        else:
            values = (first * first / self.values[1] if self.least is None else self.least, *self.values)
        return Axis(self.name, values, self.least, self.num_widenings - 1)


DEFAULT_AXES = (
    Axis("curve_power", (0.56, 0.75, 1.0, 1.33)),
    Axis("confidence_temperature", (3.0, 4.5, 7.0, 11.0)),
    Axis("sampling_temperature", (0.8, 0.9, 1.0, 1.1, 1.2)),
    Axis("guidance_scale", (0.0, 0.25, 0.5, 1.0), least=0.0),
)


@dataclass(frozen=True)
class GridResult:
    """The best hand-made schedule.

    Args:
        settings: its parameters. schedule: `[T, 4]`. distance: mean over the search seeds.
        axes: the grid in its final extent. num_evaluated: schedules tried.
        on_edge: parameters whose best value is an end of its axis all the same: nothing lies beyond (guidance scale 0),
            or the axis has been widened as often as it may.
    """

    settings: dict[str, float]
    schedule: np.ndarray
    distance: float
    axes: tuple[Axis, ...]
    num_evaluated: int
    on_edge: tuple[str, ...]


class GridSearch:
    """Grid over the cosine schedules of a horizon: curve power, both temperatures, guidance scale.

    Every point is evaluated with one seed; the best `num_finalists` again with `seeds`, and the best mean wins.

    Args:
        evaluator: for the horizon. seeds: of the search, not those of the report.
    """

    def __init__(self, evaluator: Evaluator, seeds: Sequence[int], num_finalists: int = 8) -> None:
        self._evaluator = evaluator
        self._seeds = seeds
        self._num_finalists = num_finalists
        self._scores: dict[tuple[float, ...], list[float]] = {}

    def run(self, axes: tuple[Axis, ...] = DEFAULT_AXES, report: Report | None = None) -> GridResult:
        """Widens the grid until the best point is inside."""
        while True:
            for point in itertools.product(*(axis.values for axis in axes)):
                if point not in self._scores:
                    self._scores[point] = [self._distance(axes, point, self._seeds[0])]
                    if report is not None:
                        report({"num_evaluated": len(self._scores), "distance": self._scores[point][0]})
            best = self._best(axes)
            wider = tuple(axis.widened(value) for axis, value in zip(axes, best, strict=True))
            if wider == axes:
                break
            axes = wider
        settings = dict(zip((axis.name for axis in axes), best, strict=True))
        ends = tuple(
            axis.name for axis, value in zip(axes, best, strict=True) if value in (axis.values[0], axis.values[-1])
        )
        schedule = cosine_schedule(self._evaluator.generator.horizon, settings)
        return GridResult(settings, schedule, float(np.mean(self._scores[best])), axes, len(self._scores), ends)

    def _best(self, axes: tuple[Axis, ...]) -> tuple[float, ...]:
        finalists = sorted(self._scores, key=lambda point: self._scores[point][0])[: self._num_finalists]
        for point in finalists:
            done = len(self._scores[point])
            self._scores[point] += [self._distance(axes, point, seed) for seed in self._seeds[done:]]
        return min(finalists, key=lambda point: float(np.mean(self._scores[point])))

    def _distance(self, axes: tuple[Axis, ...], point: tuple[float, ...], seed: int) -> float:
        settings = dict(zip((axis.name for axis in axes), point, strict=True))
        schedule = cosine_schedule(self._evaluator.generator.horizon, settings)
        return self._evaluator.distance(SchedulePolicy(torch.from_numpy(schedule).float()), seed)


def cosine_schedule(horizon: int, settings: Mapping[str, float]) -> np.ndarray:
    """The hand-made schedule `[T, 4]` at a point of the grid."""
    return hand_made_schedule(
        horizon,
        curve_power=settings["curve_power"],
        confidence_temperature=settings["confidence_temperature"],
        sampling_temperature=settings["sampling_temperature"],
        guidance_scale=settings["guidance_scale"],
    )


@dataclass(frozen=True)
class StaticSearchResult:
    """The best static schedule.

    Args:
        schedule: `[T, 4]`. distance: mean over the search seeds. num_evaluated: schedules tried.
    """

    schedule: np.ndarray
    distance: float
    num_evaluated: int


def search_static_schedule(
    evaluator: Evaluator,
    start: np.ndarray,
    seeds: Sequence[int],
    *,
    num_generations: int = 60,
    population: int = 16,
    sigma: float = 0.4,
    seed: int = 0,
    report: Report | None = None,
) -> StaticSearchResult:
    """CMA-ES over all 4T values in pre-activation space (entries without effect left out).

    Each generation is evaluated with its own draw of a seed, so that no single one is fitted; the mean of the
    distribution and the best candidates of the last generations compete on `seeds`.

    Args:
        start: `[T, 4]` schedule to start from.
        seeds: for the final comparison, not those of the report.
    """
    from cmaes import CMA  # only for this search

    space = evaluator.generator.decision_space
    origin = space.base_pre_activations(start)
    effective = space.effect_mask.numpy()
    generator = np.random.default_rng(seed)
    optimizer = CMA(mean=origin[effective], sigma=sigma, population_size=population, seed=seed)
    finalists: list[np.ndarray] = []
    for generation in range(num_generations):
        image_seed = int(generator.integers(2**31))
        candidates = [optimizer.ask() for _ in range(population)]
        scored = [(x, evaluator.distance(_policy(space, origin, effective, x), image_seed)) for x in candidates]
        optimizer.tell(scored)
        best, distance = min(scored, key=lambda pair: pair[1])
        if generation >= num_generations - 8:
            finalists.append(best)
        if report is not None:
            report({"generation": generation + 1, "num_generations": num_generations, "distance": distance})
    finalists += [optimizer.mean, origin[effective]]
    results = []
    for x in finalists:
        policy = _policy(space, origin, effective, x)
        results.append((float(np.mean([evaluator.distance(policy, s) for s in seeds])), policy.schedule.numpy()))
    distance, schedule = min(results, key=lambda pair: pair[0])
    return StaticSearchResult(schedule, distance, num_generations * population)


def _policy(space: DecisionSpace, origin: np.ndarray, effective: np.ndarray, values: np.ndarray) -> SchedulePolicy:
    """The schedule whose pre-activations are `values` where they have an effect."""
    pre = origin.copy()
    pre[effective] = values
    rows = [space.from_pre_activations(torch.from_numpy(pre[t : t + 1]).float(), t) for t in range(space.horizon)]
    return SchedulePolicy(torch.cat(rows))
