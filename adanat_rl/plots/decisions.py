"""Decisions over the steps: mean and spread against the base schedule, and per class as a heat map.

Decisions are float `[N, T, K]`: N images, T steps, K parameters of a step. Entries without effect are never drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adanat_rl.config.files import write_atomically
from adanat_rl.plots.theme import (
    ACCENT,
    BAND_ALPHA,
    INK,
    LINE,
    MUTED,
    SECOND,
    SMALL_PT,
    TEXT_PT,
    TITLE_PT,
    WIDE,
    dress,
    label_x,
    new_axes,
    png,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL = (2.6, 2.0)  # of one decision in the figure of all
_MAX_CLASSES = 20  # rows of a heat map
_MAX_NUMBERED_STEPS = 8  # beyond, its cells hold no numbers
_CELL_IN = 0.19  # height of a cell
_STRONGEST, _FAINT = 0.55, 0.45  # opacity of the strongest cell, and of one without effect
_NOTHING = 1e-6  # spread below which decisions are the same


@dataclass(frozen=True)
class DecisionSummary:
    """What is drawn of decisions.

    Args:
        names: K. mean, sd: `[T, K]` over the images. effective: `[T, K]` bool, entries that change the image.
        base: `[T, K]` base schedule, or None if unknown.
        classes: C labels. class_means: `[C, T, K]`, or None if unknown.
        between: `[K]` share of the variance that lies between classes, NaN where there is no variance, or None.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray
    effective: np.ndarray
    base: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    class_means: np.ndarray | None = None
    between: np.ndarray | None = None

    @property
    def horizon(self) -> int:
        """T."""
        return len(self.mean)

    def varies(self, column: int) -> bool:
        """Whether a decision differs between images at any step where it matters."""
        return bool((self.sd[:, column][self.effective[:, column]] > _NOTHING).any())


def summarise_decisions(
    names: Sequence[str],
    decisions: np.ndarray,
    context: np.ndarray,
    effective: np.ndarray,
    base: np.ndarray | None = None,
) -> DecisionSummary:
    """Mean, spread and class means.

    Args:
        decisions: `[N, T, K]`. context: `[N]` labels. effective: `[T, K]` bool. base: `[T, K]`.
    """
    decisions = np.asarray(decisions, np.float64)
    labels, index, counts = np.unique(context, return_inverse=True, return_counts=True)
    class_means = np.stack([decisions[index == row].mean(axis=0) for row in range(len(labels))])
    mean = decisions.mean(axis=0)
    total = decisions.var(axis=0)
    between = (counts[:, None, None] * (class_means - mean) ** 2).sum(axis=0) / counts.sum()
    sums = np.where(effective, total, 0.0).sum(axis=0)
    shares = np.where(effective, between, 0.0).sum(axis=0) / np.where(sums > _NOTHING**2, sums, np.nan)
    return DecisionSummary(
        names=tuple(names),
        mean=mean,
        sd=decisions.std(axis=0),
        effective=effective,
        base=base,
        classes=tuple(str(label) for label in labels),
        class_means=class_means,
        between=shares,
    )


def readable(name: str) -> str:
    """A decision's name as text."""
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]


def decision_figure(
    names: Sequence[str],
    decisions: np.ndarray,
    effective: np.ndarray,
    base: np.ndarray | None = None,
    *,
    title: str = "Decisions over the steps",
) -> Figure:
    """All decisions in one figure, two panels a row: mean and spread (± sd) over the images, base schedule beside.

    Args:
        names: K. decisions: `[N, T, K]`. effective: `[T, K]` bool. base: `[T, K]`.
    """
    mean, sd = np.asarray(decisions, np.float64).mean(axis=0), np.asarray(decisions, np.float64).std(axis=0)
    return summary_figure(DecisionSummary(tuple(names), mean, sd, effective, base), title)


