"""A small convolutional VQ tokenizer: strided convolutions to a grid of latents, each replaced by its nearest code
(van den Oord et al., NeurIPS 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from adanat_rl.generation.blocks import run_in_blocks

_FACTOR = 4  # pixels along the side of a token
_BLOCK_ROWS = 64


class ConvVQTokenizer(nn.Module):
    """Images float32 `[B, 1, H, H]` in [0, 1] ↔ tokens int64 `[B, L]`, L = (H / 4)², row by row.

    Args:
        vocab_size: V. image_size: H, a multiple of 4.
        channels: of the inner convolutions. code_width: width D of a code.

    The codebook `[V, D]` starts at zero and is set by whoever trains the networks. Encoding and decoding run in blocks
    of a fixed number of images, so that an image does not depend on its batch.
    """

    image_channels = 1
    codebook: Tensor

    def __init__(self, vocab_size: int, image_size: int, channels: int = 64, code_width: int = 16) -> None:
        super().__init__()
        if image_size % _FACTOR:
            raise ValueError(f"image_size {image_size} is no multiple of {_FACTOR}")
        self.vocab_size = vocab_size
        self.image_size = image_size
        self.grid_size = image_size // _FACTOR
        self.code_width = code_width
        half = channels // 2
        self.encoder = nn.Sequential(
            nn.Conv2d(1, half, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(half, channels, 4, stride=2, padding=1),
            _ResidualBlock(channels),
            nn.SiLU(),
            nn.Conv2d(channels, code_width, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(code_width, channels, 3, padding=1),
            _ResidualBlock(channels),
            nn.SiLU(),
            nn.ConvTranspose2d(channels, half, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(half, 1, 4, stride=2, padding=1),
        )
        self.register_buffer("codebook", torch.zeros(vocab_size, code_width))

    def latents(self, images: Tensor) -> Tensor:
        """Latents `[B, L, D]` of images, before they are replaced by codes."""
        return self.encoder(2 * images - 1).flatten(2).transpose(1, 2)

    def nearest(self, latents: Tensor) -> Tensor:
        """Tokens `[B, L]` of the nearest codes in Euclidean distance; the lowest index wins a tie."""
        return torch.cdist(latents, self.codebook[None]).argmin(dim=-1)

    def rebuild(self, latents: Tensor) -> Tensor:
        """Images of latents or codes `[B, L, D]`, not yet clamped to [0, 1]."""
        grid = latents.transpose(1, 2).unflatten(2, (self.grid_size, self.grid_size))
        return (self.decoder(grid) + 1) / 2

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Tokens of images."""
        (tokens,) = run_in_blocks(lambda block: (self.nearest(self.latents(block)),), _BLOCK_ROWS, images)
        return tokens

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Images of tokens; where the mask token (`vocab_size`) stands, 4×4 pixels of mid-grey.

        The neighbours of a mask see a code of zeros there.
        """
        (images,) = run_in_blocks(self._decode_block, _BLOCK_ROWS, tokens)
        return images

    def _decode_block(self, tokens: Tensor) -> tuple[Tensor]:
        codes = functional.pad(self.codebook, (0, 0, 0, 1))[tokens]
        images = self.rebuild(codes).clamp(0, 1)
        masked = (tokens == self.vocab_size).view(-1, 1, self.grid_size, self.grid_size)
        masked = masked.repeat_interleave(_FACTOR, dim=2).repeat_interleave(_FACTOR, dim=3)
        return (images.masked_fill(masked, 0.5),)


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.conv2(functional.silu(self.conv1(functional.silu(hidden))))
