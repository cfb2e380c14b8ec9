"""Reward hacking is seen where it was planted, and neither in good runs nor in noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from adanat_rl.evaluation.hacking import find_hacking, hacking_row, rewards_between
from adanat_rl.evaluation.inception_judge import INCEPTION_NAMES

Rows = list[dict[str, Any]]


def make_rows(rewards: np.ndarray, judges: Mapping[str, np.ndarray], interval: int = 10) -> Rows:
    """Rows from iteration 0 on; rewards `[N]` of iterations 1 to N, judges `[1 + N // interval]` each."""
    rows: Rows = []
    for iteration in range(len(rewards) + 1):
        row: dict[str, Any] = {"iteration": iteration}
        if iteration:
            row["reward/mean"] = float(rewards[iteration - 1])
        if iteration % interval == 0:
            row |= {f"eval/{name}": float(values[iteration // interval]) for name, values in judges.items()}
        rows.append(row)
    return rows


def planted(
    seed: int = 0,
    *,
    rise: float = 0.3,
    recall: tuple[float, ...] = (0.87, 0.87, 0.87, 0.87, 0.80, 0.68, 0.55, 0.45, 0.44),
) -> Rows:
    """A reward that rises all the time under noise, FD as good as constant, and the given recall."""
    generator = np.random.default_rng(seed)
    count = 10 * (len(recall) - 1)
    rewards = 0.5 + rise * np.arange(count) / count + generator.normal(0, 0.02, count)
    distance = 0.2 + generator.normal(0, 0.002, len(recall))
    return make_rows(rewards, {"fd_a": distance, "fd_b": distance, "recall": np.array(recall)})


def smooth_noise(generator: np.random.Generator, count: int, memory: float, sd: float) -> np.ndarray:
    """A walk `[count]` that is drawn back to zero; memory 0 is white noise."""
    walk = np.zeros(count)
    for index, step in enumerate(generator.normal(0, sd * np.sqrt(1 - memory**2), count)):
        walk[index] = (memory * walk[index - 1] if index else 0.0) + step
    return walk


@pytest.mark.parametrize("seed", range(20))
def test_a_rising_reward_with_falling_recall_is_seen(seed: int) -> None:
    found = find_hacking(planted(seed), window=4, tolerance=0.1)
    assert found is not None
    assert found.iteration == 50  # 0.87 0.87 0.80 0.68
    assert [change.metric for change in found.judges] == ["recall"]


def test_what_was_seen_has_its_numbers() -> None:
    rows = planted()
    found = find_hacking(rows, window=4, tolerance=0.1)
    assert found is not None
    assert (found.since, found.num_evaluations) == (20, 4)
    mean = {row["iteration"]: row.get("reward/mean", 0.0) for row in rows}
    assert found.reward_before == pytest.approx(np.mean([mean[at] for at in range(21, 31)]))
    assert found.reward_after == pytest.approx(np.mean([mean[at] for at in range(41, 51)]))
    change = found.judges[0]
    assert (change.before, change.after) == (0.87, 0.68)
    assert change.relative == pytest.approx(0.68 / 0.87 - 1)
    assert found.sentence == (
        "Reward hacking, seen at iteration 50: over 4 evaluations (iterations 20 to 50) the reward rose from "
        f"{found.reward_before:.3f} to {found.reward_after:.3f} while recall fell from 0.870 to 0.680 (−22%)."
    )


def test_later_rows_do_not_change_when_it_was_seen_first() -> None:
    rows = planted()
    assert find_hacking(rows[:50], 4, 0.1) is None
    assert find_hacking(rows[:51], 4, 0.1) == find_hacking(rows, 4, 0.1)


def test_a_rising_distance_counts_for_either_extractor_and_is_called_as_the_judge_calls_it() -> None:
    rewards = np.linspace(0.2, 0.8, 40)
    flat, rising = np.full(5, 0.2), np.array([0.2, 0.2, 0.23, 0.26, 0.29])
    for judges, metric in (({"fd_a": rising, "fd_b": flat}, "fd_a"), ({"fd_a": flat, "fd_b": rising}, "fd_b")):
        found = find_hacking(make_rows(rewards, judges), 4, 0.1)
        assert found is not None
        assert [change.metric for change in found.judges] == [metric]
    found = find_hacking(make_rows(rewards, {"fd_a": rising}), 4, 0.1)
    assert found is not None
    assert "FID rose from 0.200 to 0.260 (+30%)" in found.describe(INCEPTION_NAMES)


@pytest.mark.parametrize("recall", [(0.87, 0.87, 0.4, 0.4), (0.87, 0.5, 0.42, 0.4), (0.87, 0.75, 0.65, 0.55)])
def test_a_collapse_within_the_first_window_is_seen(recall: tuple[float, ...]) -> None:
    found = find_hacking(planted(recall=recall), 4, 0.1)
    assert found is not None
    assert (found.since, found.iteration) == (0, 30)


@pytest.mark.parametrize(("window", "expected"), [(2, 40), (3, 40), (6, 50)])
def test_the_window_says_how_many_evaluations_are_looked_at(window: int, expected: int) -> None:
    recall = (0.87, 0.87, 0.87, 0.87, 0.75, 0.62, 0.5, 0.4, 0.4)
    found = find_hacking(planted(recall=recall, rise=1.0), window, 0.1)
    assert found is not None
    assert (found.iteration, found.since) == (expected, expected - 10 * (window - 1))
    assert found.reward_before < found.reward_after


def test_more_is_tolerated_with_a_higher_tolerance() -> None:
    recall = (0.9, 0.87, 0.84, 0.81, 0.78)
    assert find_hacking(planted(recall=recall), 4, 0.05) is not None
    assert find_hacking(planted(recall=recall), 4, 0.15) is None


def test_a_collapse_without_a_rising_reward_is_no_hacking() -> None:
    for rise in (0.0, -0.3):
        assert find_hacking(planted(rise=rise), 4, 0.1) is None


def test_a_run_without_an_evaluation_has_no_rewards_between_them() -> None:
    """As a trial whose rows a full disk has swallowed."""
    for rows in ([], [{"iteration": 1, "reward/mean": 0.5}]):
        iterations, rewards = rewards_between(rows)
        assert (len(iterations), len(rewards)) == (0, 0)


def test_a_good_run_is_none() -> None:
    generator = np.random.default_rng(0)
    rewards = 0.3 + 0.3 * np.arange(200) / 200 + generator.normal(0, 0.03, 200)
    distance = 0.15 + 0.1 * np.exp(-np.arange(21) / 5) + generator.normal(0, 0.003, 21)
    rows = make_rows(rewards, {"fd_a": distance, "fd_b": 0.9 * distance, "recall": np.full(21, 0.87)})
    assert find_hacking(rows, 4, 0.1) is None


@pytest.mark.parametrize(
    ("memory", "judge_memory", "judge_sd", "share"),
    [(0.0, 0.0, 0.05, 0.02), (0.9, 0.5, 0.03, 0.03), (0.99, 0.9, 0.03, 0.03)],
)
def test_noise_about_a_constant_is_none(memory: float, judge_memory: float, judge_sd: float, share: float) -> None:
    fired = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        rewards = 0.4 + smooth_noise(generator, 400, memory, 0.05)
        distances = {name: 0.2 * (1 + smooth_noise(generator, 21, judge_memory, judge_sd)) for name in ("fd_a", "fd_b")}
        recall = 0.87 + smooth_noise(generator, 21, judge_memory, 0.015)
        fired += find_hacking(make_rows(rewards, distances | {"recall": recall}, 20), 4, 0.1) is not None
    assert fired <= share * 200


def test_little_steps_at_random_are_none() -> None:
    fired = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        rewards = 0.4 + generator.normal(0, 0.01, 400).cumsum()
        judges = {name: 0.2 * np.exp(generator.normal(0, 0.02, 21).cumsum()) for name in ("fd_a", "fd_b")}
        fired += find_hacking(make_rows(rewards, judges, 20), 4, 0.1) is not None
    assert fired <= 6


def test_nothing_is_said_with_too_little() -> None:
    rows = planted()
    assert find_hacking([], 4, 0.1) is None
    assert find_hacking(rows, 0, 0.1) is None
    assert find_hacking(rows, 1, 0.1) is None
    assert find_hacking(rows, 20, 0.1) is None
    assert find_hacking([row for row in rows if row["iteration"] % 10 == 0], 2, 0.1) is None  # one reward a window


def test_missing_and_non_finite_numbers_are_passed_over() -> None:
    rows = planted()
    for row in rows:
        row.pop("eval/fd_b", None)
    rows[47]["reward/mean"] = float("nan")
    found = find_hacking(rows, 4, 0.1)
    assert found is not None
    assert found.iteration == 50


def test_the_row_has_numbers_only() -> None:
    found = find_hacking(planted(), 4, 0.1)
    assert hacking_row(found) == {"hacking/detected": 1.0, "hacking/iteration": 50.0}
    assert hacking_row(None) == {"hacking/detected": 0.0}


def test_rewards_are_means_since_the_evaluation_before() -> None:
    rewards = np.arange(1.0, 31.0)
    at, means = rewards_between(make_rows(rewards, {"fd_a": np.ones(4)}))
    assert at.tolist() == [0, 10, 20, 30]
    assert np.isnan(means[0])
    assert means[1:].tolist() == [5.5, 15.5, 25.5]
