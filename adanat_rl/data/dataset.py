"""What everything above asks of real images, and the data set that fits into memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class RealImages(Protocol):
    """Real images that may be too many for the memory: whoever wants pixels names the images."""

    @property
    def name(self) -> str:
        """How the data set is called in tables."""
        ...

    @property
    def labels(self) -> Tensor:
        """`[N]` int64: the context of each image, a class or a row of the caption table."""
        ...

    @property
    def num_classes(self) -> int:
        """Contexts are 0 … num_classes - 1."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def images_at(self, index: np.ndarray) -> Tensor:
        """Images float32 `[B, C, H, W]` in [0, 1] of indices `[B]`."""
        ...


@dataclass(frozen=True)
class ImageDataset:
    """Real images with labels, all in memory; meets `RealImages`.

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

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    def images_at(self, index: np.ndarray) -> Tensor:
        """Images float32 `[B, C, H, W]` in [0, 1] of indices `[B]`."""
        return self.images[torch.as_tensor(index, dtype=torch.int64)]
