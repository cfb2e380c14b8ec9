"""Embeddings of images by a frozen network of transformers that lies in a folder: what CLIP and DINOv2 share.

Images are `[B, 3, H, W]` or `[B, 1, H, W]` in [0, 1], of any size. They pass the network in blocks of a fixed number of
rows, in float32, so that an embedding depends on its image alone.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adanat_rl.generation.blocks import run_in_blocks
from adanat_rl.generation.text.local import shared_model
from adanat_rl.generation.weight_header import refuse_oversized
from adanat_rl.metrics.checks import checked_finite
from adanat_rl.metrics.clip_pixels import clip_pixels
from adanat_rl.metrics.inception import network_hash


class ImageEncoder(ABC):
    """A feature space and an extractor in one; weights are read when first used.

    Args:
        folder: of `save_pretrained`. config: of the network, by transformers.
        image_size, mean, std: what the network expects of its pixels. num_features: D.
        batch_size: images of one pass. device: where the network runs.
    """

    name: str
    convention = ""  # the size and the colours of the pixels are part of the hash

    def __init__(
        self,
        folder: Path,
        config: Any,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        num_features: int,
        *,
        batch_size: int,
        device: torch.device | str,
    ) -> None:
        self.folder, self._config = folder, config
        self.image_size, self._mean, self._std = image_size, tuple(mean), tuple(std)
        self.num_features = num_features
        self._batch_size = batch_size
        self._device = torch.device(device)

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """Embeddings `[B, D]` float32 on the network's device, as the network gives them."""
        (embeddings,) = run_in_blocks(self._embed_block, self._batch_size, images.to(self._device))
        return embeddings

    def __call__(self, images: Tensor) -> Tensor:
        """Features `[B, D]` float32 on the CPU of images in [0, 1], or of 8 bits.

        Raises:
            NonFiniteError: the network gave NaN or infinite numbers.
        """
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images
        features = self._features(self.embed(pixels)) if len(images) else torch.zeros(0, self.num_features)
        return checked_finite(features.cpu(), f"features ({self.name}) of images")

    @cached_property
    def _hash(self) -> str:
        seen = f"{self.image_size} {self._mean} {self._std}"
        return hashlib.sha256(f"{self.name} {network_hash(self._network)} {seen}".encode()).hexdigest()

    def content_hash(self) -> str:
        """Hash of the weights and of what is made of the pixels: tells whose features stored statistics are."""
        return self._hash

    def outline(self) -> nn.Module:
        """The network without its weights, for estimates: on the meta device.

        Raises:
            UserError: its files hold less than its configuration asks for.
        """
        cls = self._network_class()
        refuse_oversized(lambda: cls(self._config), self.folder, f"{self.folder}/config.json")
        with torch.device("meta"):
            network: nn.Module = cls(self._config)
        return network.eval().requires_grad_(False)

    def _embed_block(self, images: Tensor) -> tuple[Tensor, ...]:
        network = self._network  # first: its weights tell whether the size of its pixels is true
        pixels = clip_pixels(images, self.image_size, self._mean, self._std)
        with torch.autocast(images.device.type, enabled=False):
            return (self._embedding(network(pixel_values=pixels)).float(),)

    @cached_property
    def _network(self) -> nn.Module:
        return shared_model(self._network_class(), self.folder, self._device)

    @abstractmethod
    def _network_class(self) -> Any:
        """The class of transformers."""

    @abstractmethod
    def _embedding(self, output: Any) -> Tensor:
        """`[B, D]` of what the network returns."""

    def _features(self, embeddings: Tensor) -> Tensor:
        """What is measured of embeddings `[B, D]`."""
        return embeddings
