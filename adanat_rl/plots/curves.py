"""Curves over a run: distance, reward, discriminator, learner; with horizontal lines to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from adanat_rl.plots.theme import (
    ACCENT,
    BAND_ALPHA,
    LINE,
    MUTED,
    SECOND,
    SMALL_PT,
    WIDE,
    label_x,
    new_axes,
    spread_labels,
    text_width,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GAP_IN = 0.145  # between the lines of two labels
_MAX_LABEL = 20  # characters
MARKED_POINTS = 30  # points that are marked one by one


@dataclass(frozen=True)
class Curve:
    """One curve.

    Args:
        label: written at its end; empty for none. x, y: `[N]`.
        sd: `[N]` half width of the band around it, or None. end: mean and sd of a final measurement, or None.
        against: whether it is drawn in the colour of what the policy is set against.
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    sd: np.ndarray | None = None
    end: tuple[float, float] | None = None
    against: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal line.

    Args:
        label: written at its right end. value, sd: where it lies.
        strong: whether it is the one to compare with; its spread is drawn then.
    """

    label: str
    value: float
    sd: float = 0.0
    strong: bool = False


def curve_figure(
    title: str,
    x_label: str,
    curves: Sequence[Curve],
    levels: Sequence[Level] = (),
    *,
    size: tuple[float, float] = WIDE,
    x_format: Callable[[float], str] | None = None,
) -> Figure:
    """Curves and horizontal lines on one pair of axes, each with its name beside its right end.

    Args:
        x_format: text of a number on the horizontal axis.
    """
    names = [
        _short(label) for label in (*(curve.label for curve in curves), *(level.label for level in levels)) if label
    ]
    right = 0.14 + (max(text_width(name, SMALL_PT) for name in names) + 0.16 if names else 0.0)
    figure, axes = new_axes(size, title, right=right)
    for level in levels:
        _draw_level(axes, level)
    for curve in curves:
        _draw_curve(axes, curve)
    last = max((float(curve.x[-1]) for curve in curves), default=0.0)
    axes.set_xlim(-0.03 * last if last else -0.5, last * 1.03 if last else 0.5)
    axes.margins(y=0.08)
    axes.locator_params(axis="x", nbins=5 if size == WIDE else 3, integer=x_format is None)
    axes.locator_params(axis="y", nbins=6 if size == WIDE else 4)
    if last == 0:
        axes.set_xticks([0], ["0"])
    elif x_format is not None:
        axes.xaxis.set_major_formatter(lambda value, _: x_format(value))
    label_x(axes, x_label)
    _label_ends(axes, size[1], curves, levels)
    return figure


def _draw_level(axes: Axes, level: Level) -> None:
    colour = SECOND if level.strong else MUTED
    if level.strong and level.sd > 0:
        axes.axhspan(level.value - level.sd, level.value + level.sd, color=SECOND, alpha=0.5 * BAND_ALPHA, linewidth=0)
    axes.axhline(level.value, color=colour, linewidth=1.1 if level.strong else 0.8, dashes=(4, 2.5), label=level.label)


def _draw_curve(axes: Axes, curve: Curve) -> None:
    colour = SECOND if curve.against else ACCENT
    if curve.sd is not None:
        axes.fill_between(curve.x, curve.y - curve.sd, curve.y + curve.sd, color=colour, alpha=BAND_ALPHA, linewidth=0)
    marker = "o" if len(curve.x) <= MARKED_POINTS else ""
    axes.plot(curve.x, curve.y, color=colour, linewidth=1.6, marker=marker, markersize=3, label=curve.label)
    if curve.end is not None:
        mean, sd = curve.end
        axes.errorbar(
            [curve.x[-1]],
            [mean],
            yerr=[sd],
            color=colour,
            fmt="D",
            markersize=5,
            elinewidth=1.6,
            capsize=3,
            clip_on=False,
        )


def _label_ends(axes: Axes, height: float, curves: Sequence[Curve], levels: Sequence[Level]) -> None:
    """Names beside the right ends, moved apart where they would touch, with a thin line to where they belong."""
    ends = [
        (
            _short(curve.label),
            curve.end[0] if curve.end else float(curve.y[-1]),
            SECOND if curve.against else ACCENT,
            True,
        )
        for curve in curves
        if curve.label
    ]
    ends += [(_short(level.label), level.value, SECOND if level.strong else MUTED, level.strong) for level in levels]
    low, high = axes.get_ylim()
    gap = _GAP_IN / (axes.get_position().height * height) * (high - low)
    places = spread_labels([value for _, value, _, _ in ends], gap, low, high)
    right = axes.get_xlim()[1]
    reach = (right - axes.get_xlim()[0]) / (axes.get_position().width * axes.figure.get_figwidth()) * 0.12  # type: ignore[union-attr]
    for (text, value, colour, bold), place in zip(ends, places, strict=True):
        axes.plot([right, right + reach], [value, place], color=LINE, linewidth=0.8, clip_on=False, zorder=0)
        axes.text(
            right + 1.25 * reach,
            place,
            text,
            color=colour,
            size=SMALL_PT,
            weight="bold" if bold else "normal",
            va="center_baseline",
            parse_math=False,
        )
    axes.set_ylim(low, high)
    axes.set_xlim(axes.get_xlim()[0], right)


def _short(label: str) -> str:
    return label if len(label) <= _MAX_LABEL else label[: _MAX_LABEL - 1].rstrip() + "…"
