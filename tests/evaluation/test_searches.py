from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from cmaes import CMA

from adanat_rl.config.errors import UserError
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.evaluation.searches import (
    DEFAULT_AXES,
    Axis,
    GridSearch,
    Trial,
    final_image_seeds,
    generation_image_seed,
    num_trials,
    search_static_schedule,
    searched_entries,
)
from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.masked.schedules import hand_made_schedule, masked_token_decisions
from adanat_rl.generation.policies.base import SchedulePolicy
from adanat_rl.generation.seeding import Purpose, derive_seed

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


EFFECTIVE = np.ones((HORIZON, 4), bool)
EFFECTIVE[-1, :2] = False


class KilledError(Exception):
    """The process is gone."""


def small_search(evaluator: KnownOptimum, history=None, report=None, num_generations: int = 10):
    return search_static_schedule(
        evaluator,
        hand_made_schedule(HORIZON),
        [1, 2],
        num_generations=num_generations,
        population=6,
        history=history,
        report=report,
    )


def test_the_static_search_finds_a_known_optimum() -> None:
    evaluator = KnownOptimum(static_distance)
    start = hand_made_schedule(HORIZON)
    seen: list[Trial] = []
    result = search_static_schedule(evaluator, start, [1, 2], num_generations=120, population=12, report=seen.append)
    np.testing.assert_allclose(result.schedule[EFFECTIVE], static_target()[EFFECTIVE], atol=0.08)
    np.testing.assert_array_equal(result.schedule[~EFFECTIVE], start.round(5)[~EFFECTIVE])
    assert result.distance < 0.02
    assert result.distances == tuple(static_distance(result.schedule.astype(float), seed) for seed in (1, 2))
    assert result.start_distances == pytest.approx([static_distance(start, seed) for seed in (1, 2)], abs=1e-5)
    assert result.num_evaluated == 120 * 12
    assert [trial.generation for trial in seen if trial.generation is not None] == sorted([*range(120)] * 12)
    assert len(seen) == len(evaluator.calls) == num_trials(120, 12, 2) == 120 * 12 + (8 + 2) * 2
    assert result.schedule.round(5) == pytest.approx(result.schedule, abs=1e-7), "as files have it"


def test_a_static_search_with_its_optimum_at_the_start_gives_the_start_back() -> None:
    start = static_target().astype(np.float32)
    results = [
        search_static_schedule(KnownOptimum(static_distance), start, [1], num_generations=2, population=6, sigma=2.0)
        for _ in range(2)
    ]
    for result in results:
        np.testing.assert_array_equal(result.schedule, start)
        assert result.distances == result.start_distances


def test_each_generation_of_the_static_search_has_its_own_seed() -> None:
    evaluator = KnownOptimum(static_distance)
    search_static_schedule(evaluator, hand_made_schedule(HORIZON), [1], num_generations=5, population=6)
    seeds = [[seed for _, seed in evaluator.calls[start : start + 6]] for start in range(0, 30, 6)]
    assert all(len(set(generation)) == 1 for generation in seeds)
    assert [generation[0] for generation in seeds] == [generation_image_seed(0, number) for number in range(5)]
    assert len({generation[0] for generation in seeds}) == 5


def test_image_seeds_of_generations_finals_and_evaluations_never_meet() -> None:
    largest = ExperimentConfig.model_validate({"evaluation": {"seed": 2**31 - 1, "num_seeds": 1000}}).evaluation
    for seed in range(50):
        generations = {generation_image_seed(seed, number) for number in range(200)}
        finals = final_image_seeds(seed, 8)
        assert len(finals) == len(set(finals)) == 8
        assert largest.seed + largest.num_seeds < min(generations) <= max(generations) < min(finals)
        assert max(finals) < 2**32
    assert final_image_seeds(0, 8) != final_image_seeds(1, 8)


def test_candidates_are_those_of_the_plain_algorithm() -> None:
    """Told generation by generation, drawn with a generator of each one's own."""
    history: list[Trial] = []
    evaluator = KnownOptimum(static_distance)
    small_search(evaluator, history)
    start = hand_made_schedule(HORIZON)
    lifted = np.clip(start, [0.02, 0.1, 0.1, 0.1], [0.98, np.inf, np.inf, np.inf])
    logits = np.log(lifted[:, :1] / (1 - lifted[:, :1]))
    mean = evaluator.generator.decision_space.base_pre_activations(start)[EFFECTIVE]
    expected_mean = np.hstack([logits, np.log(np.expm1(lifted[:, 1:]))])[EFFECTIVE]
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-9)  # its last bit turns all draws: axes are degenerate
    plain = CMA(mean=mean, sigma=0.4, population_size=6, seed=1)
    for generation in range(10):
        told = []
        for index in range(6):
            plain.reseed_rng(derive_seed(Purpose.SEARCH, 0, generation, index))
            trial = history[6 * generation + index]
            np.testing.assert_array_equal(trial.values, plain.ask())
            values, expected = spread(trial.values), start.copy()
            values[:, 0] = 1 / (1 + np.exp(-values[:, 0]))
            values[:, 1:] = np.log1p(np.exp(values[:, 1:]))
            expected[EFFECTIVE] = values[EFFECTIVE]
            np.testing.assert_allclose(trial.schedule, expected, rtol=1e-5, atol=1e-6)
            told.append((trial.values, static_distance(trial.schedule.astype(float), trial.image_seed)))
            assert told[-1][1] == trial.distance
        plain.tell(told)


