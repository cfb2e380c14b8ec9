"""An extractor without a real network: fixed random projections of images shrunk to 4 × 4."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

NUM_FEATURES = 6
NUM_LOGITS = 5


class FakeExtractor:
    """Features `[B, 6]` and logits `[B, 5]` of `[B, 3, H, W]`; counts the images it has seen."""

    num_features = NUM_FEATURES

    def __init__(self, seed: int = 0, convention: str = "vendored", name: str = "fake features") -> None:
        self.name = name
        self.convention = convention
        self.num_images = 0
        self._seed = seed
        generator = torch.Generator().manual_seed(seed)
        self._features = torch.randn(48, NUM_FEATURES, generator=generator)
        self._logits = 3 * torch.randn(48, NUM_LOGITS, generator=generator)

    def __call__(self, images: Tensor) -> Tensor:
        return self.features_and_logits(images)[0]

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.num_images += len(images)
        small = functional.adaptive_avg_pool2d(images, 4).flatten(1)
        return small @ self._features, small @ self._logits

    def content_hash(self) -> str:
        return f"{self._seed:064x}"[::-1]
