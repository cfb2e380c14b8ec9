"""What was learned, in plain sentences with numbers and their spread; nothing is claimed that the seeds cannot show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adanat_rl.config.metric_keys import EVAL, ITERATION, NAT_PASSES_TOTAL, TRAIN_SECONDS_TOTAL, TRAJECTORIES_TOTAL
from adanat_rl.evaluation.comparison import BASE_SCHEDULE, BASELINE
from adanat_rl.evaluation.controls import SIGNIFICANCE
from adanat_rl.evaluation.evaluator import NAT_PASSES
from adanat_rl.evaluation.judge import FD_A, FD_B, JudgeNames
from adanat_rl.plots.numbers import duration, fixed, plural, trimmed, with_spread
from adanat_rl.plots.run_data import RunData

Line = Mapping[str, Any]  # a row of a comparison


@dataclass(frozen=True)
class Difference:
    """How two rows differ in a distance, paired by evaluation seed.

    Args:
        mean, sd: of (first - second); negative means that the first is better. p: two-sided, None without a test.
    """

    mean: float
    sd: float
    p: float | None

    @property
    def is_shown(self) -> bool:
        """Whether the seeds show a difference at all."""
        return self.p is not None and self.p < SIGNIFICANCE


def compare_rows(first: Line, second: Line, metric: str = FD_A) -> Difference:
    """Two rows, paired by seed."""
    from scipy import stats

    difference = np.array(first["values"][metric], float) - np.array(second["values"][metric], float)
    if len(difference) < 2:
        return Difference(float(difference.mean()), 0.0, None)
    if np.allclose(difference, difference[0]):  # no spread, no t-test
        return Difference(float(difference[0]), 0.0, 1.0 if np.isclose(difference[0], 0) else 0.0)
    p = float(stats.ttest_1samp(difference, 0.0).pvalue)
    return Difference(float(difference.mean()), float(difference.std(ddof=1)), p)


def best_baseline(comparison: Mapping[str, Any], num_passes: float | None = None) -> Line | None:
    """The baseline with the least distance by extractor A.

    Args:
        num_passes: only those that need at most so many NAT passes per image.
    """
    rows = [row for row in comparison["rows"] if row["kind"] == BASELINE]
    if num_passes is not None:
        rows = [row for row in rows if row["summary"][NAT_PASSES]["mean"] <= num_passes + 0.05]
    return min(rows, key=lambda row: float(row["summary"][FD_A]["mean"]), default=None)


def base_row(comparison: Mapping[str, Any]) -> Line | None:
    """The row of the base schedule."""
    return next((row for row in comparison["rows"] if row["kind"] == BASE_SCHEDULE), None)


def headline(run: RunData) -> str:
    """The one sentence."""
    if run.comparison is not None:
        return _compared(run.comparison, run.judge_names)
    total = run.config.training.num_iterations
    if not run.evaluations:
        return "Nothing has been evaluated yet: the run has only begun."
    first, last = run.evaluations[0], run.evaluations[-1]
    before = fixed(first[EVAL + FD_A])
    if last[ITERATION] == first[ITERATION]:
        return (
            f"Nothing is learned yet: the untrained policy stands at {run.judge_names.fd_a} {before} "
            f"on one evaluation seed, with {total:,} iterations to come."
        )
    now = f"{fixed(last[EVAL + FD_A])} (iteration {last[ITERATION]:,})"
    return (
        f"After {run.iteration:,} of {total:,} iterations the policy's {run.judge_names.fd_a} went from {before} "
        f"untrained to {now}, on one evaluation seed; spread and baselines come with the comparison at the end."
    )


def details(run: RunData) -> list[str]:
    """What stands behind the sentence: baselines of equal cost, the second judge, the start, the effort."""
    sentences = []
    if run.comparison is not None:
        policy = run.comparison["rows"][0]
        sentences += _about_equal_cost(run.comparison, policy) + _about_second_judge(
            run.comparison, policy, run.judge_names
        )
        sentences += _about_start(run)
    elif run.total(NAT_PASSES_TOTAL):
        sentences.append(f"So far training took {_effort(run)}.")
    return sentences


def adaptivity(run: RunData) -> str:
    """Whether the policy is adaptive, as the controls say, or why they were not asked."""
    kind = run.config.policy.kind
    if run.comparison is None:
        return "Whether the policy is adaptive is tested at the end of the run."
    if run.comparison["verdict"] is not None:
        return str(run.comparison["verdict"]["sentence"])
    if kind == "static":
        return "A static policy makes the same decisions for every image; there is no adaptivity to test."
    if kind == "per_class":
        return (
            "A per-class policy makes the same decisions for every image of a class; it is adaptive per class at most."
        )
    return "The shuffle controls were not run, or with one seed only, so whether the policy is adaptive is not known."


def _compared(comparison: Mapping[str, Any], names: JudgeNames) -> str:
    policy = comparison["rows"][0]
    passes = trimmed(policy["summary"][NAT_PASSES]["mean"])
    result = (
        f"In {plural(policy['horizon'], 'step')} and {passes} NAT passes per image the learned policy reaches "
        f"{names.fd_a.partition(' ')[0]} {with_spread(policy['summary'][FD_A])} ({names.features_a})"
    )
    other = best_baseline(comparison)
    if other is not None:
        count = sum(row["kind"] == BASELINE for row in comparison["rows"])
        rival = f"the best of {count} baselines" if count > 1 else "the baseline"
        cost = f" in {plural(other['horizon'], 'step')} and {trimmed(other['summary'][NAT_PASSES]['mean'])} passes"
        rival += f" ({other['title']}: {with_spread(other['summary'][FD_A])}{cost})"
    else:
        other = base_row(comparison)
        if other is None:
            return f"{result}; there is nothing to compare it with."
        rival = f"the base schedule it started from ({with_spread(other['summary'][FD_A])})"
    return f"{result}, {_relation(compare_rows(policy, other), len(comparison['seeds']), rival)}."


def _relation(difference: Difference, num_seeds: int, rival: str) -> str:
    amount = f"{fixed(abs(difference.mean))} ± {fixed(difference.sd)}"
    word = "better" if difference.mean < 0 else "worse"
    if difference.is_shown:
        return f"{word} than {rival} by {amount}"
    if difference.p is None:
        return (
            f"{word} than {rival} by {fixed(abs(difference.mean))}, which one seed cannot show to be more than chance"
        )
    if difference.mean == 0:
        return f"the same as {rival}"
    shown = f"{amount} {word}, p = {difference.p:.2g}"
    return f"no better and no worse, as far as {num_seeds} seeds can show, than {rival}: {shown}"


def _about_start(run: RunData) -> list[str]:
    sentences = []
    base = base_row(run.comparison) if run.comparison else None
    if base is not None:
        sentences.append(f"Before training, the base schedule stood at {with_spread(base['summary'][FD_A])}.")
    if run.total(NAT_PASSES_TOTAL):
        sentences.append(f"Training took {_effort(run)}.")
    return sentences


def _about_equal_cost(comparison: Mapping[str, Any], policy: Line) -> list[str]:
    """The best baseline that costs no more, where it is not the best of all."""
    cost = policy["summary"][NAT_PASSES]["mean"]
    equal = best_baseline(comparison, cost)
    if equal is None or equal is best_baseline(comparison):
        return []
    numbers = f"{equal['title']}: {with_spread(equal['summary'][FD_A])}"
    rival = f"the best baseline with at most {trimmed(cost)} passes ({numbers})"
    return [f"The policy is {_relation(compare_rows(policy, equal), len(comparison['seeds']), rival)}."]


def _about_second_judge(comparison: Mapping[str, Any], policy: Line, names: JudgeNames) -> list[str]:
    other = best_baseline(comparison) or base_row(comparison)
    if other is None or FD_B not in policy["summary"]:
        return []
    difference = compare_rows(policy, other, FD_B)
    word = "better" if difference.mean < 0 else "worse"
    shown = "" if difference.is_shown else ", a difference that the seeds cannot show to be more than chance"
    ours, theirs = with_spread(policy["summary"][FD_B]), with_spread(other["summary"][FD_B])
    return [
        f"The independent {names.second} puts the policy at {ours} and {other['title']} at {theirs}: {word}{shown}."
    ]


def _effort(run: RunData) -> str:
    parts = [f"{run.total(NAT_PASSES_TOTAL):,.0f} NAT passes for {run.total(TRAJECTORIES_TOTAL):,.0f} images"]
    if run.total(TRAIN_SECONDS_TOTAL):
        parts.append(duration(run.total(TRAIN_SECONDS_TOTAL)))
    return ", ".join(parts)


def seeds_note(comparison: Mapping[str, Any]) -> str:
    """How many images and seeds stand behind the numbers."""
    seeds: Sequence[int] = comparison["seeds"]
    listed = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 2 else " and ".join(map(str, seeds))
    return f"{comparison['num_images']:,} images for each of {plural(len(seeds), 'evaluation seed')} ({listed})"
