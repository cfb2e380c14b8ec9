"""A tokenizer without a network: square patches, each replaced by the nearest entry of a k-means codebook."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PatchTokenizer(nn.Module):
    """Images float32 `[B, 1, H, H]` in [0, 1] ↔ tokens int64 `[B, L]`, L = (H / patch_size)², row by row.

    Args:
        vocab_size: V. patch_size: side of a patch. image_size: H, a multiple of patch_size.

    The codebook `[V, patch_size²]` holds grey values in [0, 1], patches in row-major order; it starts black.
    """

    image_channels = 1
    codebook: Tensor

    def __init__(self, vocab_size: int, patch_size: int, image_size: int) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"patch_size {patch_size} does not divide image_size {image_size}")
        self.vocab_size = vocab_size
        self.patch_size = patch_size
        self.grid_size = image_size // patch_size
        self.image_size = image_size
        self.register_buffer("codebook", torch.zeros(vocab_size, patch_size**2))

    def encode(self, images: Tensor) -> Tensor:
        """Tokens of the nearest codes in Euclidean distance; the lowest index wins a tie."""
        return torch.cdist(image_patches(images, self.patch_size), self.codebook[None]).argmin(dim=-1)

    def decode(self, tokens: Tensor) -> Tensor:
        """Images of tokens; the mask token (`vocab_size`) is shown as mid-grey."""
        grey = torch.full_like(self.codebook[:1], 0.5)
        patches = torch.cat([self.codebook, grey])[tokens]
        grid, size = self.grid_size, self.patch_size
        patches = patches.view(-1, grid, grid, size, size)
        return patches.permute(0, 1, 3, 2, 4).reshape(-1, 1, self.image_size, self.image_size)


def image_patches(images: Tensor, patch_size: int) -> Tensor:
    """Patches `[B, L, patch_size²]` of images `[B, 1, H, H]`."""
    grid = images.shape[-1] // patch_size
    split = images.view(-1, grid, patch_size, grid, patch_size).permute(0, 1, 3, 2, 4)
    return split.reshape(-1, grid * grid, patch_size**2)
