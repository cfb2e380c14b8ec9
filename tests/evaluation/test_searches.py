from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest

from adanat_rl.evaluation.searches import DEFAULT_AXES, Axis, GridSearch, search_static_schedule
from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.masked.schedules import hand_made_schedule, masked_token_decisions
from adanat_rl.generation.policies.base import SchedulePolicy

HORIZON = 4


class KnownOptimum:
    """Stands for an evaluator whose distance is known: a function of the schedule and the seed."""

    def __init__(self, distance, learned=None) -> None:
        space = DecisionSpace(masked_token_decisions(0.01, 0.1), hand_made_schedule(HORIZON), learned)
        self.generator = SimpleNamespace(horizon=HORIZON, decision_space=space)
        self.calls: list[tuple[np.ndarray, int]] = []
        self._distance = distance

    def distance(self, policy: SchedulePolicy, seed: int) -> float:
        schedule = policy.schedule.double().numpy()
        assert schedule.shape == (HORIZON, 4)
        self.calls.append((schedule, seed))
        return self._distance(schedule, seed)


def settings_of(schedule: np.ndarray) -> dict[str, float]:
    """The parameters of a cosine schedule, read off its values."""
    power = math.log(2 / math.pi * math.acos(schedule[0, 0])) / math.log(1 / HORIZON)
    return {
        "curve_power": power,
        "confidence_temperature": schedule[0, 1] / (1 - 1 / HORIZON),
        "sampling_temperature": schedule[0, 2],
        "guidance_scale": schedule[-1, 3],
    }


def quadratic(optimum: dict[str, float]):
    """Squared distance of the parameters from an optimum, on a logarithmic scale."""

    def distance(schedule: np.ndarray, seed: int) -> float:
        found = settings_of(schedule)
        return sum(math.log((found[name] + 0.01) / (best + 0.01)) ** 2 for name, best in optimum.items())

    return distance


OPTIMUM = {
    "curve_power": 0.8,  # inside
    "confidence_temperature": 31.0,  # beyond the upper end
    "sampling_temperature": 0.5,  # beyond the lower end
    "guidance_scale": 0.0,  # an end that nothing lies beyond
}


def test_the_grid_is_widened_until_the_optimum_is_inside() -> None:
    evaluator = KnownOptimum(quadratic(OPTIMUM))
    result = GridSearch(evaluator, [1, 2]).run()
    for axis in result.axes:
        best = result.settings[axis.name]
        nearest = min(axis.values, key=lambda value: abs(math.log((value + 0.01) / (OPTIMUM[axis.name] + 0.01))))
        assert best == nearest, axis.name
        if axis.name != "guidance_scale":
            assert axis.values[0] < best < axis.values[-1]
    assert result.on_edge == ("guidance_scale",)
    assert result.settings["guidance_scale"] == 0
    assert result.distance == pytest.approx(quadratic(OPTIMUM)(hand_made_schedule(HORIZON, **result.settings), 0))
    np.testing.assert_allclose(result.schedule, hand_made_schedule(HORIZON, **result.settings))


def test_every_point_of_the_final_grid_is_evaluated_once_with_the_first_seed() -> None:
    evaluator = KnownOptimum(quadratic(OPTIMUM))
    seen = []
    result = GridSearch(evaluator, [1, 2]).run(report=seen.append)
    first = [schedule.round(6).tobytes() for schedule, seed in evaluator.calls if seed == 1]
    assert len(first) == len(set(first)) == result.num_evaluated == len(seen)
    assert result.num_evaluated == math.prod(len(axis.values) for axis in result.axes)


def test_a_grid_with_its_optimum_inside_is_left_as_it_is() -> None:
    inside = {"curve_power": 0.75, "confidence_temperature": 7.0, "sampling_temperature": 1.0, "guidance_scale": 0.5}
    result = GridSearch(KnownOptimum(quadratic(inside)), [1]).run()
    assert result.axes == DEFAULT_AXES
    assert result.settings == inside
    assert result.on_edge == ()


INSIDE = {"curve_power": 1.0, "confidence_temperature": 4.0, "sampling_temperature": 1.0, "guidance_scale": 0.5}
SMALL_AXES = (
    Axis("curve_power", (0.5, 0.7, 1.0, 1.4)),
    Axis("confidence_temperature", (2.0, 4.0, 8.0)),
    Axis("sampling_temperature", (0.5, 1.0, 2.0)),
    Axis("guidance_scale", (0.25, 0.5, 1.0), least=0.0),
)


