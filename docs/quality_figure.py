"""Quality over cost: what each kind of policy reaches by unlike judges, over NAT passes and over time.

python docs/quality_figure.py       # out of benchmarks/results, into docs/figures/quality_digits.png
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adanat_rl.config.metric_keys import IMAGES_PER_SECOND
from adanat_rl.evaluation.evaluator import NAT_PASSES

FIGURES = Path(__file__).parent / "figures"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
DATA = {"digits": "quality"}
INK, MUTED = "#1f2937", "#6b7280"
JUDGES = {
    "fd_pixels": "FD pixels ↓",
    "fd_gradients": "FD gradients ↓",
    "recall_pixels": "recall, pixels ↑",
    "class_accuracy": "class accuracy ↑",
}
HAND_MADE = ("hand_made_t4", "hand_made_t8")
KINDS = {  # title, colour, marker
    "hand-made schedule": ("#b45309", "o"),
    "searched schedule (CMA-ES)": ("#0f766e", "s"),
    "learned schedule": ("#7c3aed", "v"),
    "learned table, a schedule a class": ("#be185d", "D"),
    "learned, for each image": ("#2563eb", "*"),
}
TRAINED = {
    "adaptive": "learned, for each image",
    "per_class": "learned table, a schedule a class",
    "static": "learned schedule",
}


def quality_figure(numbers: Mapping[str, Any], title: str) -> Figure:
    """A column for each judge, a row for each cost."""
    figure = Figure(figsize=(2.6 * len(JUDGES), 5.2), layout="constrained")
    figure.suptitle(title, fontsize=10, color=INK, x=0.01, ha="left")
    rows = figure.subplots(2, len(JUDGES))
    for axes_row, (cost, label) in zip(
        rows, {NAT_PASSES: "NAT passes an image", IMAGES_PER_SECOND: "ms an image"}.items(), strict=True
    ):
        for axes, (judge, name) in zip(axes_row, JUDGES.items(), strict=True):
            _panel(axes, numbers, judge, cost)
            axes.set_xlabel(label, fontsize=8, color=MUTED)
            axes.set_title(name, fontsize=9, color=INK, loc="left")
            axes.tick_params(labelsize=7, colors=MUTED)
            axes.spines[["top", "right"]].set_visible(False)
    handles, labels = rows[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _panel(axes: Axes, numbers: Mapping[str, Any], judge: str, cost: str) -> None:
    baselines = numbers["baselines"]
    _line(axes, [baselines[name] for name in HAND_MADE], judge, cost, "hand-made schedule")
    _line(axes, [baselines["static_search"]], judge, cost, "searched schedule (CMA-ES)")
    for name, row in numbers["trained"].items():
        _line(axes, [row], judge, cost, TRAINED[name])


def _line(axes: Axes, rows: list[Mapping[str, Any]], judge: str, cost: str, kind: str) -> None:
    colour, marker = KINDS[kind]
    axes.errorbar(
        [_cost(row, cost) for row in rows],
        [row[judge]["mean"] for row in rows],
        yerr=[row[judge]["sd"] for row in rows],
        color=colour,
        marker=marker,
        markersize=9 if marker == "*" else 5,
        linewidth=1.2,
        capsize=2,
        linestyle="-" if len(rows) > 1 else "none",
        label=kind,
    )


def _cost(row: Mapping[str, Any], cost: str) -> float:
    mean = float(row[cost]["mean"])
    return 1000 / mean if cost == IMAGES_PER_SECOND else mean


def main() -> None:
    """Draws them all."""
    for data, result in DATA.items():
        numbers = json.loads((RESULTS / f"{result}.json").read_text())
        figure = quality_figure(numbers, f"{data}: mean ± sd over trainings, of schedules over evaluation seeds")
        figure.savefig(FIGURES / f"quality_{data}.png", dpi=150)
        print(FIGURES / f"quality_{data}.png")


if __name__ == "__main__":
    main()
