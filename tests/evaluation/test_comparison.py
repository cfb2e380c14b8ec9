"""The comparison on a generator of another kind with planted effects: the power of the controls."""

from __future__ import annotations

import json
from io import StringIO

import numpy as np
import pytest
import torch
from rich.console import Console

from adanat_rl.evaluation.comparison import BASE_SCHEDULE, BASELINE, CONTROL, POLICY, Comparison, compare
from adanat_rl.evaluation.controls import Adaptivity, Control
from adanat_rl.evaluation.drawing import evaluation_set
from adanat_rl.evaluation.evaluator import Evaluator
from adanat_rl.evaluation.judge import FD_A, load_judge
from adanat_rl.evaluation.reference import Baseline
from adanat_rl.evaluation.table import comparison_table, format_value
from adanat_rl.generation.masked.schedules import hand_made_schedule
from adanat_rl.generation.policies.base import ActorPolicy, SchedulePolicy
from tests.fakes import STRENGTH, CostJudge, Effect, PointGenerator, ReadingActor, point_dataset

SEEDS = [11, 12, 13, 14, 15]
MANY = 3000  # images; that a difference is too little to matter needs more than that it is there


def compared(effect: Effect, trait: float, label: float, baselines=(), num_images: int = 200) -> Comparison:
    generator = PointGenerator(effect)
    evaluator = Evaluator(generator, point_dataset().labels, CostJudge(), num_images=num_images, batch_size=64)
    policy = ActorPolicy(ReadingActor(trait, label), generator.decision_space, 32)
    return compare(evaluator, policy, "reading policy", baselines, SEEDS)


def means(comparison: Comparison) -> dict[str, float]:
    return {row.name: row.evaluation.mean(FD_A) for row in comparison.rows}


@pytest.fixture(scope="module")
def per_image() -> Comparison:
    baselines = [
        Baseline("short", "two steps", "made up", np.array([[1.0, 0.5], [1.2, 0.4]])),
        Baseline("per_class", "per class", "made up", np.tile([1.0, 0.5], (4, 3, 1))),
    ]
    return compared("per_image", STRENGTH, 0.0, baselines)


def test_an_effect_that_differs_between_images_is_found(per_image: Comparison) -> None:
    assert per_image.verdict.adaptivity is Adaptivity.PER_IMAGE
    found = means(per_image)
    assert found["policy"] < min(found[control.value] for control in Control) - 0.1


def test_an_effect_of_the_class_alone_is_found_to_be_that() -> None:
    comparison = compared("per_class", 0.3, STRENGTH, num_images=MANY)
    assert comparison.verdict.adaptivity is Adaptivity.PER_CLASS
    found = means(comparison)
    assert found["policy"] < found[Control.SHUFFLED.value] - 0.1
    spread = np.subtract(*(row.evaluation.metrics[FD_A] for row in comparison.rows[:3:2]))
    assert np.abs(spread).max() > 1e-6  # decisions do differ within a class


def test_without_any_effect_nothing_is_found() -> None:
    comparison = compared("none", 0.5, 0.5, num_images=MANY)
    assert comparison.verdict.adaptivity is Adaptivity.NONE
    shuffled = comparison.rows[1].evaluation.metrics[FD_A]
    assert shuffled != comparison.policy.evaluation.metrics[FD_A]  # the shuffle did something


def test_rows_are_policy_controls_base_schedule_and_baselines(per_image: Comparison) -> None:
    kinds = [row.kind for row in per_image.rows]
    assert kinds == [POLICY, *[CONTROL] * 4, BASE_SCHEDULE, *[BASELINE] * 2]
    assert [row.horizon for row in per_image.rows] == [3] * 6 + [2, 3]
    assert len({row.name for row in per_image.rows}) == 8
    assert per_image.policy.title == "reading policy"
    assert all(len(row.evaluation.metrics[FD_A]) == len(SEEDS) for row in per_image.rows)


