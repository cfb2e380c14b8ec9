"""Baselines found by search: the best hand-made schedule of a grid, and the best static schedule by CMA-ES.

A baseline that is searched carelessly proves nothing: the grid is widened until its best point lies inside, and the
static search starts from a good hand-made schedule and minimises the very distance that is reported.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from adanat_rl.config.errors import UserError
from adanat_rl.evaluation.evaluator import Evaluator
from adanat_rl.evaluation.reference import STORED_DIGITS
from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.masked.schedules import hand_made_schedule
from adanat_rl.generation.policies.base import SchedulePolicy
from adanat_rl.generation.seeding import Purpose, derive_seed, philox

Report = Callable[[dict[str, float]], None]

_NUM_LAST_GENERATIONS = 8  # whose best candidates become finalists
_ZERO = 1e-9  # the cosine schedules end with 6e-17
# Image seeds of searches: above those of evaluations, which start from a setting below 2³¹.
_FIRST_SEED, _FIRST_FINAL_SEED = 2**31 + 2**20, 2**31 + 2**30


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


@dataclass(frozen=True, eq=False)
class Trial:
    """One evaluation of the static search.

    Args:
        generation: of CMA-ES, from 0; None where finalists compete.
        values: `[D]` float64, the searched pre-activations; None for a finalist.
        schedule: `[T, K]` float32. image_seed: of its images. distance: infinite where the judge found none.
    """

    generation: int | None
    values: np.ndarray | None
    schedule: np.ndarray
    image_seed: int
    distance: float


class History(Protocol):
    """Trials in the order in which they were made; a list is one."""

    def __iter__(self) -> Iterator[Trial]:
        """All of them."""
        ...

    def append(self, trial: Trial, /) -> None:
        """Keeps one more."""
        ...


@dataclass(frozen=True)
class StaticSearchResult:
    """The best static schedule.

    Args:
        schedule: `[T, K]` float32. distances: of each image seed of the final comparison, `[S]`.
        start_distances: the same of the schedule that the search started from.
        num_evaluated: schedules tried.
    """

    schedule: np.ndarray
    distances: tuple[float, ...]
    start_distances: tuple[float, ...]
    num_evaluated: int

    @property
    def distance(self) -> float:
        """Mean over the image seeds."""
        return float(np.mean(self.distances))

    @property
    def start_distance(self) -> float:
        """The same of the schedule that the search started from."""
        return float(np.mean(self.start_distances))


def search_static_schedule(
    evaluator: Evaluator,
    start: np.ndarray,
    seeds: Sequence[int],
    *,
    num_generations: int = 60,
    population: int = 16,
    sigma: float = 0.4,
    seed: int = 0,
    history: History | None = None,
    report: Callable[[Trial], None] | None = None,
) -> StaticSearchResult:
    """CMA-ES over all values in pre-activation space; entries without effect are left out.

    Each generation is evaluated with its own image seed, so that no single one is fitted; the start, the mean of the
    distribution and the best candidates of the last generations compete on `seeds`. What is drawn depends on the seed
    and its place alone, so a search that goes on from its history comes to what it would have come to in one go.

    Args:
        start: `[T, K]` schedule to start from.
        seeds: image seeds of the final comparison, not those of the report.
        history: trials of this search that are done already; told about each new one.
        report: told about each new one when it is kept.

    Raises:
        UserError: there are fewer than two values to search.
    """
    from cmaes import CMA  # only for this search

    space = evaluator.generator.decision_space
    entries = searched_entries(space)
    if entries.sum() < 2:
        raise UserError(
            f"decisions.learned: {list(space.learned)} in {space.horizon} step(s) have {entries.sum()} value(s) with "
            "an effect; expected at least 2 to search"
        )
    ledger = _Ledger(evaluator, [] if history is None else history, report)
    origin = space.base_pre_activations(start)[entries]
    optimizer = CMA(mean=origin, sigma=sigma, population_size=population, seed=0)  # seeded anew at each draw
    finalists: list[np.ndarray] = []
    for generation in range(num_generations):
        image_seed = generation_image_seed(seed, generation)
        trials = ledger.candidates(generation)[:population]
        for index in range(len(trials), population):
            optimizer.reseed_rng(derive_seed(Purpose.SEARCH, seed, generation, index))
            values = optimizer.ask()
            trials.append(ledger.evaluate(generation, values, _schedule(space, start, values), image_seed))
        optimizer.tell([(trial.values, trial.distance) for trial in trials])
        if generation >= num_generations - _NUM_LAST_GENERATIONS:
            finalists.append(min(trials, key=lambda trial: trial.distance).schedule)
    finalists = [_rounded(schedule) for schedule in (_schedule(space, start, optimizer.mean), *finalists)]
    return _compete(ledger, start.astype(np.float32), finalists, seeds, num_generations * population)


def searched_entries(space: DecisionSpace) -> np.ndarray:
    """`[T, A]` bool: learned values with an effect, whatever the likelihood of a policy makes of the others."""
    return space.effective[:, [space.names.index(name) for name in space.learned]]


def generation_image_seed(seed: int, generation: int) -> int:
    """The image seed that all candidates of a generation share; never one of an evaluation or a final comparison."""
    return _FIRST_SEED + int(philox(Purpose.SEARCH, seed, generation).integers(_FIRST_FINAL_SEED - _FIRST_SEED))


def final_image_seeds(seed: int, num_seeds: int) -> list[int]:
    """The image seeds on which finalists compete; never those of an evaluation or a generation."""
    first = int(philox(Purpose.SEARCH, seed).integers(_FIRST_FINAL_SEED, 2**32 - num_seeds))
    return list(range(first, first + num_seeds))


def num_finalists(num_generations: int) -> int:
    """Start, mean, and the best candidates of the last generations."""
    return 2 + min(num_generations, _NUM_LAST_GENERATIONS)


def num_trials(num_generations: int, population: int, num_seeds: int) -> int:
    """Evaluations of a whole search."""
    return num_generations * population + num_finalists(num_generations) * num_seeds


class _Ledger:
    """Evaluates, keeps, and recalls what was kept before.

    Args:
        evaluator: asked for what is not known. history: what is. report: told about what is new.
    """

    def __init__(self, evaluator: Evaluator, history: History, report: Callable[[Trial], None] | None) -> None:
        self._evaluator, self._history, self._report = evaluator, history, report
        self._candidates: dict[int, list[Trial]] = {}
        self._finals: dict[tuple[bytes, int], float] = {}
        for trial in history:
            if trial.generation is None:
                self._finals[trial.schedule.tobytes(), trial.image_seed] = trial.distance
            else:
                self._candidates.setdefault(trial.generation, []).append(trial)

    def candidates(self, generation: int) -> list[Trial]:
        """Those of a generation that are known."""
        return list(self._candidates.get(generation, ()))

    def final(self, schedule: np.ndarray, image_seed: int) -> float:
        """Distance of a finalist."""
        known = self._finals.get((schedule.tobytes(), image_seed))
        return known if known is not None else self.evaluate(None, None, schedule, image_seed).distance

    def evaluate(
        self, generation: int | None, values: np.ndarray | None, schedule: np.ndarray, image_seed: int
    ) -> Trial:
        """A new trial."""
        distance = self._evaluator.distance(SchedulePolicy(torch.from_numpy(schedule)), image_seed)
        # a judge that finds no number must not come first
        trial = Trial(generation, values, schedule, image_seed, distance if math.isfinite(distance) else math.inf)
        if generation is None:
            self._finals[schedule.tobytes(), image_seed] = trial.distance
        self._history.append(trial)
        if self._report is not None:
            self._report(trial)
        return trial


def _compete(
    ledger: _Ledger, start: np.ndarray, finalists: Sequence[np.ndarray], seeds: Sequence[int], num_evaluated: int
) -> StaticSearchResult:
    """The best mean over the seeds wins; the start if nothing is better."""
    results = [(schedule, tuple(ledger.final(schedule, seed) for seed in seeds)) for schedule in (start, *finalists)]
    schedule, distances = min(results, key=lambda result: float(np.mean(result[1])))
    return StaticSearchResult(schedule, distances, results[0][1], num_evaluated)


def _schedule(space: DecisionSpace, start: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The schedule `[T, K]` with pre-activations `values` at the searched entries, the start elsewhere."""
    entries, learned = searched_entries(space), [space.names.index(name) for name in space.learned]
    pre = space.base_pre_activations(start)
    pre[entries] = values
    rows = [space.from_pre_activations(torch.from_numpy(pre[t : t + 1]).float(), t) for t in range(space.horizon)]
    schedule = start.astype(np.float32)
    schedule[:, learned] = np.where(entries, torch.cat(rows).numpy()[:, learned], schedule[:, learned])
    return schedule


def _rounded(schedule: np.ndarray) -> np.ndarray:
    """The schedule as files have it; what is above 0 in earnest stays so, because logits are divided by it."""
    values = schedule.astype(np.float64)
    least = np.where(values > _ZERO, 10.0**-STORED_DIGITS, 0.0)
    return np.maximum(values.round(STORED_DIGITS), least).astype(np.float32)
