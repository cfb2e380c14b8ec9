"""Feature spaces that need no training: pixels, gradients, frequencies."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_MOST_PIXELS = 16  # a side
_MOST_CELLS = 8  # a side


class Pixels:
    """The pixels themselves, as means of blocks where an image has more than 16 a side."""

    name = "pixels"

    def __call__(self, images: Tensor) -> Tensor:
        """`[B, C · h · w]` in [0, 1], h and w ≤ 16."""
        return _reduced(images).flatten(1)


class GradientHistograms:
    """How strong gradients of each direction are in each cell of a grid, over the grey image (Dalal and Triggs 2005).

    Directions are signed, each gradient counts for the two nearest ones, and cells are not normalised, so that contrast
    counts.

    Args:
        num_directions: of the full circle.
    """

    name = "gradients"

    def __init__(self, num_directions: int = 8) -> None:
        self._num_directions = num_directions

    def __call__(self, images: Tensor) -> Tensor:
        """`[B, directions · cells · cells]`, cells = H / 2, 8 at most."""
        grey = functional.pad(images.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        across = (grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]) / 2
        down = (grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]) / 2
        strength = torch.hypot(across, down)
        direction = torch.atan2(down, across) * (self._num_directions / (2 * math.pi))
        below = direction.floor()
        above_part = direction - below
        cells = max(1, min(_MOST_CELLS, images.shape[-1] // 2))
        histograms = []
        for number in range(self._num_directions):
            share = torch.where(below % self._num_directions == number, 1 - above_part, 0.0)
            share += torch.where((below + 1) % self._num_directions == number, above_part, 0.0)
            histograms.append(functional.adaptive_avg_pool2d(strength * share, cells))
        return torch.cat(histograms, dim=1).flatten(1)


class Frequencies:
    """Coefficients of the two-dimensional cosine transform (DCT-II, orthonormal) of the pixels as `Pixels` has them."""

    name = "frequencies"

    def __call__(self, images: Tensor) -> Tensor:
        """`[B, C · h · w]`."""
        reduced = _reduced(images)
        rows, columns = (_cosines(size).to(reduced) for size in reduced.shape[-2:])
        return (rows @ reduced @ columns.T).flatten(1)


def _reduced(images: Tensor) -> Tensor:
    """Means of blocks, so that 16 pixels a side are left at most."""
    height, width = images.shape[-2:]
    block = math.ceil(max(height, width) / _MOST_PIXELS)
    if block == 1:
        return images
    return functional.adaptive_avg_pool2d(images, (max(1, height // block), max(1, width // block)))


def _cosines(size: int) -> Tensor:
    """The orthonormal matrix `[size, size]` of the DCT-II."""
    place = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * place[:, None] * (place[None, :] + 0.5)) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix
