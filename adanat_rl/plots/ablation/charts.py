"""Figures of a sweep: planes of two metrics, curves of each arm over its seeds, the reward against the judges."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from adanat_rl.config.metric_keys import EVAL, REWARD_MEAN
from adanat_rl.evaluation.comparison import BASELINE
from adanat_rl.evaluation.evaluator import NAT_PASSES
from adanat_rl.evaluation.judge import FD_A, FD_B, PRECISION, RECALL
from adanat_rl.plots.ablation.data import Sweep, Trial, metric_title, middle_trial
from adanat_rl.plots.ablation.parameters import counted_trials, importance_figure, importances, parallel_figure
from adanat_rl.plots.ablation.sentences import best_reference
from adanat_rl.plots.charts import Chart
from adanat_rl.plots.curves import Curve, curve_figure
from adanat_rl.plots.judges import joined, judges_alt, judges_figure
from adanat_rl.plots.numbers import fixed, plural
from adanat_rl.plots.ranking import short_name
from adanat_rl.plots.theme import (
    ACCENT,
    INK,
    LINE,
    MUTED,
    SECOND,
    SMALL,
    SMALL_PT,
    WIDE,
    label_x,
    new_axes,
    spread_labels,
    text_width,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ARMS = 12  # that have curves of their own
_LABEL_IN = 0.145  # between the lines of two labels
_MOST_POINTS = 60  # of a curve of many iterations


@dataclass(frozen=True)
class Watched:
    """Reward against judges of one trial of an arm."""

    arm: str
    trial: Trial
    chart: Chart


@dataclass(frozen=True)
class AblationCharts:
    """All charts of a sweep; empty groups for what there is no data for.

    Args:
        planes: of two metrics. distances, rewards: one for each arm. parameters: importance and parallel coordinates.
        watched: reward against judges, a trial of each arm. weights: what importance is here, empty for none.
    """

    planes: tuple[Chart, ...]
    distances: tuple[Chart, ...]
    rewards: tuple[Chart, ...]
    parameters: tuple[Chart, ...]
    watched: tuple[Watched, ...]
    weights: str

    @property
    def files(self) -> list[Chart]:
        """Those that are written as files, all of them."""
        watched = [item.chart for item in self.watched]
        return [*self.planes, *self.distances, *self.rewards, *self.parameters, *watched]


def draw_charts(sweep: Sweep) -> AblationCharts:
    """Everything that there is data for."""
    parameters, weights = _parameters(sweep)
    return AblationCharts(
        planes=tuple(_planes(sweep)),
        distances=tuple(_distance_curves(sweep)),
        rewards=tuple(_reward_curves(sweep)),
        parameters=tuple(parameters),
        watched=tuple(_watched(sweep)),
        weights=weights,
    )


def plane_figure(sweep: Sweep, x_key: str, y_key: str, titles: tuple[str, str], remark: str) -> Figure:
    """Trials as points in the plane of two metrics, the mean of each arm, and what they are compared with.

    Args:
        titles: of the two metrics. remark: which way is better.
    """
    arms = [arm for arm in sweep.shown_arms if len(sweep.values(arm, x_key)) and len(sweep.values(arm, y_key))]
    marks: list[tuple[str, float, float, str, bool]] = []  # label, x, y, colour, whether it is an arm
    for index, arm in enumerate(arms):
        x, y = float(sweep.values(arm, x_key).mean()), float(sweep.values(arm, y_key).mean())
        marks.append((short_name(arm), x, y, ACCENT if index == 0 else INK, True))
    for row in sweep.references:
        if {x_key, y_key} <= row["summary"].keys():
            colour = SECOND if row["kind"] == BASELINE else MUTED
            x, y = (float(row["summary"][key]["mean"]) for key in (x_key, y_key))
            marks.append((short_name(row["name"]), x, y, colour, False))
    right = 0.3 + max(text_width(label, SMALL_PT) for label, *_ in marks)
    figure, axes = new_axes(
        WIDE,
        f"{titles[1]} and {titles[0][0].lower() + titles[0][1:] if titles[0][1:2].islower() else titles[0]}",
        right=right,
    )
    axes.grid(visible=True, axis="x", color=LINE, linewidth=0.7)
    for index, arm in enumerate(arms):
        points = [(trial.number(x_key), trial.number(y_key)) for trial in sweep.of(arm)]
        known = [(x, y) for x, y in points if x is not None and y is not None]
        axes.plot(
            *zip(*known, strict=True), color=ACCENT if index == 0 else INK, marker="o", markersize=3, alpha=0.4,
            linestyle="", markeredgewidth=0, label=f"_trials of {arm}",
        )  # fmt: skip
    for label, x, y, colour, is_arm in marks:
        marker, size = ("D", 6.0) if is_arm else ("s", 4.0)
        axes.plot([x], [y], color=colour, marker=marker, markersize=size, linestyle="", label=label)
    axes.margins(0.08)
    axes.locator_params(axis="x", nbins=5)
    axes.locator_params(axis="y", nbins=6)
    label_x(axes, f"{titles[0]}; {remark}")
    low, high = axes.get_ylim()
    edge = axes.get_xlim()[1]
    gap = _LABEL_IN / (axes.get_position().height * WIDE[1]) * (high - low)
    places = spread_labels([y for _, _, y, _, _ in marks], gap, low, high)
    inch = (edge - axes.get_xlim()[0]) / (axes.get_position().width * WIDE[0])
    for (label, x, y, colour, is_arm), place in zip(marks, places, strict=True):
        reach = edge + 0.14 * inch
        axes.plot([x, edge, reach], [y, place, place], color=LINE, linewidth=0.7, clip_on=False, zorder=0.6)
        axes.text(
            edge + 0.17 * inch, place, label, color=colour, size=SMALL_PT, va="center_baseline", parse_math=False,
            weight="bold" if is_arm else "normal",
        )  # fmt: skip
    axes.set_ylim(low, high)
    axes.set_xlim(axes.get_xlim()[0], edge)
    return figure


def arm_curve(trials: Sequence[Trial], key: str) -> Curve | None:
    """Mean and spread of a metric over the trials of an arm, at the iterations that half of them have at least."""
    found: dict[float, list[float]] = {}
    count = 0
    for trial in trials:
        if trial.run is None:
            continue
        x, y = trial.run.series(key)
        count += len(x) > 0
        for at, value in zip(x, y, strict=True):
            found.setdefault(float(at), []).append(float(value))
    shown = sorted(at for at, values in found.items() if 2 * len(values) >= count)
    if not shown:
        return None
    mean = np.array([np.mean(found[at]) for at in shown])
    sd = np.array([np.std(found[at], ddof=1) if len(found[at]) > 1 else 0.0 for at in shown])
    x, short = joined(np.array(shown), mean, _MOST_POINTS)
    return Curve("", x, short, sd=joined(np.array(shown), sd, _MOST_POINTS)[1] if count > 1 else None)


def _planes(sweep: Sweep) -> list[Chart]:
    if not sweep.finished:
        return []
    known = set.intersection(*(set(trial.final) for trial in sweep.finished))
    charts = []
    if {PRECISION, RECALL} <= known:
        figure = plane_figure(sweep, PRECISION, RECALL, ("Precision", "Recall"), "up and right is better")
        means = ", ".join(
            f"{arm} {fixed(float(sweep.values(arm, PRECISION).mean()))} and "
            f"{fixed(float(sweep.values(arm, RECALL).mean()))}"
            for arm in sweep.shown_arms[:MOST_ARMS]
        )
        charts.append(Chart("precision_recall", figure, f"Mean precision and recall of each arm: {means}"))
    passes = [sweep.values(arm, NAT_PASSES).mean() for arm in sweep.shown_arms if NAT_PASSES in known]
    if len(passes) > 1 and np.ptp(passes) > 0.05:
        title = metric_title(FD_A, sweep.judge_names)
        figure = plane_figure(sweep, NAT_PASSES, FD_A, ("NAT passes per image", title), "down and left is better")
        charts.append(Chart("distance_over_passes", figure, f"{title} of each arm over its NAT passes per image"))
    elif {FD_A, FD_B} <= known:
        titles = metric_title(FD_A, sweep.judge_names), metric_title(FD_B, sweep.judge_names)
        figure = plane_figure(sweep, FD_A, FD_B, titles, "down and left is better")
        charts.append(Chart("two_judges", figure, f"{titles[0]} and {titles[1]} of each arm"))
    return charts


def _distance_curves(sweep: Sweep) -> list[Chart]:
    best = best_reference(sweep.references, FD_A, minimises=True)
    level = None if best is None else float(best["summary"][FD_A]["mean"])
    title = metric_title(FD_A, sweep.judge_names)
    return _arm_charts(sweep, EVAL + FD_A, "distance", title, level=level, is_shared=True)


def _reward_curves(sweep: Sweep) -> list[Chart]:
    return _arm_charts(sweep, REWARD_MEAN, "reward", "reward", level=None, is_shared=False)


def _arm_charts(sweep: Sweep, key: str, name: str, title: str, *, level: float | None, is_shared: bool) -> list[Chart]:
    """One small chart an arm; where the scale is shared the other arms are drawn thinly behind."""
    curves = {arm: curve for arm in _ordered_arms(sweep) if (curve := arm_curve(_counted(sweep, arm), key)) is not None}
    bounds = [bound for curve in curves.values() for bound in _bounds(curve)] + ([] if level is None else [level])
    charts = []
    for index, (arm, curve) in enumerate(list(curves.items())[:MOST_ARMS]):
        figure = curve_figure(short_name(arm), "iteration", [curve], size=SMALL)
        if is_shared:
            axes = figure.axes[0]
            for other in curves.values():
                if other is not curve:
                    axes.plot(other.x, other.y, color=LINE, linewidth=1.0, zorder=0.7, label="_other")
            if level is not None:
                axes.axhline(level, color=SECOND, linewidth=1.0, dashes=(4, 2.5), label="_baseline")
            pad = 0.06 * (max(bounds) - min(bounds)) or 0.1
            axes.set_ylim(min(bounds) - pad, max(bounds) + pad)
        alt = f"{title} of {arm} over the iterations: mean from {fixed(curve.y[0])} to {fixed(curve.y[-1])}"
        charts.append(Chart(f"{name}_{slug(index, arm)}", figure, alt))
    return charts


def slug(index: int, arm: str) -> str:
    """A name for files and ids that no other arm has."""
    return f"{index}_{re.sub(r'[^A-Za-z0-9]+', '_', arm).strip('_')[:40]}"


def _bounds(curve: Curve) -> tuple[float, float]:
    half = curve.sd if curve.sd is not None else np.zeros(len(curve.y))
    return float((curve.y - half).min()), float((curve.y + half).max())


def _ordered_arms(sweep: Sweep) -> list[str]:
    """Arms with final numbers, best first, then the others."""
    return [*sweep.shown_arms, *(arm for arm in sweep.arms if arm not in sweep.shown_arms)]


def _counted(sweep: Sweep, arm: str) -> list[Trial]:
    """The finished trials of an arm; before there are any, those that have begun."""
    return sweep.of(arm) or [trial for trial in sweep.trials if trial.arm == arm]


def _parameters(sweep: Sweep) -> tuple[list[Chart], str]:
    found, what = importances(sweep) if sweep.continuous else ([], "")
    if not found:
        return [], ""
    listed = ", ".join(f"{item.key} {fixed(item.weight, 2)}" for item in found)
    keys = [item.key for item in found]
    count = plural(len(counted_trials(sweep)), "trial")
    return [
        Chart("importance", importance_figure(found, what), f"{what[0].upper()}{what[1:]}: {listed}"),
        Chart("parallel_coordinates", parallel_figure(sweep, keys), f"Settings and {sweep.metric_title} of {count}"),
    ], what


def _watched(sweep: Sweep) -> list[Watched]:
    """A trial of each arm: the one in the middle of those whose reward was hacked, or else of all."""
    found = []
    for index, arm in enumerate(_ordered_arms(sweep)[:MOST_ARMS]):
        begun = [trial for trial in sweep.trials if trial.arm == arm and _has_evaluations(trial)]
        if not begun:
            continue
        hacked = [trial for trial in begun if trial.hacking is not None]
        trial = middle_trial(hacked or begun, _when_hacked if hacked else lambda trial: trial.latest(FD_A) or 0.0)
        assert trial.run is not None  # it has evaluations
        figure = judges_figure(trial.run, trial.hacking, trial.name[:60])
        alt = f"{arm}: {judges_alt(trial.run, trial.hacking)}"
        found.append(Watched(arm, trial, Chart(f"reward_against_judges_{slug(index, arm)}", figure, alt)))
    return found


def _has_evaluations(trial: Trial) -> bool:
    return trial.run is not None and len(trial.run.evaluations) > 1


def _when_hacked(trial: Trial) -> float:
    return float(trial.hacking.iteration) if trial.hacking is not None else 0.0
