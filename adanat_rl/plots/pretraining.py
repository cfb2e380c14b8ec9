"""The curve of a pretraining: loss of the NAT and Fréchet distance of its samples over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from adanat_rl.config.metric_keys import EVAL
from adanat_rl.evaluation.judge import FD_A, FD_B

TOKENIZER = "tokenizer"  # a row's stage


def pretraining_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel for each thing that is trained, over its own steps, and one for the samples.

    Args:
        rows: progress rows with "stage" (nat, or tokenizer where that is trained too), "step", "loss" and, in some of
            the NAT's, `eval/fd_a` and `eval/fd_b`.
    """
    tokenizer = [row for row in rows if row.get("stage") == TOKENIZER]
    rows = [row for row in rows if row.get("stage") != TOKENIZER]
    figure = Figure(figsize=(12 if tokenizer else 8, 3), layout="constrained")
    *first, left, right = figure.subplots(1, 3 if tokenizer else 2)
    for axes in first:
        axes.plot([row["step"] for row in tokenizer], [row["loss"] for row in tokenizer], marker="o", markersize=3)
        axes.set(title="tokenizer, reconstruction", xlabel="step", ylabel="mean squared error", yscale="log")
    left.plot([row["step"] for row in rows], [row["loss"] for row in rows], marker="o", markersize=3)
    left.set(title="NAT, masked tokens", xlabel="step", ylabel="cross-entropy (nats)")
    judged = [row for row in rows if EVAL + FD_A in row]
    for key, label in ((FD_A, "classifier A"), (FD_B, "classifier B")):
        known = [row for row in judged if EVAL + key in row]
        right.plot([row["step"] for row in known], [row[EVAL + key] for row in known], marker="o", label=label)
    right.set(title="samples, hand-made schedule, T = 8", xlabel="step", ylabel="Fréchet distance")
    if judged:
        right.set_yscale("log")
        right.legend(frameon=False)
    for axes in (*first, left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
