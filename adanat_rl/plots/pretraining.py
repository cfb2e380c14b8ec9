"""The curve of a pretraining: loss of the NAT and Fréchet distance of its samples over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from adanat_rl.config.metric_keys import EVAL
from adanat_rl.evaluation.judge import FD_A, FD_B


def pretraining_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Two panels over the training step.

    Args:
        rows: progress rows with "step", "loss" and, in some of them, `eval/fd_a` and `eval/fd_b`.
    """
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([row["step"] for row in rows], [row["loss"] for row in rows], marker="o", markersize=3)
    left.set(title="NAT, masked tokens", xlabel="step", ylabel="cross-entropy (nats)")
    judged = [row for row in rows if EVAL + FD_A in row]
    for key, label in ((FD_A, "classifier A"), (FD_B, "classifier B")):
        right.plot([row["step"] for row in judged], [row[EVAL + key] for row in judged], marker="o", label=label)
    right.set(title="samples, hand-made schedule, T = 8", xlabel="step", ylabel="Fréchet distance")
    if judged:
        right.set_yscale("log")
        right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
