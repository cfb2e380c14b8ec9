"""Planted defects: what can be wrong with generated images, done to real ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Defect = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images `[N, C, H, W]` and the classes that they were drawn for; the same with the defect."""


def blur(images: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    wide = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return 0.6 * images + 0.4 * wide, context


def noise(images: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    added = 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
    return (images + added).clamp(0, 1), context


def shifted(images: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    return torch.roll(images, 1, dims=3), context


def dropped_class(images: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Threes where an eight was asked for."""
    eights, threes = (context == 8).nonzero()[:, 0], (context == 3).nonzero()[:, 0]
    changed = images.clone()
    changed[eights] = images[threes[torch.arange(len(eights)) % len(threes)]]
    return changed, context


def swapped_classes(images: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Fours where nines were asked for, and the other way round."""
    changed = context.clone()
    changed[context == 4], changed[context == 9] = 9, 4
    return images, changed


def dropped_mode(images: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Only one half of each class along its first principal component."""
    changed = images.clone()
    for label in context.unique():
        rows = (context == label).nonzero()[:, 0]
        centred = images[rows].flatten(1) - images[rows].flatten(1).mean(dim=0)
        place = centred @ torch.linalg.svd(centred, full_matrices=False)[2][0]
        kept, dropped = rows[place > 0], rows[place <= 0]
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