def spread(values: np.ndarray) -> np.ndarray:
    """Values at their places among all `[T, 4]`."""
    everywhere = np.zeros((HORIZON, 4))
    everywhere[EFFECTIVE] = values
    return everywhere


@pytest.mark.parametrize("kept", [0, 1, 5, 6, 7, 31, 59, 60, 61, 70, 79, 80])
def test_a_search_that_goes_on_comes_to_the_same_bit_by_bit(kept: int) -> None:
    """60 candidates and 20 finals; each number of them may be all that is left."""
    whole: list[Trial] = []
    expected = small_search(KnownOptimum(static_distance), whole)
    assert len(whole) == 80

    def kill(trial: Trial) -> None:
        if len(history) == kept:
            raise KilledError

    history: list[Trial] = []
    if kept:
        with pytest.raises(KilledError):
            small_search(KnownOptimum(static_distance), history, kill)
    evaluator = KnownOptimum(static_distance)
    result = small_search(evaluator, history)
    assert len(evaluator.calls) == 80 - kept, "nothing is evaluated twice"
    np.testing.assert_array_equal(result.schedule, expected.schedule)
    assert (result.distances, result.start_distances) == (expected.distances, expected.start_distances)
    for ours, theirs in zip(history, whole, strict=True):
        assert (ours.generation, ours.image_seed, ours.distance) == (
            theirs.generation,
            theirs.image_seed,
            theirs.distance,
        )
        np.testing.assert_array_equal(ours.schedule, theirs.schedule)
        if theirs.values is not None:
            np.testing.assert_array_equal(ours.values, theirs.values)


def test_more_generations_go_on_from_fewer() -> None:
    history: list[Trial] = []
    small_search(KnownOptimum(static_distance), history, num_generations=4)
    longer = small_search(KnownOptimum(static_distance), history, num_generations=10)
    whole = small_search(KnownOptimum(static_distance))
    np.testing.assert_array_equal(longer.schedule, whole.schedule)
    assert longer.distances == whole.distances
    shorter = small_search(KnownOptimum(lambda *_: pytest.fail("all is known")), history, num_generations=4)
    assert shorter.num_evaluated == 24


def test_decisions_that_are_not_learned_keep_their_value_in_the_static_search() -> None:
    evaluator = KnownOptimum(static_distance, learned=["sampling_temperature", "guidance_scale"])
    start = hand_made_schedule(HORIZON, confidence_temperature=2.5)
    result = search_static_schedule(evaluator, start, [1], num_generations=60, population=10)
    np.testing.assert_allclose(result.schedule[:, :2], start[:, :2].round(5), atol=1e-6)
    np.testing.assert_allclose(result.schedule[:, 2:], static_target()[:, 2:], atol=0.1)


def test_what_has_no_effect_is_not_searched_whatever_a_likelihood_makes_of_it() -> None:
    space = DecisionSpace(masked_token_decisions(), hand_made_schedule(HORIZON), mask_ineffective=False)
    np.testing.assert_array_equal(searched_entries(space), EFFECTIVE)


def test_a_judge_without_a_number_never_wins() -> None:
    def broken_below_one(schedule: np.ndarray, seed: int) -> float:
        return float("nan") if schedule[0, 2] < 1.0 else static_distance(schedule, seed)

    history: list[Trial] = []
    result = small_search(KnownOptimum(broken_below_one), history)
    assert math.isfinite(result.distance)
    assert result.schedule[0, 2] >= 1.0
    assert any(trial.distance == math.inf for trial in history), "the case was met"


def test_one_value_alone_is_no_search() -> None:
    evaluator = KnownOptimum(static_distance)
    rows, base = masked_token_decisions(0.01, 0.1), hand_made_schedule(1)
    evaluator.generator.decision_space = DecisionSpace(rows, base, ["mask_ratio", "guidance_scale"])
    with pytest.raises(UserError, match=r"decisions.learned: .* 1 value\(s\) with an effect; expected at least 2"):
        search_static_schedule(evaluator, base, [1])
