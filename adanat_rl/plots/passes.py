"""How many NAT passes images took, where a policy decides that too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from adanat_rl.plots.theme import ACCENT, SECOND, WIDE, label_x, new_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PASSES_FIGURE = "nat_passes_per_image"


def passes_figure(passes: np.ndarray) -> Figure:
    """A bar for each number of passes, and their mean.

    Args:
        passes: `[N]` of the images of one seed.
    """
    figure, axes = new_axes(WIDE, "NAT passes per image, part of the images")
    counts = np.bincount(passes)
    axes.bar(np.arange(len(counts)), counts / len(passes), width=0.8, color=ACCENT, linewidth=0)
    axes.axvline(float(passes.mean()), color=SECOND, linewidth=1.0, dashes=(3, 2), label="_mean")
    axes.set_xlim(passes.min() - 0.8, passes.max() + 0.8)
    label_x(axes, f"NAT passes; mean {passes.mean():.2f} (dashed)")
    return figure


def passes_alt(passes: np.ndarray) -> str:
    """The same in words."""
    return f"images took {passes.min()} to {passes.max()} NAT passes, {passes.mean():.2f} in the mean"