def test_a_baseline_of_another_horizon_is_drawn_in_its_own_number_of_steps(per_image: Comparison) -> None:
    by_name = {row.name: row.evaluation for row in per_image.rows}
    assert by_name["short"].mean("nat_passes_per_image") == 2
    assert by_name["policy"].mean("nat_passes_per_image") == 3
    base = by_name[BASE_SCHEDULE].metrics[FD_A]
    assert by_name["per_class"].metrics[FD_A] == base  # the same decisions, the same images


def test_the_comparison_is_json_and_keeps_every_seed(per_image: Comparison) -> None:
    content = json.loads(json.dumps(per_image.as_dict()))
    assert content["seeds"] == SEEDS
    assert content["num_images"] == 200
    assert content["verdict"]["adaptivity"] == "per_image"
    policy = content["rows"][0]
    assert policy["values"][FD_A] == per_image.policy.evaluation.metrics[FD_A]
    assert policy["summary"][FD_A]["mean"] == pytest.approx(np.mean(policy["values"][FD_A]))
    assert policy["summary"][FD_A]["sd"] == pytest.approx(np.std(policy["values"][FD_A], ddof=1))


def test_the_decisions_of_the_first_seed_are_kept_with_their_labels(per_image: Comparison) -> None:
    assert per_image.decisions.shape == (200, 3, 2)
    expected = evaluation_set(point_dataset().labels, 200, SEEDS[0]).context
    np.testing.assert_array_equal(per_image.context, expected)
    assert len(np.unique(per_image.decisions[:, 0, 0].round(4))) == 2  # one push per trait


def test_without_controls_there_is_no_verdict() -> None:
    generator = PointGenerator()
    evaluator = Evaluator(generator, point_dataset().labels, CostJudge(), num_images=40, batch_size=64)
    seen = []
    comparison = compare(
        evaluator,
        SchedulePolicy(generator.decision_space.base_schedule),
        "s",
        [],
        [1, 2],
        controls=(),
        report=seen.append,
    )
    assert comparison.verdict is None
    assert comparison.as_dict()["verdict"] is None
    assert seen == list(comparison.rows)
    base = comparison.rows[1].evaluation.metrics
    assert base[FD_A] == comparison.policy.evaluation.metrics[FD_A]


def test_controls_need_no_features_and_spend_no_more_passes(digits, digits_generator) -> None:
    evaluator = Evaluator(digits_generator, digits.labels, load_judge(digits), num_images=40, batch_size=40)
    policy = SchedulePolicy(torch.from_numpy(hand_made_schedule(4)).float())
    comparison = compare(evaluator, policy, "schedule", [], [1, 2])
    first = comparison.policy.evaluation.metrics
    for row in comparison.rows[1:5]:  # the same decisions for everybody: dealing changes nothing
        assert row.evaluation.metrics[FD_A] == pytest.approx(first[FD_A], rel=1e-4)
    assert comparison.verdict.adaptivity is Adaptivity.NONE


def test_the_table_shows_every_row_with_mean_and_sd(digits, digits_generator) -> None:
    evaluator = Evaluator(digits_generator, digits.labels, load_judge(digits), num_images=30, batch_size=30)
    policy = SchedulePolicy(torch.from_numpy(hand_made_schedule(4)).float())
    content = compare(evaluator, policy, "my schedule", [], [1, 2], controls=()).as_dict()
    out = StringIO()
    Console(file=out, width=200).print(comparison_table(content))
    line = next(line for line in out.getvalue().splitlines() if "my schedule" in line)
    summary = content["rows"][0]["summary"][FD_A]
    assert f"{summary['mean']:.3f} ± {summary['sd']:.3f}" in line
    assert "30 images × 2 seeds" in out.getvalue()
    assert "no FID" in out.getvalue()


@pytest.mark.parametrize(
    ("mean", "sd", "digits", "text"),
    [(0.21954, 0.0131, 3, "0.220 ± 0.013"), (6.0, 0.0, 1, "6.0"), (1234.5, 99.0, 0, "1234")],
)
def test_values_are_shown_as_mean_and_sd(mean: float, sd: float, digits: int, text: str) -> None:
    assert format_value({"mean": mean, "sd": sd}, digits) == text
