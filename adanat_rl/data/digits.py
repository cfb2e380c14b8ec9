"""The embedded data set: scikit-learn's 1,797 real 8×8 handwritten digits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageDataset:
    """Real images with labels.

    Args:
        images: `[N, C, H, W]` float32 in [0, 1].
        labels: `[N]` int64.
        num_classes: labels are 0 … num_classes - 1.
        name: how the data set is called in tables.
    """

    images: Tensor
    labels: Tensor
    num_classes: int
    name: str


def load_digits_dataset() -> ImageDataset:
    """All 1,797 digits in the order of scikit-learn, grey values 0 … 16 scaled to [0, 1]."""
    from sklearn.datasets import load_digits  # takes half a second to import

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).to(torch.float32)[:, None] / 16
    return ImageDataset(images, torch.from_numpy(bunch.target).to(torch.int64), 10, "digits")
