"""The comparison as a picture: each policy a row, with mean, spread and every evaluation seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adanat_rl.evaluation.comparison import BASE_SCHEDULE, BASELINE, CONTROL, POLICY
from adanat_rl.plots.theme import ACCENT, INK, LINE, MUTED, PAPER, SECOND, SMALL_PT, WIDE, label_x, new_axes, text_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW_IN = 0.215  # height of a row
_GROUP_GAP = 0.6  # rows left free between two kinds
_MAX_LABEL = 22  # characters


def ranking_figure(rows: Sequence[Mapping[str, Any]], metric: str, title: str) -> Figure:
    """One metric of all rows of a comparison.

    Args:
        rows: as `Comparison.as_dict()` gives them. metric: key of the metric.
    """
    labels = [short_name(row["name"]) for row in rows]
    left = 0.16 + max(text_width(label, SMALL_PT) for label in labels)
    places = _places([row["kind"] for row in rows])
    height = 0.34 + 0.44 + _ROW_IN * (places[-1] + 1)
    figure, axes = new_axes((WIDE[0], height), title, left=left)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=LINE, linewidth=0.7)
    for row, place in zip(rows, places, strict=True):
        colour = _colour(row["kind"])
        summary, values = row["summary"][metric], row["values"][metric]
        axes.plot(
            values,
            [place] * len(values),
            color=colour,
            alpha=0.45,
            marker="|",
            markersize=7,
            linestyle="",
            label="_seeds",
        )
        axes.errorbar(
            [summary["mean"]],
            [place],
            xerr=[summary["sd"]],
            color=colour,
            fmt="D" if row["kind"] == POLICY else "o",
            markersize=5.5 if row["kind"] == POLICY else 4,
            markerfacecolor=PAPER if row["kind"] == CONTROL else colour,
            elinewidth=1.4,
            label=row["name"],
        )
    axes.axvline(
        rows[0]["summary"][metric]["mean"], color=ACCENT, linewidth=0.8, dashes=(3, 2), zorder=0.5, label="_policy"
    )
    axes.set_ylim(places[-1] + 0.5, -0.5)
    axes.set_yticks(places, labels, size=SMALL_PT, parse_math=False)
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(_colour(row["kind"]))
        tick.set_fontweight("bold" if row["kind"] == POLICY else "normal")
    axes.locator_params(axis="x", nbins=5)
    label_x(axes, "lower is better")
    return figure


def short_name(name: str) -> str:
    """A row's name for the margin of a figure: `hand_made_t8` becomes "hand made T=8"."""
    words = [
        "PPO" if word == "ppo" else f"T={word[1:]}" if word[:1] == "t" and word[1:].isdecimal() else word
        for word in name.split("_")
    ]
    text = " ".join(words)
    return text if len(text) <= _MAX_LABEL else text[: _MAX_LABEL - 1].rstrip() + "…"


def _places(kinds: Sequence[str]) -> list[float]:
    """Where rows stand, with a gap between two kinds."""
    places: list[float] = []
    for index, kind in enumerate(kinds):
        if index == 0:
            places.append(0.0)
        else:
            places.append(places[-1] + 1 + (_GROUP_GAP if kind != kinds[index - 1] else 0))
    return places


def _colour(kind: str) -> str:
    return {POLICY: ACCENT, CONTROL: ACCENT, BASE_SCHEDULE: MUTED, BASELINE: SECOND}.get(kind, INK)