def test_the_best_mean_over_the_seeds_wins_not_the_luckiest_first_seed() -> None:
    def lucky(schedule: np.ndarray, seed: int) -> float:
        luck = seed == 1 and abs(settings_of(schedule)["curve_power"] - 0.7) < 1e-3
        return quadratic(INSIDE)(schedule, seed) - (0.5 if luck else 0.0)

    assert GridSearch(KnownOptimum(lucky), [1]).run(SMALL_AXES).settings["curve_power"] == 0.7
    assert GridSearch(KnownOptimum(lucky), [1, 2, 3, 4, 5, 6]).run(SMALL_AXES).settings["curve_power"] == 1.0


def test_axes_are_widened_by_the_ratio_at_their_end() -> None:
    axis = Axis("x", (1.0, 2.0, 3.0))
    assert axis.widened(1.0).values == (0.5, 1.0, 2.0, 3.0)
    assert axis.widened(3.0).values == (1.0, 2.0, 3.0, 4.5)
    assert axis.widened(2.0) == axis
    bounded = Axis("x", (0.5, 1.0), least=0.0).widened(0.5)
    assert bounded.values == (0.0, 0.5, 1.0)
    assert bounded.widened(0.0) == bounded
    assert Axis("x", (1.0, 2.0), num_widenings=0).widened(2.0).values == (1.0, 2.0)


def test_a_search_ends_at_the_least_value_of_an_axis() -> None:
    calls = itertools.count()

    def rising(schedule: np.ndarray, seed: int) -> float:
        if next(calls) > 1000:
            pytest.fail("the search goes on without end")
        return quadratic({**INSIDE, "guidance_scale": 0.0})(schedule, seed)

    assert GridSearch(KnownOptimum(rising), [1]).run(SMALL_AXES).settings["guidance_scale"] == 0


def static_target() -> np.ndarray:
    return np.array([[0.7, 3.0, 1.4, 0.4], [0.4, 2.0, 1.1, 0.9], [0.2, 1.0, 0.8, 1.5], [0.5, 0.5, 0.5, 2.5]])


def static_distance(schedule: np.ndarray, seed: int) -> float:
    """Squared error in all entries that have an effect, and noise that differs between the seeds."""
    error = (schedule - static_target()) ** 2
    error[-1, :2] = 0
    return float(error.sum()) + 1e-4 * (seed % 7)


def test_the_static_search_finds_a_known_optimum() -> None:
    evaluator = KnownOptimum(static_distance)
    start = hand_made_schedule(HORIZON)
    seen = []
    result = search_static_schedule(evaluator, start, [1, 2], num_generations=120, population=12, report=seen.append)
    effective = np.ones((HORIZON, 4), bool)
    effective[-1, :2] = False
    np.testing.assert_allclose(result.schedule[effective], static_target()[effective], atol=0.08)
    assert result.distance < 0.02
    assert result.distance == pytest.approx(
        np.mean([static_distance(result.schedule.astype(float), s) for s in (1, 2)]), abs=1e-6
    )
    assert result.num_evaluated == 120 * 12
    assert [row["generation"] for row in seen] == list(range(1, 121))


def test_the_static_search_is_reproducible_and_never_worse_than_its_start() -> None:
    results = [
        search_static_schedule(
            KnownOptimum(static_distance), static_target(), [1], num_generations=2, population=6, sigma=2.0
        )
        for _ in range(2)
    ]
    np.testing.assert_array_equal(results[0].schedule, results[1].schedule)
    assert results[0].distance <= static_distance(static_target(), 1) + 1e-6


def test_each_generation_of_the_static_search_has_its_own_seed() -> None:
    evaluator = KnownOptimum(static_distance)
    search_static_schedule(evaluator, hand_made_schedule(HORIZON), [1], num_generations=5, population=6)
    seeds = [[seed for _, seed in evaluator.calls[start : start + 6]] for start in range(0, 30, 6)]
    assert all(len(set(generation)) == 1 for generation in seeds)
    assert len({generation[0] for generation in seeds}) == 5


def test_decisions_that_are_not_learned_keep_their_value_in_the_static_search() -> None:
    evaluator = KnownOptimum(static_distance, learned=["sampling_temperature", "guidance_scale"])
    start = hand_made_schedule(HORIZON)
    result = search_static_schedule(evaluator, start, [1], num_generations=60, population=10)
    np.testing.assert_allclose(result.schedule[:, :2], start[:, :2], atol=1e-6)
    np.testing.assert_allclose(result.schedule[:, 2:], static_target()[:, 2:], atol=0.1)
