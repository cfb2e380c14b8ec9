"""The comparison that ends a run: the policy, its controls and the baselines, on the same contexts and seeds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from adanat_rl.evaluation.controls import Control, Verdict, deal, judge_adaptivity
from adanat_rl.evaluation.drawing import evaluation_set
from adanat_rl.evaluation.evaluator import Evaluation, Evaluator
from adanat_rl.evaluation.judge import FD_A, JudgeNames
from adanat_rl.evaluation.panel.contract import Value
from adanat_rl.evaluation.panel.verdict import PanelVerdict, panel_verdict
from adanat_rl.evaluation.reference import Baseline
from adanat_rl.generation.policies.base import GenerationPolicy, SchedulePolicy

POLICY = "policy"
CONTROL = "control"
BASELINE = "baseline"
BASE_SCHEDULE = "base_schedule"

CONTROL_TITLES = {
    Control.SHUFFLED: "its decisions, given to other images",
    Control.SHUFFLED_WITHIN_CLASS: "its decisions, given to others of the class",
    Control.MEAN: "their mean, as a schedule",
    Control.CLASS_MEAN: "their mean per class",
}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: unique. title: for people. kind: policy, control, baseline or base_schedule.
        horizon: T. how: how it was found, for baselines. evaluation: its numbers.
    """

    name: str
    title: str
    kind: str
    horizon: int
    how: str
    evaluation: Evaluation


@dataclass(frozen=True)
class Comparison:
    """The table and what it says.

    Args:
        rows: the policy first.
        judge: what the distances are called.
        values: that verdicts count. verdicts: what they say of the policy against where it started and each baseline,
            by the row's name.
        verdict: adaptivity of the policy, None for a policy that was not tested.
        seeds: evaluation seeds. num_images: of each seed.
        decisions: `[N, T, K]` of the policy on the first seed. context: `[N]` their labels. num_passes: `[N]` int64.
    """

    rows: tuple[Row, ...]
    judge: JudgeNames
    values: tuple[Value, ...]
    verdicts: Mapping[str, PanelVerdict]
    verdict: Verdict | None
    seeds: tuple[int, ...]
    num_images: int
    decisions: np.ndarray
    context: np.ndarray
    num_passes: np.ndarray

    @property
    def policy(self) -> Row:
        """The row of the policy."""
        return self.rows[0]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; single values of each seed and of parts of its images included, decisions left out."""
        rows = [
            {
                "name": row.name,
                "title": row.title,
                "kind": row.kind,
                "horizon": row.horizon,
                "how": row.how,
                "summary": row.evaluation.summary(),
                "values": row.evaluation.metrics,
                "replicates": row.evaluation.replicates,
            }
            for row in self.rows
        ]
        verdict = asdict(self.verdict) if self.verdict is not None else None
        return {
            "rows": rows,
            "judge": asdict(self.judge),
            "panel": self._panel() if self.values else None,
            "verdict": verdict,
            "seeds": list(self.seeds),
            "num_images": self.num_images,
        }

    def _panel(self) -> dict[str, Any]:
        against = {
            name: {
                "sentence": verdict.sentence,
                "findings": {row.value.key: row.finding.value for row in verdict.rows},
                "not_counted": [row.value.key for row in verdict.rows if not row.is_counted],
            }
            for name, verdict in self.verdicts.items()
        }
        return {"values": [asdict(value) for value in self.values], "against": against}


def compare(
    evaluator: Evaluator,
    policy: GenerationPolicy,
    title: str,
    baselines: Sequence[Baseline],
    seeds: Sequence[int],
    *,
    controls: Sequence[Control] = tuple(Control),
    rewarded: Collection[str] = (),
    report: Callable[[Row], None] | None = None,
) -> Comparison:
    """Evaluates everything.

    Args:
        evaluator: with the generator of the policy's horizon.
        title: of the policy, for the table.
        seeds: paired over all rows, so that differences are those of the decisions.
        controls: which to run; a policy that knows its decisions beforehand needs none.
        rewarded: numbers that the policy was paid in; no verdict counts them.
        report: told about each finished row.
    """
    rows: list[Row] = []

    def add(name: str, label: str, kind: str, horizon: int, how: str, evaluation: Evaluation) -> None:
        rows.append(Row(name, label, kind, horizon, how, evaluation))
        if report is not None:
            report(rows[-1])

    horizon = evaluator.generator.horizon
    evaluation, decisions, passes = _evaluate_keeping_decisions(evaluator, policy, seeds)
    add("policy", title, POLICY, horizon, "this policy", evaluation)
    for control in controls:
        result = _evaluate_control(evaluator, control, decisions, seeds)
        add(control.value, CONTROL_TITLES[control], CONTROL, horizon, "", result)
    base = SchedulePolicy(evaluator.generator.decision_space.base_schedule)
    add(BASE_SCHEDULE, "base schedule, before training", BASE_SCHEDULE, horizon, "", evaluator.evaluate(base, seeds))
    for baseline in baselines:
        result = for_horizon(evaluator, baseline).evaluate(baseline.policy, seeds)
        add(baseline.name, baseline.title, BASELINE, baseline.horizon, baseline.how, result)
    first = evaluation_set(evaluator.labels, evaluator.num_images, seeds[0])
    return Comparison(
        tuple(rows),
        evaluator.judge.names,
        evaluator.judge.values,
        _verdicts(rows, evaluator.judge.values, rewarded),
        _verdict(rows),
        tuple(seeds),
        evaluator.num_images,
        decisions[0].cpu().numpy(),
        first.context.numpy(),
        passes,
    )


def _evaluate_keeping_decisions(
    evaluator: Evaluator, policy: GenerationPolicy, seeds: Sequence[int]
) -> tuple[Evaluation, list[torch.Tensor], np.ndarray]:
    """The numbers, the decisions of each seed, and the NAT passes of the first one's images."""
    judged = [evaluator.judge_once(policy, seed) for seed in seeds]
    passes = judged[0].drawing.num_passes.cpu().numpy()
    return Evaluation.of(judged), [one.drawing.decisions for one in judged], passes


