"""Planted defects: what can be wrong with generated images, done to real ones to see who notices."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Defect = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images `[N, C, H, W]` and the classes that they were drawn for; the same with the defect."""


def blur(images: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """A part of each image's mean over 3 × 3 pixels."""
    wide = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return 0.6 * images + 0.4 * wide, context


def noise(images: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Independent noise on each pixel, of a tenth of the range."""
    added = 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
    return (images + added).clamp(0, 1), context


def shifted(images: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Everything one pixel to the right."""
    return torch.roll(images, 1, dims=3), context


def dropped_class(images: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Images of another class where one was asked for: of ten digits threes for eights."""
    kept, dropped = _two_classes(context, 3, 8)
    there, missing = (context == kept).nonzero()[:, 0], (context == dropped).nonzero()[:, 0]
    changed = images.clone()
    changed[missing] = images[there[torch.arange(len(missing)) % len(there)]]
    return changed, context


def swapped_classes(images: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Each of two classes where the other was asked for: of ten digits fours and nines."""
    first, second = _two_classes(context, 4, 9)
    changed = context.clone()
    changed[context == first], changed[context == second] = second, first
    return images, changed


def _two_classes(context: Tensor, first: int, second: int) -> tuple[int, int]:
    """Of the classes that there are, counted round; two different ones, where there are two."""
    labels = context.unique()
    one, other = first % len(labels), second % len(labels)
    return int(labels[one]), int(labels[other if other != one else (other + 1) % len(labels)])


def dropped_mode(images: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Only one half of each class along its first principal component."""
    changed = images.clone()
    for label in context.unique():
        rows = (context == label).nonzero()[:, 0]
        centred = images[rows].flatten(1) - images[rows].flatten(1).mean(dim=0)
        place = centred @ torch.linalg.svd(centred, full_matrices=False)[2][0]
        kept, dropped = rows[place >= place.median()], rows[place < place.median()]
        changed[dropped] = images[kept[torch.arange(len(dropped)) % len(kept)]]
    return changed, context


def few_images(images: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Five images of each class again and again."""
    changed = images.clone()
    for label in context.unique():
        rows = (context == label).nonzero()[:, 0]
        changed[rows] = images[rows[torch.arange(len(rows)) % 5]]
    return changed, context


DEFECTS: dict[str, Defect] = {
    "blur": blur,
    "noise": noise,
    "shifted by a pixel": shifted,
    "a dropped class": dropped_class,
    "swapped classes": swapped_classes,
    "a dropped mode": dropped_mode,
    "few images": few_images,
}
