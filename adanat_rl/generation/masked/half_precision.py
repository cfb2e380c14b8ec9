"""A tokenizer that decodes in half precision, with weights in float32: what it encodes stays exact."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from adanat_rl.generation.masked.sampler import Tokenizer
from adanat_rl.generation.precision import autocast


class HalfPrecisionDecoder:
    """Meets `Tokenizer`.

    Args:
        tokenizer: with its weights on `device`. precision: of the convolutions and matrix products while it decodes.
    """

    def __init__(
        self, tokenizer: Tokenizer, precision: Literal["bfloat16", "float16"], device: torch.device | str = "cpu"
    ) -> None:
        self._tokenizer = tokenizer
        self._precision = precision
        self._device_type = torch.device(device).type
        self.vocab_size, self.grid_size = tokenizer.vocab_size, tokenizer.grid_size
        self.image_size, self.image_channels = tokenizer.image_size, tokenizer.image_channels

    def encode(self, images: Tensor) -> Tensor:
        """Tokens int64 `[B, L]` of images, in float32."""
        return self._tokenizer.encode(images)

    def decode(self, tokens: Tensor) -> Tensor:
        """Images float32 `[B, C, H, W]` in [0, 1]."""
        with autocast(self._precision, self._device_type):
            return self._tokenizer.decode(tokens).float()
