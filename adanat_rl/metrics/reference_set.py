"""Reference statistics of a data set: real images in batches, their Fréchet statistics out."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from adanat_rl.config.errors import UserError, reason_of
from adanat_rl.metrics.accumulation import FeatureSet, ImageSetHash, part, under
from adanat_rl.metrics.statistics import FeatureStatistics, read_arrays, write_arrays


class Extractor(Protocol):
    """What a network must offer to judge images; `InceptionExtractor` does."""

    @property
    def name(self) -> str:
        """What its features are called."""
        ...

    @property
    def convention(self) -> str:
        """Resize convention, "" if it has none."""
        ...

    @property
    def num_features(self) -> int:
        """D."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Features `[B, D]` of images `[B, C, H, W]` in [0, 1]."""
        ...

    def content_hash(self) -> str:
        """Hash of its weights."""
        ...


class ReferenceSet:
    """The statistics of N real images, gathered by one or several workers, resumable from a file.

    Args:
        extractor: on `device`. num_images: N. num_kept: how many images' features are kept for precision and recall.
        batch_size: images in one pass of the extractor.
    """

    def __init__(
        self,
        extractor: Extractor,
        num_images: int,
        num_kept: int = 0,
        batch_size: int = 64,
        device: torch.device | str = "cpu",
    ) -> None:
        self._extractor = extractor
        self._extractor_hash = extractor.content_hash()
        self._batch_size = batch_size
        self._device = device
        self._num_kept = num_kept
        self._set = FeatureSet(num_images, extractor.num_features, num_kept, device)
        self._hash = ImageSetHash()

    @torch.no_grad()
    def add(self, images: Tensor, index: np.ndarray | None = None) -> None:
        """Takes in images `[B, 3, H, W]`, float in [0, 1] or uint8.

        Args:
            index: which of the N they are, `[B]`; without it the first ones that are still missing.
        """
        taken = self._set.claim(len(images), index)
        for start in range(0, len(images), self._batch_size):
            rows = slice(start, start + self._batch_size)
            self._set.add(self._extractor(images[rows].to(self._device)), taken[rows])
            self._hash.add(images[rows])

    def missing(self) -> np.ndarray:
        """Indices `[K]` of the images that are still to come."""
        return self._set.missing()

    def statistics(self) -> FeatureStatistics:
        """Statistics of the images that came; damaged ones may have been left out."""
        return self._set.moments.statistics(
            self._extractor.convention,
            self._extractor_hash,
            self._hash.hexdigest(),
            self._set.kept() if self._num_kept else None,
        )

    def save(self, path: Path) -> None:
        """Writes everything to go on from, atomically."""
        identity = {"identity": np.array(self._identity()), "hash": np.array(self._hash.hexdigest())}
        write_arrays(path, {**identity, **under("set", self._set.state())})

    def restore(self, path: Path) -> None:
        """Goes on from a file.

        Raises:
            UserError: it is damaged, or of another extractor, convention, or number of images.
        """
        arrays = read_arrays(path)
        if str(arrays.get("identity")) != self._identity():
            raise UserError(f"{path} was made for {arrays.get('identity')}; this is {self._identity()}")
        try:
            self._set = FeatureSet.from_state(part(arrays, "set"), self._device)
            self._hash = ImageSetHash.from_hexdigest(str(arrays["hash"]))
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise UserError(f"{path} is damaged: {type(error).__name__}: {reason_of(error)}") from None

    def _identity(self) -> str:
        return (
            f"{self._extractor.name} {self._extractor_hash[:12]}, convention {self._extractor.convention or 'none'}, "
            f"{self._set.num_images} images, {self._num_kept} kept"
        )
