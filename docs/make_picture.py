"""README's pictures: the same classes and random numbers under the base schedule and under the shipped policy.

python docs/make_picture.py       # writes docs/figures/digits.png and docs/figures/mnist.png
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

import adanat_rl
from adanat_rl.generation.pipeline import GenerationPipeline
from adanat_rl.generation.policies.base import SchedulePolicy

FIGURES = Path(__file__).parent / "figures"
INK, MUTED, ACCENT, WARM = "#1f2937", "#6b7280", "#2563eb", "#b45309"
PER_CLASS = 8


def tiles(axes: Axes, images: np.ndarray, title: str) -> None:
    """Images `[R, C, H, W]` as a grid with a hair of space between them."""
    rows, columns, height, width = images.shape
    padded = np.full((rows, columns, height + 1, width + 1), 255, np.uint8)
    padded[:, :, :height, :width] = images
    axes.imshow(padded.swapaxes(1, 2).reshape(rows * (height + 1), columns * (width + 1))[:-1, :-1], cmap="gray")
    axes.set_axis_off()
    axes.set_title(title, color=INK, fontsize=9, loc="left")


def curve(axes: Axes, decisions: np.ndarray, base: np.ndarray, name: str) -> None:
    """Mean and spread of a decision over the steps `[B, T]`, beside the base schedule `[T]`."""
    steps = np.arange(1, decisions.shape[1] + 1)
    mean, spread = decisions.mean(0), decisions.std(0)
    axes.fill_between(steps, mean - spread, mean + spread, color=ACCENT, alpha=0.18, lw=0)
    axes.plot(steps, base, color=WARM, ls="--", lw=1.4)
    axes.plot(steps, mean, color=ACCENT, marker="o", ms=3.5, lw=1.6)
    axes.set_title(name.replace("_", " "), color=INK, fontsize=9, loc="left")
    axes.set_xticks(steps)
    axes.tick_params(colors=MUTED, labelsize=7, length=2)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(MUTED)


def draw(dataset: str) -> None:
    """Draws and saves the picture of a data set."""
    learned = adanat_rl.load_pipeline(f"asset:{dataset}/policy")
    space = learned.generator.decision_space
    before = GenerationPipeline(learned.generator, SchedulePolicy(space.base_schedule))
    labels = np.repeat(np.arange(10), PER_CLASS)
    seeds = np.arange(len(labels))
    results = [pipeline(labels, seeds, keep_steps=True) for pipeline in (before, learned)]
    figure = Figure(figsize=(10, 3.9), facecolor="white", layout="constrained")
    grid = GridSpec(2, 4, figure, width_ratios=(8, 8, 5, 5))
    for column, (result, title) in enumerate(
        zip(results, ("base schedule, 4 steps", "learned policy, 4 steps"), strict=True)
    ):
        tiles(figure.add_subplot(grid[:, column]), by_class(result.images[..., 0]), title)
    spread = learned(np.repeat(np.arange(10), 50)).decisions
    for index, name in enumerate(space.names):
        shown = space.effective[:, index]
        axes = figure.add_subplot(grid[index // 2, 2 + index % 2])
        curve(axes, spread[:, shown, index], space.base_schedule[shown, index].numpy(), name)
    figure.savefig(FIGURES / f"{dataset}.png", dpi=150, metadata={"Software": None})


def by_class(images: np.ndarray) -> np.ndarray:
    """Images `[10 · PER_CLASS, H, W]` as rows of a class each."""
    return images.reshape(10, PER_CLASS, *images.shape[1:])


def main() -> None:
    """Both pictures."""
    for dataset in ("digits", "mnist"):
        draw(dataset)


if __name__ == "__main__":
    main()
