"""Which figures a run has: from its data to named charts, group by group."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adanat_rl.config.metric_keys import (
    ACTION_STD,
    APPROX_KL,
    CLIP_FRACTION,
    EVAL,
    EXPLAINED_VARIANCE,
    GRADIENT_NORM,
    ITERATION_SECONDS,
    LEARNER,
    LEASH,
    NAT_PASSES_TOTAL,
    REWARD_MEAN,
    REWARD_MODEL,
    REWARD_STD,
    TIME,
    TRAIN_SECONDS_TOTAL,
    VALUE_LOSS,
)
from adanat_rl.evaluation.comparison import BASELINE
from adanat_rl.evaluation.judge import FD_A, FD_B
from adanat_rl.plots.curves import Curve, Level, curve_figure
from adanat_rl.plots.decisions import (
    DecisionSummary,
    class_figure,
    classes_figure,
    readable,
    steps_figure,
    summary_figure,
)
from adanat_rl.plots.headline import best_baseline
from adanat_rl.plots.judges import JUDGES_FIGURE, hacking_of, judges_alt, judges_figure
from adanat_rl.plots.numbers import compact, fixed, time_unit
from adanat_rl.plots.passes import PASSES_FIGURE, passes_alt, passes_figure
from adanat_rl.plots.probe import GAINS_FIGURE, PARTS_FIGURE, gains_figure, parts_figure
from adanat_rl.plots.ranking import ranking_figure, short_name
from adanat_rl.plots.run_data import Row, RunData
from adanat_rl.plots.theme import SMALL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SCORE = "_score"  # ends the names of scores that are drawn together
_DIAGNOSTICS = (
    (LEARNER + APPROX_KL, "Approximate KL"),
    (LEARNER + CLIP_FRACTION, "Clip fraction"),
    (LEARNER + EXPLAINED_VARIANCE, "Explained variance"),
    (LEARNER + ACTION_STD, "Action noise, std"),
    (LEARNER + VALUE_LOSS, "Value loss"),
    (LEARNER + LEASH, "Leash"),
    (LEARNER + GRADIENT_NORM, "Gradient norm"),
    (ITERATION_SECONDS, "Seconds per iteration"),
)


@dataclass(frozen=True)
class Chart:
    """A figure with its name (of the file, and on the page) and what is to be seen, in words."""

    name: str
    figure: Figure
    alt: str


@dataclass(frozen=True)
class DecisionCharts:
    """One decision on the page: over the steps, per class if images differ, and what its spread comes from."""

    title: str
    steps: Chart
    classes: Chart | None
    note: str


@dataclass(frozen=True)
class Charts:
    """All charts of a run; empty groups for what it does not have yet.

    Args:
        learning: distance over training. ranking: the comparison, and passes where they differ.
        reward: reward and reward model.
        diagnostics: small ones of the learner. decisions: one by one, for the page; together: the same for the files.
        probe: of the adaptivity probe. judges: reward against judges.
    """

    learning: tuple[Chart, ...]
    ranking: tuple[Chart, ...]
    reward: tuple[Chart, ...]
    diagnostics: tuple[Chart, ...]
    decisions: tuple[DecisionCharts, ...]
    together: tuple[Chart, ...]
    probe: tuple[Chart, ...]
    judges: tuple[Chart, ...]

    @property
    def files(self) -> list[Chart]:
        """Those that are written as PNG."""
        charts = (self.learning, self.ranking, self.together, self.probe, self.judges, self.reward, self.diagnostics)
        return [chart for group in charts for chart in group]


def draw_charts(run: RunData) -> Charts:
    """Everything that there is data for."""
    decisions = run.decisions
    return Charts(
        learning=tuple(_learning(run)),
        ranking=tuple(_ranking(run)),
        reward=tuple(_reward(run)),
        diagnostics=tuple(_diagnostics(run)),
        decisions=tuple(_decision(decisions, column) for column in range(len(decisions.names))) if decisions else (),
        together=tuple(_together(decisions)) if decisions else (),
        probe=tuple(_probe(run.probe)) if run.probe is not None and run.probe["sites"] else (),
        judges=tuple(_judges(run)),
    )


def baseline_levels(run: RunData, metric: str) -> list[Level]:
    """Baselines as measured in the comparison, or before that as published with the reference file."""
    if run.comparison is not None:
        best = best_baseline(run.comparison)
        rows = [row for row in run.comparison["rows"] if row["kind"] == BASELINE and metric in row["summary"]]
        return [_level(row["name"], row["summary"][metric], row is best) for row in rows]
    baselines = run.references.baselines if run.references else ()
    known = [baseline for baseline in baselines if {metric, FD_A} <= baseline.numbers.keys()]
    first = min(known, key=lambda baseline: baseline.numbers[FD_A]["mean"], default=None)
    return [_level(baseline.name, baseline.numbers[metric], baseline is first) for baseline in known]


def _level(name: str, value: Mapping[str, float], strong: bool) -> Level:
    return Level(short_name(name), value["mean"], value.get("sd", 0.0), strong)


def _learning(run: RunData) -> list[Chart]:
    if not run.evaluations:
        return []
    unit, length = time_unit(run.total(TRAIN_SECONDS_TOTAL))
    charts = []
    for metric, title in _distances(run, {key.removeprefix(EVAL) for row in run.evaluations for key in row}):
        # A judge may have come, or gone, between two starts of a run
        rows = [row for row in run.evaluations if EVAL + metric in row]
        passes = np.array([row.get(NAT_PASSES_TOTAL, 0.0) for row in rows], float)
        times = np.array([row.get(TRAIN_SECONDS_TOTAL, 0.0) for row in rows], float) / length
        y = np.array([row[EVAL + metric] for row in rows], float)
        end = _final(run, metric)
        levels = baseline_levels(run, metric)
        alt = f"{title} from {fixed(y[0])} to {fixed(y[-1])}"
        for name, x, x_label in (
            ("nat_passes", passes, "NAT passes spent in training"),
            ("time", times, f"training time in {unit}, evaluations left out"),
        ):
            figure = curve_figure(title, x_label, [Curve("this policy", x, y, end=end)], levels, x_format=compact)
            charts.append(Chart(f"{metric}_over_{name}", figure, f"{alt}, over {x_label}"))
    return charts


def _distances(run: RunData, known: Collection[str]) -> list[tuple[str, str]]:
    """Keys and titles of the distances that were measured."""
    titles = ((FD_A, run.judge_names.fd_a), (FD_B, run.judge_names.fd_b))
    return [(key, title) for key, title in titles if key in known]


def _final(run: RunData, metric: str) -> tuple[float, float] | None:
    """Mean and sd of the comparison, if it is of the policy at the end of the curve."""
    if run.comparison is None or run.is_outdated or run.is_of_best:
        return None
    value = run.comparison["rows"][0]["summary"].get(metric)
    return None if value is None else (value["mean"], value["sd"])


def _ranking(run: RunData) -> list[Chart]:
    if run.comparison is None:
        return []
    rows = run.comparison["rows"]
    titles = _distances(run, rows[0]["summary"])
    charts = [
        Chart(
            f"comparison_{metric}", ranking_figure(rows, metric, title), f"{title} of all {len(rows)} rows of the table"
        )
        for metric, title in titles
    ]
    if run.passes is not None and run.passes.min() < run.passes.max():
        charts.append(Chart(PASSES_FIGURE, passes_figure(run.passes), passes_alt(run.passes)))
    return charts


def _decision(summary: DecisionSummary, column: int) -> DecisionCharts:
    name = summary.names[column]
    title = readable(name)
    figure = steps_figure(summary, column, "Over all images" if summary.class_means is not None else title)
    steps = Chart(f"decisions_{name}", figure, f"{title} over the steps, against the base schedule")
    classes = None
    if summary.class_means is not None and summary.varies(column):
        figure = class_figure(summary, column, "Mean of each class")
        classes = Chart(f"decisions_per_class_{name}", figure, f"{title} per class and step")
    return DecisionCharts(title, steps, classes, _origin_of_spread(summary, column))


def _origin_of_spread(summary: DecisionSummary, column: int) -> str:
    if summary.between is None or np.isnan(summary.between[column]):
        return ""
    percent = round(100 * float(summary.between[column]))
    if percent in {0, 100}:
        return f"{'all' if percent else 'none'} of its variance lies between classes"
    return f"{percent} % of its variance lies between classes, the rest between images of a class"


def _together(summary: DecisionSummary) -> list[Chart]:
    charts = [Chart("decisions", summary_figure(summary, "Decisions over the steps"), "all decisions over the steps")]
    if summary.class_means is not None and any(summary.varies(column) for column in range(len(summary.names))):
        figure = classes_figure(summary, "Decisions, mean of each class")
        charts.append(Chart("decisions_per_class", figure, "all decisions per class"))
    return charts


def _probe(probe: Mapping[str, Any]) -> list[Chart]:
    return [
        Chart(PARTS_FIGURE, parts_figure(probe), "mean, class, image and noise part of the effect of each decision"),
        Chart(GAINS_FIGURE, gains_figure(probe), "gain by each decision for all images, per class and per image"),
    ]


def _judges(run: RunData) -> list[Chart]:
    if len(run.evaluations) < 2:
        return []
    found = hacking_of(run)
    return [Chart(JUDGES_FIGURE, judges_figure(run, found), judges_alt(run, found))]


def _reward(run: RunData) -> list[Chart]:
    charts = []
    x, mean = run.series(REWARD_MEAN)
    _, std = run.series(REWARD_STD)
    if len(x):
        curve = Curve("", x, mean, sd=std if len(std) == len(x) else None)
        figure = curve_figure("Reward, mean ± sd over a batch", "iteration", [curve])
        charts.append(Chart("reward", figure, f"reward from {fixed(mean[0])} to {fixed(mean[-1])}"))
    names = _reward_model_metrics(run.rows)
    scores = [name for name in names if name.endswith(_SCORE)]
    if scores:
        curves = []
        for name in sorted(scores, key=lambda name: "real" in name):
            x, y = run.series(REWARD_MODEL + name)
            curves.append(Curve(name.removesuffix(_SCORE).replace("_", " "), x, y, against="real" in name))
        figure = curve_figure("Mean score by the reward model", "iteration", curves)
        charts.append(Chart("reward_model_scores", figure, "scores of real and generated images by the reward model"))
    return charts


def _diagnostics(run: RunData) -> list[Chart]:
    others = [name for name in _reward_model_metrics(run.rows) if not name.endswith(_SCORE)]
    metrics = [(REWARD_MODEL + name, f"Reward model, {name.replace('_', ' ')}") for name in others[:5]]
    charts = []
    for key, title in (*metrics, *_DIAGNOSTICS):
        x, y = run.series(key)
        if key.startswith(TIME):  # 0 is warm-up, 1 starts the workers
            x, y = x[x > 1], y[x > 1]
        if y.any():  # what is always 0 is not in use: a leash, or a critic
            figure = curve_figure(title, "iteration", [Curve("", x, y)], size=SMALL)
            name = title.lower().replace(",", "").replace(" ", "_")
            charts.append(Chart(name, figure, f"{title}: last {y[-1]:.3g}"))
    return charts


def _reward_model_metrics(rows: Sequence[Row]) -> list[str]:
    found = {key.removeprefix(REWARD_MODEL) for row in rows for key in row if key.startswith(REWARD_MODEL)}
    return sorted(found)
