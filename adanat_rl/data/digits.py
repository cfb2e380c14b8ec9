"""The embedded data set: scikit-learn's 1,797 real 8×8 handwritten digits."""

from __future__ import annotations

import torch

from adanat_rl.data.dataset import ImageDataset

__all__ = ["ImageDataset", "load_digits_dataset"]


def load_digits_dataset() -> ImageDataset:
    """All 1,797 digits in the order of scikit-learn, grey values 0 … 16 scaled to [0, 1]."""
    from sklearn.datasets import load_digits  # takes half a second to import

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).to(torch.float32)[:, None] / 16
    return ImageDataset(images, torch.from_numpy(bunch.target).to(torch.int64), 10, "digits")
