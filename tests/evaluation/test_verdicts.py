"""What may be said of a difference: against scipy's tests, by counting over simulated sweeps, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from adanat_rl.evaluation.verdicts import Finding, contest, holm, paired_difference
from benchmarks.verdicts import HAND_MADE, measured_spread, simulate, sweeps


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("minimises", [True, False])
def test_intervals_and_p_values_are_those_of_a_paired_t_test(count: int, minimises: bool) -> None:
    rng = np.random.default_rng(count)
    first, second = rng.normal(0.2, 0.02, count), rng.normal(0.23, 0.02, count)
    found = paired_difference(first, second, 0.004, minimises=minimises)
    pair = (second, first) if minimises else (first, second)
    test = stats.ttest_rel(*pair)
    for level, low, high in ((0.95, found.low, found.high), (0.9, found.low_90, found.high_90)):
        expected = test.confidence_interval(level)
        assert (low, high) == pytest.approx((expected.low, expected.high))
    assert found.p_better == pytest.approx(stats.ttest_rel(*pair, alternative="greater").pvalue)
    beyond = np.sign(found.mean) * (pair[0] - pair[1]) - 0.004
    assert found.p == pytest.approx(stats.ttest_1samp(beyond, 0.0).pvalue)


@pytest.mark.parametrize(
    ("second", "finding"),
    [
        ((0.30, 0.31, 0.33), Finding.BETTER),
        ((0.10, 0.11, 0.13), Finding.WORSE),
        ((0.2005, 0.2195, 0.2101), Finding.LEVEL),
        ((0.25, 0.20, 0.22), Finding.UNDECIDED),
        ((0.203, 0.223, 0.213), Finding.LEVEL),  # shown, and too little to matter
        ((0.206, 0.226, 0.216), Finding.BETTER),
        ((0.204, 0.2242, 0.2139), Finding.UNDECIDED),  # on the margin
    ],
)
def test_a_margin_tells_what_matters(second: tuple[float, ...], finding: Finding) -> None:
    assert paired_difference((0.20, 0.22, 0.21), second, 0.004).finding is finding


def test_one_seed_decides_nothing_and_none_is_an_error() -> None:
    assert paired_difference([0.1], [0.9], 0.0).finding is Finding.UNDECIDED
    for first, second in (([], []), ([0.1, 0.2], [0.1]), ([np.nan, 0.1], [0.2, 0.3])):
        with pytest.raises(ValueError, match="do not pair, or are not finite"):
            paired_difference(first, second, 0.0)


def test_equal_numbers_are_level_and_rounding_is_no_difference() -> None:
    assert paired_difference([0.2, 0.2], [0.2, 0.2], 0.0).finding is Finding.LEVEL
    wobble = paired_difference([0.2, 0.3, 0.25], [0.2 + 1e-16, 0.3, 0.25], 1e-6)
    assert wobble.finding is Finding.LEVEL


def test_holm_is_the_step_down_of_its_paper() -> None:
    p_values = [0.01, 0.04, 0.03, 0.005]
    assert holm(p_values) == [True, False, False, True]  # 0.005 ≤ .05/4, 0.01 ≤ .05/3, 0.03 > .05/2
    assert holm([0.05]) == [True]
    assert holm([]) == []


def test_an_arm_wins_only_over_every_other_one() -> None:
    arms = {"good": [0.10, 0.11, 0.12, 0.11], "near": [0.11, 0.12, 0.10, 0.13], "bad": [0.50, 0.52, 0.51, 0.50]}
    found = contest(arms, minimises=True)
    assert found.order == ("good", "near", "bad")
    assert found.winner is None
    assert found.beaten == ["bad"]
    assert contest({name: arms[name] for name in ("good", "bad")}, minimises=True).winner == "good"
    assert contest({name: arms[name] for name in ("good", "bad")}, minimises=False).winner == "bad"
    with pytest.raises(ValueError, match="two arms"):
        contest({"good": arms["good"]}, minimises=True)


SWEEPS = 400
CHANCE = 2.6 * (0.05 * 0.95 / SWEEPS) ** 0.5  # of a share of 5 %, where one in two hundred tests would fail


def test_equal_arms_seldom_get_a_winner_and_level_is_seldom_said_of_unlike_ones() -> None:
    content = simulate(SWEEPS, seeds=(2, 3, 5, 8))
    for row in content["wrong"]:
        for seeds in ("2", "3", "5", "8"):
            assert row[seeds]["winner"] <= 0.05 + CHANCE, row
            assert row[seeds]["any_pair"] <= 0.05 + CHANCE, row
    random = np.random.default_rng(0)
    apart = sweeps([0.2, 0.21], [0.006, 0.006], 5, "normal", SWEEPS, 0.02, random)  # by two and a half margins
    assert np.mean([bool(verdict.level) for verdict in apart]) <= 0.05 + CHANCE


@pytest.mark.parametrize("metric", sorted(HAND_MADE))
def test_the_shipped_sweeps_have_the_seeds_to_find_what_is_there(metric: str) -> None:
    worse, better = HAND_MADE[metric]
    gap, sd = (worse - better) / 2, measured_spread(metric)["arm of reward_ablation.yaml"]
    for arms in (2, 4):
        means = [worse - gap, *[worse] * (arms - 1)]
        found = sweeps(means, [sd] * arms, 8, "normal", SWEEPS, 0.02, np.random.default_rng(1))
        assert np.mean([verdict.winner == "0" for verdict in found]) >= 0.8