def _evaluate_control(
    evaluator: Evaluator, control: Control, decisions: Sequence[torch.Tensor], seeds: Sequence[int]
) -> Evaluation:
    judged = []
    for seed, made in zip(seeds, decisions, strict=True):
        context = evaluation_set(evaluator.labels, evaluator.num_images, seed).context
        dealt = deal(control, made, context.to(made.device), seed)
        judged.append(evaluator.judge_once(dealt, seed, replicated=False))
    return Evaluation.of(judged)


def for_horizon(evaluator: Evaluator, baseline: Baseline) -> Evaluator:
    """The same evaluation with a generator of the baseline's number of steps."""
    if baseline.horizon == evaluator.generator.horizon:
        return evaluator
    schedule = baseline.decisions if baseline.decisions.ndim == 2 else baseline.decisions.mean(axis=0)
    return evaluator.with_generator(evaluator.generator.with_base_schedule(schedule))


def panel_sentences(comparison: Mapping[str, Any]) -> list[str]:
    """What the panel says of the policy against each other row of `Comparison.as_dict()`, a sentence each."""
    panel = comparison.get("panel")
    if panel is None:
        return []
    titles = {row["name"]: row["title"] for row in comparison["rows"]}
    return [f"Against {titles[name]}: {found['sentence']}." for name, found in panel["against"].items()]


def _verdicts(rows: Sequence[Row], values: Sequence[Value], rewarded: Collection[str]) -> dict[str, PanelVerdict]:
    """Of the policy against where it started and every baseline, over the evaluation seeds."""
    rivals = [row for row in rows if row.kind in {BASE_SCHEDULE, BASELINE}]
    return {row.name: panel_verdict(values, _numbers(rows[0]), _numbers(row), rewarded) for row in rivals if values}


def _numbers(row: Row) -> dict[str, list[float]]:
    """What a verdict goes by: parts of the images where the judge has them, seeds otherwise."""
    return {**row.evaluation.metrics, **row.evaluation.replicates}


def _verdict(rows: Sequence[Row]) -> Verdict | None:
    by_name = {row.name: row.evaluation.metrics[FD_A] for row in rows}
    over_all = by_name.get(Control.SHUFFLED)
    if over_all is None or len(by_name["policy"]) < 2:
        return None
    return judge_adaptivity(by_name["policy"], by_name.get(Control.SHUFFLED_WITHIN_CLASS), over_all)
