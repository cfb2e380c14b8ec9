"""The verdict of a panel: by hand, by counting over simulated comparisons, and in words."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from adanat_rl.evaluation.panel.contract import Value
from adanat_rl.evaluation.panel.verdict import PanelVerdict, panel_verdict
from adanat_rl.evaluation.verdicts import Finding, crossed_difference, paired_difference

VALUES = tuple(
    [Value(f"fd_{number}", f"FD {number}", True, 0.03, is_relative=True) for number in range(5)]
    + [Value(f"share_{number}", f"share {number}", False, 0.015) for number in range(4)]
)


def test_one_training_is_a_paired_comparison() -> None:
    ours, theirs = np.array([[0.2, 0.25, 0.21]]), np.array([[0.3, 0.31, 0.33]])
    crossed, paired = crossed_difference(ours, theirs, 0.01), paired_difference(ours[0], theirs[0], 0.01)
    assert (crossed.low, crossed.high, crossed.p) == (paired.low, paired.high, paired.p)


def test_two_sources_add_their_squared_half_widths() -> None:
    """Without a rest the two means of rows and of columns are all that varies."""
    gains = np.array([0.0, 0.1, 0.3])[:, None] + np.array([0.0, 0.02])[None, :]
    found = crossed_difference(gains, np.zeros((1, 2)), 0.0, minimises=False)
    of_trainings = stats.t.ppf(0.975, 2) * np.std([0.01, 0.11, 0.31], ddof=1) / 3**0.5
    of_seeds = stats.t.ppf(0.975, 1) * np.std([0.0, 0.02], ddof=1) / 2**0.5
    assert found.half_width(0.05) == pytest.approx(np.hypot(of_trainings, of_seeds))


def test_a_p_value_is_the_level_at_which_the_interval_touches_the_margin() -> None:
    rng = np.random.default_rng(3)
    found = crossed_difference(rng.normal(0.1, 0.03, (4, 3)), rng.normal(0.2, 0.03, (1, 3)), 0.02)
    assert found.mean - found.half_width(found.p) == pytest.approx(found.margin)


@pytest.mark.parametrize("shape", [(2, 5), (3, 3), (5, 3), (10, 5)])
@pytest.mark.parametrize(
    "spreads", [(1.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 0.3, 0.3), (0.3, 1.0, 0.3), (1.0, 1.0, 1.0)]
)
def test_intervals_keep_their_level(shape: tuple[int, int], spreads: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(5)
    trainings, seeds = shape
    missed = 0
    for _ in range(1500):
        gains = (
            spreads[0] * rng.standard_normal((trainings, 1))
            + spreads[1] * rng.standard_normal((1, seeds))
            + spreads[2] * rng.standard_normal(shape)
        )
        found = crossed_difference(gains, np.zeros((1, seeds)), 0.0)
        missed += not found.low <= 0 <= found.high
    assert missed / 1500 < 0.05 + 2.6 * (0.05 * 0.95 / 1500) ** 0.5


def _numbers(rng: np.random.Generator, gain: float, trainings: int, seeds: int) -> dict[str, np.ndarray]:
    """Values with a spread of 2 % over trainings and 2 % over seeds; distances fall, and shares rise, by a part."""
    numbers = {}
    for value in VALUES:
        start, sign = (0.2, -1) if value.minimises else (0.8, 0.25)
        wide = start * (1.0 if value.minimises else 0.25)
        spread = 0.02 * wide * (rng.standard_normal((trainings, 1)) + rng.standard_normal((trainings, seeds)))
        numbers[value.key] = start * (1 + sign * gain) + spread
    return numbers


def _simulated(gain: float, count: int = 300) -> list[PanelVerdict]:
    rng = np.random.default_rng(7)
    return [panel_verdict(VALUES, _numbers(rng, gain, 10, 5), _numbers(rng, 0.0, 10, 5)) for _ in range(count)]


def test_of_equal_recipes_hardly_any_is_called_better_or_worse_and_most_values_are_level() -> None:
    verdicts = _simulated(0.0)
    wrong = sum(verdict.count(Finding.BETTER) + verdict.count(Finding.WORSE) > 0 for verdict in verdicts)
    assert wrong / len(verdicts) <= 0.05
    assert np.mean([verdict.count(Finding.LEVEL) / len(VALUES) for verdict in verdicts]) >= 0.8


def test_what_is_there_is_found() -> None:
    verdicts = _simulated(0.15)
    assert np.mean([verdict.count(Finding.BETTER) / len(VALUES) for verdict in verdicts]) >= 0.8
    assert not any(verdict.count(Finding.WORSE) for verdict in verdicts)


def _told(**findings: tuple[float, float]) -> PanelVerdict:
    values = [Value(key, key, True, 0.1) for key in findings]
    wobble = np.array([-1e-3, 0.0, 1e-3])
    ours = {key: pair[0] + wobble for key, pair in findings.items()}
    theirs = {key: pair[1] - wobble for key, pair in findings.items()}
    return panel_verdict(values, ours, theirs)


def test_a_sentence_counts_and_names_the_exceptions() -> None:
    verdict = _told(a=(1, 2), b=(1, 2), c=(1, 2), d=(1, 2), recall=(1, 1), density=(2, 1))
    assert verdict.sentence == "better by 4 of 6 values, worse by 1 (density) and level by 1 (recall)"
    assert _told(a=(2, 1)).sentence == "worse by 1 of 1 values (a)"


def test_what_a_reward_was_paid_in_is_shown_and_not_counted() -> None:
    ours, theirs = {"a": [1.0, 1.1, 1.2], "b": [1.0, 1.1, 1.2]}, {"a": [2.0, 2.1, 2.2], "b": [1.0, 1.1, 1.2]}
    values = [Value("a", "a", True, 0.1), Value("b", "b", True, 0.1)]
    verdict = panel_verdict(values, ours, theirs, rewarded=["a"])
    assert [row.is_counted for row in verdict.rows] == [False, True]
    assert [row.finding for row in verdict.rows] == [Finding.BETTER, Finding.LEVEL]
    assert verdict.keys(Finding.BETTER) == []
    assert verdict.sentence == "level by 1 of 1 values (b); 1 not counted, because the reward used it"
    assert "used all values" in panel_verdict(values, ours, theirs, rewarded=["a", "b"]).sentence
