"""Pictures of a policy: the same contexts and seeds at every evaluation, as a PNG grid and as data for the report."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from adanat_rl.config.files import write_atomically
from adanat_rl.generation.pipeline import GenerationPipeline, PipelineOutput
from adanat_rl.plots.pictures import GRID_COLUMNS, GRID_GAP

IMAGES_PER_CLASS = GRID_COLUMNS  # the report takes the grid apart again
_MANY = 4  # images of a context where not all contexts are shown
_FRAME = 32  # least side of one image in a grid, in pixels


def grid_contexts(
    num_contexts: int, num_shown: int, per_context: int = IMAGES_PER_CLASS
) -> tuple[np.ndarray, np.ndarray]:
    """Contexts and seeds of the sample grid: all contexts, or `num_shown` that are evenly spread over many."""
    shown = np.arange(num_contexts)
    if num_contexts > num_shown:
        shown = np.linspace(0, num_contexts - 1, num_shown).round().astype(np.int64)
        per_context = min(per_context, _MANY)
    contexts = np.repeat(shown, per_context)
    return contexts, np.arange(len(contexts))


def image_grid(images: np.ndarray, columns: int) -> Image.Image:
    """Images uint8 `[B, H, W, C]` side by side on white, enlarged by a whole factor, pixels kept as squares."""
    factor = max(1, -(-_FRAME // images.shape[1]))
    enlarged = images.repeat(factor, axis=1).repeat(factor, axis=2)
    _, height, width, channels = enlarged.shape
    rows = -(-len(images) // columns)
    canvas = np.full(
        (rows * (height + GRID_GAP) - GRID_GAP, columns * (width + GRID_GAP) - GRID_GAP, channels), 255, np.uint8
    )
    for index, image in enumerate(enlarged):
        top, left = index // columns * (height + GRID_GAP), index % columns * (width + GRID_GAP)
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas)


def png_bytes(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def write_sample_grid(path: Path, pipeline: GenerationPipeline, num_shown: int) -> None:
    """Draws the fixed grid and writes it as PNG."""
    labels, seeds = grid_contexts(pipeline.generator.context_spec.num_contexts, num_shown)
    picture = png_bytes(image_grid(pipeline(labels, seeds).images, IMAGES_PER_CLASS))
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, picture, parents=False)


def write_gallery(path: Path, pipeline: GenerationPipeline, num_shown: int, per_class: int = 2) -> None:
    """Draws some images with all their steps and writes them as `.npz`: images, steps, decisions, context, seeds."""
    labels, seeds = grid_contexts(pipeline.generator.context_spec.num_contexts, num_shown, per_class)
    output = pipeline(labels, seeds, keep_steps=True)
    path.parent.mkdir(exist_ok=True)
    write_npz(path, output, labels, seeds, parents=False)


def write_npz(
    path: Path, output: PipelineOutput, context: np.ndarray, seeds: np.ndarray, *, parents: bool = True
) -> None:
    """Writes what a pipeline drew: images, decisions, tokens, context, seeds, and the steps if they were kept.

    Args:
        parents: whether folders that are missing are made.
    """
    arrays = {
        "images": output.images,
        "decisions": output.decisions,
        "tokens": output.tokens,
        "context": context,
        "seeds": seeds,
    }
    if output.steps is not None:
        arrays["steps"] = output.steps
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue(), parents=parents)
