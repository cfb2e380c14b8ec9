"""Pictures for the page: sample grids cut into images, strips through training, gallery cards; as PNG in data URIs.

Images are uint8 `[H, W, C]`. What is large is made smaller, so that a report stays a file that one can send.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from adanat_rl.plots.decisions import DecisionSummary
from adanat_rl.plots.numbers import fixed
from adanat_rl.plots.run_data import Gallery

GRID_COLUMNS, GRID_GAP = 8, 2  # of the sample grids: images in a row (one class), pixels between two
_CELL = 32  # side of an image in a grid or strip on the page, unless it is smaller, in pixels
_STEP_SIDE, _IMAGE_SIDE = 48, 96  # largest side in a gallery card
_PIXELATED = 64  # images up to this side are shown with their pixels as squares
_MAX_CLASSES, _MAX_STRIPS = 10, 9
_MAX_STEPS = 8
_BYTES_OF_GALLERY = 300_000


@dataclass(frozen=True)
class Picture:
    """A picture on the page.

    Args:
        uri: the PNG as data URI. width, height: in pixels. pixelated: whether to show pixels as squares.
        alt: what it shows.
    """

    uri: str
    width: int
    height: int
    pixelated: bool
    alt: str


@dataclass(frozen=True)
class Strip:
    """The same images at one point of training."""

    iteration: int
    picture: Picture


@dataclass(frozen=True)
class Bar:
    """One decision of one step: its text and its length as a share of the longest, None where it has no effect."""

    text: str
    share: float | None


@dataclass(frozen=True)
class Card:
    """One image of the gallery beside its steps and decisions.

    Args:
        label: class. seed: of the image. picture: finished. steps: numbers and half-drawn images.
        decisions: name and bars, one per shown step.
    """

    label: str
    seed: int
    picture: Picture
    steps: tuple[tuple[int, Picture], ...]
    decisions: tuple[tuple[str, tuple[Bar, ...]], ...]


def cut_grid(path: Path) -> np.ndarray | None:
    """Images `[R, 8, H, W, C]` of a sample grid, one class a row; None if the picture is no such grid."""
    with Image.open(path) as file:
        pixels = np.asarray(file.convert("L" if file.mode in {"L", "1"} else "RGB"))
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    height, width, channels = pixels.shape
    side, rest = divmod(width + GRID_GAP, GRID_COLUMNS)
    if rest or (height + GRID_GAP) % side or side <= GRID_GAP:
        return None
    rows = (height + GRID_GAP) // side
    padded = np.zeros((rows * side, GRID_COLUMNS * side, channels), np.uint8)
    padded[:height, :width] = pixels
    cells = padded.reshape(rows, side, GRID_COLUMNS, side, channels).swapaxes(1, 2)
    return cells[:, :, : side - GRID_GAP, : side - GRID_GAP]


def sample_picture(path: Path, alt: str) -> Picture:
    """A sample grid with see-through gaps, some classes of very many; a picture that is no grid stays whole."""
    cells = cut_grid(path)
    if cells is None:
        with Image.open(path) as file:
            file.thumbnail((600, 800))
            return _picture(file.convert("RGB"), alt, pixelated=False)
    return _tiles(cells[pick(range(len(cells)), _MAX_CLASSES)], alt)


def gallery_picture(gallery: Gallery, alt: str) -> Picture:
    """The images of a gallery without their steps: a column a context (some of very many), a row for each of its."""
    contexts = pick(list(dict.fromkeys(gallery.context.tolist())), _MAX_CLASSES)
    columns = [gallery.images[gallery.context == context] for context in contexts]
    num_rows = min(map(len, columns))
    factor = max(1, -(-_CELL // gallery.images.shape[1]))
    cells = np.stack([column[:num_rows] for column in columns], axis=1)
    return _tiles(cells.repeat(factor, axis=2).repeat(factor, axis=3), alt)


def strips(samples: Mapping[int, Path]) -> list[Strip]:
    """The first image of each class through training: evenly chosen evaluations, the first and the last among them."""
    chosen = pick(sorted(samples), _MAX_STRIPS)
    result = []
    for iteration in chosen:
        cells = cut_grid(samples[iteration])
        if cells is None:
            return []
        rows = pick(range(len(cells)), _MAX_CLASSES)
        result.append(Strip(iteration, _tiles(cells[rows, :1].swapaxes(0, 1), f"samples at iteration {iteration}")))
    return result


def cards(gallery: Gallery, summary: DecisionSummary) -> list[Card]:
    """Gallery cards; fewer where images are so large that the report would grow out of bounds."""
    longest = np.where(summary.effective, gallery.decisions, 0).max(axis=(0, 1))
    steps = pick(range(gallery.decisions.shape[1]), _MAX_STEPS)
    result: list[Card] = []
    size = 0
    for index in range(len(gallery.images)):
        card = _card(gallery, summary, index, steps, longest)
        size += len(card.picture.uri) + sum(len(picture.uri) for _, picture in card.steps)
        if size > _BYTES_OF_GALLERY:
            break
        result.append(card)
    return result


def pick(items: Sequence[int], limit: int) -> list[int]:
    """At most `limit` of the items, evenly chosen, the first and the last among them."""
    if len(items) <= limit:
        return list(items)
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, limit)]


def _card(gallery: Gallery, summary: DecisionSummary, index: int, steps: Sequence[int], longest: np.ndarray) -> Card:
    label = str(gallery.context[index])
    decided = gallery.decisions[index]
    rows = []
    for column, name in enumerate(summary.names):
        bars = [
            Bar(fixed(float(decided[step, column]), 2), float(decided[step, column] / (longest[column] or 1.0)))
            if summary.effective[step, column]
            else Bar("–", None)
            for step in steps
        ]
        rows.append((name.replace("_", " "), tuple(bars)))
    return Card(
        label=label,
        seed=int(gallery.seeds[index]),
        picture=_scaled(gallery.images[index], _IMAGE_SIDE, f"class {label}"),
        steps=tuple(
            (step + 1, _scaled(gallery.steps[index, step], _STEP_SIDE, f"after step {step + 1}")) for step in steps
        ),
        decisions=tuple(rows),
    )


def _tiles(cells: np.ndarray, alt: str) -> Picture:
    """Cells `[R, C, H, W, 1|3]` as one picture with see-through gaps."""
    rows, columns, side, _, channels = cells.shape
    if side > _CELL:
        flat = [_shrink(cell, _CELL) for row in cells for cell in row]
        cells = np.stack(flat).reshape(rows, columns, _CELL, _CELL, channels)
        side = _CELL
    pitch = side + GRID_GAP
    canvas = np.zeros((rows * pitch - GRID_GAP, columns * pitch - GRID_GAP, channels + 1), np.uint8)
    for row in range(rows):
        for column in range(columns):
            area = canvas[row * pitch : row * pitch + side, column * pitch : column * pitch + side]
            area[..., :channels] = cells[row, column]
            area[..., channels] = 255
    return _picture(Image.fromarray(canvas, "LA" if channels == 1 else "RGBA"), alt, pixelated=True)


def _scaled(image: np.ndarray, largest: int, alt: str) -> Picture:
    pixelated = max(image.shape[:2]) <= _PIXELATED
    pixels = image if max(image.shape[:2]) <= largest else _shrink(image, largest)
    factor = max(1, _PIXELATED // max(pixels.shape[:2]))  # what prints smooths images, whatever the page says
    pixels = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    return _picture(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels), alt, pixelated=pixelated)


def _shrink(image: np.ndarray, side: int) -> np.ndarray:
    """An image with its longer side made `side`."""
    height, width, channels = image.shape
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    smaller = Image.fromarray(image[:, :, 0] if channels == 1 else image).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(smaller).reshape(size[1], size[0], channels)


def _picture(image: Image.Image, alt: str, *, pixelated: bool) -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Picture(uri, image.width, image.height, pixelated, alt)
