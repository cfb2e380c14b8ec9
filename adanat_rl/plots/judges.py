"""The reward against the judges of a run: one panel each over the iterations, and where reward hacking was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from adanat_rl.config.metric_keys import EVAL, ITERATION, REWARD_MEAN
from adanat_rl.evaluation.hacking import WATCHED, Hacking, find_hacking, rewards_between
from adanat_rl.evaluation.judge import FD_A, FD_B, RECALL, JudgeNames
from adanat_rl.evaluation.rewarded import rewarded_judges
from adanat_rl.plots.curves import MARKED_POINTS
from adanat_rl.plots.numbers import fixed, plural
from adanat_rl.plots.run_data import RunData
from adanat_rl.plots.theme import (
    ACCENT,
    BAND_ALPHA,
    INK,
    MUTED,
    SECOND,
    SMALL_PT,
    WIDE,
    dress,
    label_x,
    new_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

JUDGES_FIGURE = "reward_against_judges"
_PANEL_IN, _GAP_IN = 0.78, 0.30  # height of a panel; between two, where the name of the lower one stands
_TOP_IN, _BOTTOM_IN = 0.54, 0.44
_MOST_POINTS = 200  # of a curve; more are joined


def hacking_of(run: RunData) -> Hacking | None:
    """Reward hacking of a run by its own settings."""
    settings = run.config.evaluation
    return find_hacking(run.rows, settings.hacking_window, settings.hacking_tolerance, rewarded_judges(run.config))


def hacking_sentence(run: RunData, found: Hacking | None) -> str:
    """What was seen, or how far it was looked for."""
    if found is not None:
        return found.describe(run.judge_names)
    settings, done = run.config.evaluation, len(run.evaluations)
    if settings.hacking_window < 2:
        return f"Reward hacking was not looked for (evaluation.hacking_window is {settings.hacking_window})."
    if done < settings.hacking_window:
        return (
            f"Reward hacking is looked for over {settings.hacking_window} evaluations; "
            f"there {'is' if done == 1 else 'are'} {done}."
        )
    rewarded = rewarded_judges(run.config)
    judges = [
        title
        for key, title in _titles(run.judge_names).items()
        if EVAL + key in run.evaluations[-1] and key not in rewarded
    ]
    if not judges:
        return "Reward hacking was not looked for: the run is paid in all that judges it."
    listed = judges[0] if len(judges) == 1 else f"{', '.join(judges[:-1])} or {judges[-1]}"
    return (
        f"No reward hacking was seen: over no {settings.hacking_window} evaluations in a row did the reward clearly "
        f"rise while {listed} got worse by more than {settings.hacking_tolerance:.0%}."
    )


def judges_figure(run: RunData, found: Hacking | None, title: str = "") -> Figure:
    """The reward and each judge over the iterations, with the window in which hacking was seen.

    Args:
        title: above; empty for none.
    """
    evaluations = run.evaluations
    judges = [
        (key, name) for key, name in _titles(run.judge_names).items() if any(EVAL + key in row for row in evaluations)
    ]
    rewarded = rewarded_judges(run.config)
    count = 1 + len(judges)
    top = _TOP_IN if title else _TOP_IN - 0.22
    height = top + _BOTTOM_IN + count * _PANEL_IN + (count - 1) * _GAP_IN
    figure, first = new_axes((WIDE[0], height), title)
    box = first.get_position()
    panels = [first, *(figure.add_axes((0, 0, 1, 1)) for _ in judges)]
    for index, axes in enumerate(panels):
        bottom = height - top - _PANEL_IN - index * (_PANEL_IN + _GAP_IN)
        axes.set_position((box.x0, bottom / height, box.width, _PANEL_IN / height))
        if index:
            dress(axes)
    _draw_reward(first, run)
    for axes, (key, name) in zip(panels[1:], judges, strict=True):
        rows = [row for row in evaluations if EVAL + key in row]
        x, y = [row[ITERATION] for row in rows], [row[EVAL + key] for row in rows]
        marker = "o" if len(rows) <= MARKED_POINTS else ""
        axes.plot(x, y, color=SECOND, linewidth=1.6, marker=marker, markersize=3, label=key)
        remark = "lower is better" if WATCHED[key] > 0 else "higher is better"
        _name(axes, name, f"paid in; {remark}" if key in rewarded else remark, SECOND)
    last = max(float(run.rows[-1][ITERATION]), 1.0)
    for axes in panels:
        axes.set_xlim(-0.02 * last, 1.02 * last)
        axes.margins(y=0.1)
        axes.locator_params(axis="y", nbins=3)
        axes.locator_params(axis="x", nbins=5, integer=True)
        if axes is not panels[-1]:
            axes.tick_params(labelbottom=False)
        if found is not None:
            axes.axvspan(found.since, found.iteration, color=MUTED, alpha=BAND_ALPHA, linewidth=0, zorder=0.5)
            axes.axvline(found.iteration, color=INK, linewidth=1.0, dashes=(3, 2), label="_hacking")
    label_x(panels[-1], "iteration")
    return figure


def judges_alt(run: RunData, found: Hacking | None) -> str:
    """The figure in words."""
    _, rewards = rewards_between(run.rows)
    known = rewards[np.isfinite(rewards)]
    parts = [f"reward from {fixed(known[0])} to {fixed(known[-1])}"] if len(known) else []
    for key, name in _titles(run.judge_names).items():
        values = [row[EVAL + key] for row in run.evaluations if EVAL + key in row]
        if values:
            parts.append(f"{name} from {fixed(values[0])} to {fixed(values[-1])}")
    seen = f"; reward hacking marked at iteration {found.iteration}" if found is not None else ""
    return f"Over {plural(run.iteration, 'iteration')}: {', '.join(parts)}{seen}"


def moments(run: RunData, found: Hacking) -> list[tuple[str, int]]:
    """Titles and iterations of the evaluations to look at: the best one, and the one that showed hacking."""
    key = EVAL + run.config.evaluation.metric
    judged = [row for row in run.evaluations if key in row and row[ITERATION] != found.iteration]
    best = min(judged, key=lambda row: float(row[key]), default=None)
    result = [("When hacking was seen", found.iteration)]
    return result if best is None else [("Best evaluation", int(best[ITERATION])), *result]


def joined(x: np.ndarray, y: np.ndarray, most: int = _MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """A curve of at most so many points; of too many, neighbours are averaged."""
    if len(x) <= most:
        return x, y
    parts = np.array_split(np.arange(len(x)), most)
    return np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])


def _draw_reward(axes: Axes, run: RunData) -> None:
    x, y = joined(*run.series(REWARD_MEAN))
    axes.plot(x, y, color=ACCENT, linewidth=0.7, alpha=0.45, label="_iterations")
    at, means = rewards_between(run.rows)
    known = np.isfinite(means)
    marker = "o" if known.sum() <= MARKED_POINTS else ""
    axes.plot(at[known], means[known], color=ACCENT, linewidth=1.6, marker=marker, markersize=3, label="reward")
    _name(axes, "Reward", "mean since the evaluation before", ACCENT)


def _name(axes: Axes, name: str, remark: str, colour: str) -> None:
    """Name and remark above a panel."""
    for text, x, side, shade, weight in ((name, 0, "left", colour, "bold"), (remark, 1, "right", MUTED, "normal")):
        axes.annotate(
            text, (x, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", size=SMALL_PT, color=shade,
            weight=weight, ha=side, va="bottom", annotation_clip=False, parse_math=False,
        )  # fmt: skip


def _titles(names: JudgeNames) -> dict[str, str]:
    """What the watched judges are called."""
    return {FD_A: names.short_a, FD_B: names.short_b, RECALL: "recall"}