def write_decision_figure(
    path: Path,
    names: Sequence[str],
    decisions: np.ndarray,
    effective: np.ndarray,
    base: np.ndarray | None = None,
    *,
    title: str = "Decisions over the steps",
) -> None:
    """Writes `decision_figure` as PNG, atomically."""
    write_atomically(path, png(decision_figure(names, decisions, effective, base, title=title)))


def summary_figure(summary: DecisionSummary, title: str) -> Figure:
    """All decisions over the steps, with one key."""
    columns = range(len(summary.names))
    figure = _panels(
        summary, columns, title, _PANEL, lambda axes, column: draw_steps(axes, summary, column), key_in=0.26
    )
    shown: dict[str, Artist] = {}  # by label: a decision that is the same for all images has no class means
    for axes in figure.axes:
        shown |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        list(shown.values()),
        list(shown),
        loc="upper left",
        bbox_to_anchor=(0, 1 - 0.26 / figure.get_figheight()),
        ncols=len(shown),
        frameon=False,
        fontsize=SMALL_PT,
        labelcolor=MUTED,
        handlelength=1.6,
        columnspacing=1.4,
        borderaxespad=0,
        borderpad=0.2,
    )
    return figure


def classes_figure(summary: DecisionSummary, title: str) -> Figure:
    """All decisions that differ between images, per class."""
    columns = [column for column in range(len(summary.names)) if summary.varies(column)]
    size = (_PANEL[0], max(_PANEL[1], 0.78 + _CELL_IN * len(most_distinct(summary, 0))))
    return _panels(summary, columns, title, size, lambda axes, column: draw_classes(axes, summary, column))


