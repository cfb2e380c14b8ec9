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
        marks = (
            ("noise", "noise", MUTED, "|", 0.0),
            ("mean", "mean", INK, "o", 0.0),
            ("classes", "between classes", SECOND, "s", 0.0),
            ("images", "between images of a class", ACCENT, "D", 0.0),
        )
        for part, label, colour, marker, shift in marks:
            values, lows, highs = np.array([effect_size(site["split"][part]) for site in sites]).T
            rows = np.array(places) + shift
            if part == "images":
                axes.hlines(rows, lows, highs, color=colour, linewidth=3, alpha=_RANGE_ALPHA)
            size = 8 if marker == "|" else 4
            axes.plot(values, rows, color=colour, marker=marker, markersize=size, linestyle="", label=label)
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))

    return _rows_figure(probe, sites, "Where the effect of a decision comes from", "effect on the reward", draw)


def gains_figure(probe: Mapping[str, Any]) -> Figure:
    """Gain of one level for all, of one per class, of one per image by its features; bars reach to the upper bound."""
    sites = shown_sites(probe["sites"])

    def draw(axes: Axes, places: Sequence[float]) -> None:
        axes.axvline(0, color=LINE, linewidth=1.2, zorder=0.5, label="_nothing")
        marks = (
            ("schedule", "one level for all", INK, "o", -_SHIFT, None),
            ("per_class", "+ per class", SECOND, "s", 0.0, "per_class"),
            ("features", "+ per image, by its features", ACCENT, "D", _SHIFT, "per_image"),
        )
        for gain, label, colour, marker, shift, bounded in marks:
            found = [site[gain] for site in sites]
            rows = np.array(places) + shift
            values = np.array([item["value"] for item in found])
            errors = np.array([[item["value"] - item["low"], item["high"] - item["value"]] for item in found]).T
            if bounded is not None:
                limits = [site[bounded]["at_most"] for site in sites]
                axes.hlines(rows, 0, limits, color=colour, linewidth=3, alpha=_RANGE_ALPHA)
            axes.errorbar(
                values,
                rows,
                xerr=np.maximum(errors, 0.0),
                color=colour,
                fmt=marker,
                markersize=3.5,
                markerfacecolor=colour if bounded != "per_image" else PAPER,
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
    for step, place in headings:
        axes.annotate(
            f"step {step + 1}",
            (0, place),
            xycoords=("figure fraction", "data"),
            size=SMALL_PT,
            weight="bold",
            color=INK,
            va="center",
            annotation_clip=False,
        )
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
