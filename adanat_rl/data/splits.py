"""Which images of an embedded data set are to train, which to choose, and which to judge: one rule, for ever the same.

The images of each class, in a fixed random order, are cut into 60 % for training (tokenizer, NAT, discriminator,
reward models), 15 % for validation (schedules, stopping, learning rates, which training ships) and 25 % for tests (what
judges, and the networks that judge). `pretrain` and the panel keep to it.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import torch

from adanat_rl.data.dataset import ImageDataset


class Split(StrEnum):
    """A part of a data set."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


_ENDS = {Split.TRAIN: 0.60, Split.VALIDATION: 0.75, Split.TEST: 1.0}  # where each part ends, as a share of its class
_ORDER_KEY = 20_261_127  # of the fixed random order; another number would be another rule


def split_rows(labels: np.ndarray, num_classes: int, split: Split) -> np.ndarray:
    """Indices of a part, ascending, int64.

    Args:
        labels: `[N]`, the class of each image.
    """
    bits = np.random.Philox(key=_ORDER_KEY)  # raw bits: those of NumPy's generators may change with its version
    ends = list(_ENDS.values())
    place = list(_ENDS).index(split)
    rows = []
    for label in range(num_classes):
        of_class = np.flatnonzero(labels == label)
        of_class = of_class[np.argsort(bits.random_raw(len(of_class)), kind="stable")]
        first = round(len(of_class) * ends[place - 1]) if place else 0
        rows.append(of_class[first : round(len(of_class) * ends[place])])
    return np.sort(np.concatenate(rows))


def split_of(dataset: ImageDataset, split: Split) -> ImageDataset:
    """A part of a data set, in the order of the whole."""
    rows = torch.from_numpy(split_rows(dataset.labels.numpy(), dataset.num_classes, split))
    return ImageDataset(dataset.images[rows], dataset.labels[rows], dataset.num_classes, dataset.name)
