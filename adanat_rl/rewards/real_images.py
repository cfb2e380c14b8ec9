"""Real images as reward models get them: rows of a data set, mirrored and shown as the tokenizer would where wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from adanat_rl.data.streaming import read_ahead
from adanat_rl.rewards.base import RewardBatch


class FlippableImages(Protocol):
    """Real images that can be had mirrored."""

    @property
    def labels(self) -> Tensor:
        """`[N]` int64."""
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def pairs_at(self, index: np.ndarray, flips: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
        """Images float32 `[B, C, H, W]` in [0, 1] of indices `[B]`, those with a true flip mirrored, and labels `[B]`.

        A damaged image is replaced by another, and the label is that of the image that is shown.
        """
        ...


@dataclass(frozen=True)
class RealRows:
    """An `ImageSet` whose images are read when a model asks for them.

    With `mirrored` every image is there twice: row N + i is image i, mirrored. So whoever draws rows evenly draws the
    paper's horizontal flip with p = 0.5 too, and a row stays a pure function of its number.

    Args:
        dataset: N real images. device: where they are handed out.
        reconstruct: images as the tokenizer would show them; None: as they are.
        prefetch: batches that are read ahead.
    """

    dataset: FlippableImages
    device: str = "cpu"
    mirrored: bool = False
    reconstruct: Callable[[Tensor], Tensor] | None = None
    prefetch: int = 0

    def __len__(self) -> int:
        return len(self.dataset) * (2 if self.mirrored else 1)

    @property
    def images(self) -> Tensor:
        """All images."""
        return self.rows(torch.arange(len(self))).images

    @property
    def labels(self) -> Tensor:
        """All labels."""
        return self.dataset.labels.repeat(2 if self.mirrored else 1).to(self.device)

    def rows(self, index: Tensor) -> RewardBatch:
        """Some of them."""
        return self._shown(*self._read(index))

    def batches(self, rows: Sequence[Tensor]) -> Iterator[RewardBatch]:
        """Several in turn; the files of the coming ones are read while the caller works."""
        return (self._shown(*pair) for pair in read_ahead(self._read, rows, self.prefetch))

    def _read(self, index: Tensor) -> tuple[Tensor, Tensor]:
        numbers = index.cpu().numpy()
        return self.dataset.pairs_at(numbers % len(self.dataset), numbers >= len(self.dataset))

    @torch.no_grad()
    def _shown(self, images: Tensor, labels: Tensor) -> RewardBatch:
        images = images.to(self.device)
        if self.reconstruct is not None:
            images = self.reconstruct(images)
        return RewardBatch(images, labels.to(self.device))