def _panels(
    summary: DecisionSummary,
    columns: Sequence[int],
    title: str,
    size: tuple[float, float],
    draw: Callable[[Axes, int], None],
    key_in: float = 0.0,
) -> Figure:
    """Panels of some decisions, two a row, under one title.

    Args:
        size: of a panel. key_in: height left free for a key.
    """
    from matplotlib.figure import Figure

    across = min(2, len(columns))
    head = 0.26 + key_in
    width, height = across * size[0], -(-len(columns) // 2) * size[1] + head
    figure = Figure(figsize=(width, height))
    figure.text(0, 1 - 0.08 / height, title, size=TITLE_PT + 1, weight="bold", color=INK, va="top", parse_math=False)
    for place, column in enumerate(columns):
        left = place % 2 * size[0] + 0.42
        bottom = height - head - (place // 2 + 1) * size[1] + 0.42
        axes = figure.add_axes((left / width, bottom / height, (size[0] - 0.6) / width, (size[1] - 0.76) / height))
        dress(axes)
        axes.set_title(readable(summary.names[column]), loc="left", size=TEXT_PT, weight="bold", color=INK, pad=6)
        draw(axes, column)
    return figure


def steps_figure(summary: DecisionSummary, column: int, title: str) -> Figure:
    """One decision over the steps."""
    figure, axes = new_axes(WIDE, title)
    draw_steps(axes, summary, column)
    return figure


def class_figure(summary: DecisionSummary, column: int, title: str) -> Figure:
    """One decision per class."""
    height = 0.78 + _CELL_IN * len(most_distinct(summary, column))
    figure, axes = new_axes((WIDE[0], max(height, WIDE[1])), title)
    draw_classes(axes, summary, column)
    return figure


def draw_steps(axes: Axes, summary: DecisionSummary, column: int) -> None:
    """Base schedule, class means, spread and mean of one decision; steps without effect are marked, not drawn."""
    steps = np.arange(1, summary.horizon + 1)
    effective = summary.effective[:, column]

    def kept(values: np.ndarray) -> np.ndarray:
        return np.where(effective, values, np.nan)

    mean, sd = kept(summary.mean[:, column]), kept(summary.sd[:, column])
    if summary.class_means is not None and summary.varies(column):
        for number, row in enumerate(summary.class_means[:, :, column]):
            label = "mean of a class" if number == 0 else "_class"
            axes.plot(steps, kept(row), color=ACCENT, alpha=0.35, linewidth=0.7, label=label)
    axes.fill_between(
        steps, mean - sd, mean + sd, color=ACCENT, alpha=BAND_ALPHA, linewidth=0, label="± sd over images"
    )
    axes.plot(steps, mean, color=ACCENT, linewidth=1.8, marker="o", markersize=4, label="policy, mean")
    if summary.base is not None:
        base = kept(summary.base[:, column])
        axes.plot(
            steps, base, color=SECOND, linewidth=1.2, dashes=(3, 2), marker="o", markersize=3, label="base schedule"
        )
    margin = 0.35 if summary.horizon <= _MAX_NUMBERED_STEPS else 0.5
    axes.set_xlim(1 - margin, summary.horizon + margin)
    low, high = axes.get_ylim()
    if low < 0 <= np.nanmin(np.concatenate([mean - sd, [np.inf]])):
        low = 0.0
    axes.set_ylim(low, high)
    for step in steps[~effective]:
        axes.axvspan(step - 0.3, step + 0.3, color=LINE, alpha=_FAINT, linewidth=0)
        place = {"rotation": 90, "ha": "center", "va": "center", "transform": axes.get_xaxis_transform()}
        axes.text(step, 0.5, "no effect", size=SMALL_PT, color=MUTED, **place)  # type: ignore[arg-type]
    axes.locator_params(axis="x", integer=True, nbins=8)
    axes.locator_params(axis="y", nbins=5)
    label_x(axes, "step")


def draw_classes(axes: Axes, summary: DecisionSummary, column: int) -> None:
    """Class means of one decision as a heat map: numbers are values, colours say how far from the mean of all images.

    Blue is above, orange below, the same strength for the same distance in all steps.
    """
    from matplotlib.patches import Rectangle

    if summary.class_means is None:
        raise ValueError("class_means is None: there is nothing to draw per class")
    rows = most_distinct(summary, column)
    values = summary.class_means[rows][:, :, column]
    effective = summary.effective[:, column]
    shades = np.where(effective, values - summary.mean[:, column], 0.0)
    shades /= np.abs(shades).max() or 1.0
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    for row, step in np.ndindex(values.shape):
        colour = (ACCENT if shades[row, step] > 0 else SECOND) if effective[step] else LINE
        alpha = abs(shades[row, step]) * _STRONGEST if effective[step] else _FAINT
        axes.add_patch(Rectangle((step + 0.53, row - 0.46), 0.94, 0.92, facecolor=colour, alpha=alpha, linewidth=0))
        if effective[step] and summary.horizon <= _MAX_NUMBERED_STEPS:
            text = f"{values[row, step]:.2f}"
            axes.text(step + 1, row, text, size=SMALL_PT, color=INK, ha="center", va="center_baseline")
    for step in np.flatnonzero(~effective).tolist():
        middle = (len(rows) - 1) / 2
        axes.text(step + 1, middle, "no effect", size=SMALL_PT, color=MUTED, ha="center", va="center", rotation=90)
    axes.set_xlim(0.5, summary.horizon + 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [summary.classes[row] for row in rows])
    axes.locator_params(axis="x", integer=True, nbins=8)
    label_x(axes, "step")


def most_distinct(summary: DecisionSummary, column: int) -> list[int]:
    """Rows of the classes to show: all of them, or of very many those that are farthest from the mean, in order."""
    if summary.class_means is None:
        return []
    if len(summary.class_means) <= _MAX_CLASSES:
        return list(range(len(summary.class_means)))
    distance = np.abs(summary.class_means - summary.mean)[:, :, column][:, summary.effective[:, column]].sum(axis=1)
    return sorted(int(row) for row in np.argsort(-distance, kind="stable")[:_MAX_CLASSES])
