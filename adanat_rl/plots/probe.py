"""The adaptivity probe as pictures: where the effect of each decision comes from, and what choosing it can gain.

Both figures have one row for each decision of each step, from a probe as `ProbeResult.as_dict()` gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adanat_rl.config.files import write_atomically
from adanat_rl.evaluation.probe_findings import effect_size
from adanat_rl.plots.theme import (
    ACCENT,
    INK,
    LINE,
    MUTED,
    PAPER,
    SECOND,
    SMALL_PT,
    WIDE,
    label_x,
    new_axes,
    png,
    text_width,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Site = Mapping[str, Any]

PARTS_FIGURE, GAINS_FIGURE = "probe_parts", "probe_gains"

_ROW_IN = 0.25  # height of a row
_HEADING = 1.0  # rows that the name of a step takes
_KEY_IN = 0.2  # height of the key
_MAX_ROWS = 32  # beyond, places with the smallest effects are left out
_SHIFT = 0.24  # of markers that would cover each other, in rows
_RANGE_ALPHA = 0.3


def parts_figure(probe: Mapping[str, Any]) -> Figure:
    """Root of each part of the mean square of the effect; for differences between images the 95 % interval too."""
    sites = shown_sites(probe["sites"])

    def draw(axes: Axes, places: Sequence[float]) -> None:
        for part, label, colour, marker in (
            ("noise", "noise", MUTED, "|"),
            ("mean", "mean", INK, "o"),
            ("classes", "between classes", SECOND, "s"),
            ("images", "between images of a class", ACCENT, "D"),
        ):
            values, lows, highs = np.array([effect_size(site["split"][part]) for site in sites]).T
            if part == "images":
                alike = [site["alike"] for site in sites]  # there is nothing between them
                values, lows, highs = (np.where(alike, np.nan, numbers) for numbers in (values, lows, highs))
                axes.hlines(places, lows, highs, color=colour, linewidth=3, alpha=_RANGE_ALPHA)
            size = 8 if marker == "|" else 4
            axes.plot(values, places, color=colour, marker=marker, markersize=size, linestyle="", label=label)
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))

    return _rows_figure(probe, sites, "Where the effect of a decision comes from", "effect on the reward", draw)


def gains_figure(probe: Mapping[str, Any]) -> Figure:
    """Gain of one level for all, per class, and per image, known or by its features; bars end at the upper bound."""
    sites = shown_sites(probe["sites"])

    def draw(axes: Axes, places: Sequence[float]) -> None:
        axes.axvline(0, color=LINE, linewidth=1.2, zorder=0.5, label="_nothing")
        for gain, label, colour, marker, shift, filled in (
            ("schedule", "all alike", INK, "o", -_SHIFT, True),
            ("per_class", "+ per class", SECOND, "s", 0.0, True),
            ("per_image", "+ per image", ACCENT, "D", _SHIFT, True),
            ("features", "+ by features", ACCENT, "D", _SHIFT, False),
        ):
            found = [site[gain] for site in sites]
            rows = np.array(places) + shift
            values, low, high = (np.array([item[key] for item in found]) for key in ("value", "low", "high"))
            if found[0]["at_most"] is not None:
                limits = [item["at_most"] for item in found]
                axes.hlines(rows, 0, limits, color=colour, linewidth=3, alpha=_RANGE_ALPHA)
            axes.errorbar(
                values,
                rows,
                xerr=np.maximum([values - low, high - values], 0.0),
                color=colour,
                fmt=marker,
                markersize=3.5,
                markerfacecolor=colour if filled else PAPER,
                elinewidth=1.0,
                label=label,
            )

    return _rows_figure(probe, sites, "What choosing a decision can gain", "gain in reward", draw)


def write_probe_figures(output: Path, probe: Mapping[str, Any]) -> list[Path]:
    """Writes both as PNG beside the numbers; returns where."""
    written = []
    if probe["sites"]:
        for name, figure in ((PARTS_FIGURE, parts_figure(probe)), (GAINS_FIGURE, gains_figure(probe))):
            path = output.with_name(f"{output.stem}_{name.removeprefix('probe_')}.png")
            write_atomically(path, png(figure))
            written.append(path)
    return written


def shown_sites(sites: Sequence[Site]) -> list[Site]:
    """All places in order, or of very many those with the largest effects that are not noise."""
    if len(sites) <= _MAX_ROWS:
        return list(sites)

    def size(index: int) -> float:
        return sum(max(0.0, float(sites[index]["split"][part]["value"])) for part in ("mean", "classes", "images"))

    return [sites[index] for index in sorted(sorted(range(len(sites)), key=size, reverse=True)[:_MAX_ROWS])]


def _rows_figure(
    probe: Mapping[str, Any],
    sites: Sequence[Site],
    title: str,
    x_label: str,
    draw: Callable[[Axes, Sequence[float]], None],
) -> Figure:
    """One row a place, under the name of its step."""
    labels = [site["decision"].replace("_", " ") for site in sites]
    places, headings = _places(sites)
    left = 0.14 + max(text_width(label, SMALL_PT) for label in labels)
    if len(sites) < len(probe["sites"]):
        title += f" ({len(sites)} of {len(probe['sites'])} places)"
    height = 0.34 + _KEY_IN + 0.44 + _ROW_IN * (places[-1] + 1)
    figure, axes = new_axes((WIDE[0], height), title, left=left)
    box = axes.get_position()
    axes.set_position((box.x0, box.y0, box.width, box.height - _KEY_IN / height))
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=LINE, linewidth=0.7)
    draw(axes, places)
    axes.set_ylim(places[-1] + 0.5, -0.5)
    axes.set_yticks(places, labels, size=SMALL_PT, parse_math=False)
    from matplotlib.transforms import blended_transform_factory

    margin = blended_transform_factory(figure.transFigure, axes.transData)
    for step, place in headings:
        text = f"step {step + 1}"
        axes.text(0, place, text, transform=margin, size=SMALL_PT, weight="bold", color=INK, va="center")
    axes.locator_params(axis="x", nbins=5)
    figure.legend(
        loc="upper left",
        bbox_to_anchor=(0, 1 - 0.27 / height),
        ncols=4,
        frameon=False,
        fontsize=SMALL_PT,
        labelcolor=MUTED,
        handlelength=1.0,
        handletextpad=0.4,
        columnspacing=1.2,
        borderaxespad=0,
        borderpad=0.2,
    )
    label_x(axes, x_label)
    return figure


def _places(sites: Sequence[Site]) -> tuple[list[float], list[tuple[int, float]]]:
    """Where the rows stand, and where the names of the steps do."""
    places: list[float] = []
    headings: list[tuple[int, float]] = []
    at = 0.0
    for index, site in enumerate(sites):
        if index == 0 or site["step"] != sites[index - 1]["step"]:
            headings.append((site["step"], at))
            at += _HEADING
        places.append(at)
        at += 1
    return places, headings
