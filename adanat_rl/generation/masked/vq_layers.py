"""Encoder, decoder and quantiser of the MaskGIT-style VQ tokenizer (Esser et al. 2021; Chang et al. 2022).

Feature maps are `[B, C, H, W]`. Names of layers and arithmetic are those of the official PyTorch port (parity data
`vqgan`): convolutions of residual blocks have no bias, there is no attention, images are halved by average pooling and
doubled by repeating pixels before a convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

NUM_GROUPS = 32
_NORM_EPS = 1e-6


class Encoder(nn.Module):
    """Images `[B, C, H, W]` → latents `[B, latent_width, H/f, W/f]`, f = 2^(levels - 1).

    Args:
        image_channels: C. widths: channels per level, finest first. num_res_blocks: residual blocks per level.
        latent_width: channels of the latents.
    """

    def __init__(self, image_channels: int, widths: Sequence[int], num_res_blocks: int, latent_width: int) -> None:
        super().__init__()
        self.conv_in = _conv3(image_channels, widths[0], bias=False)
        self.down = nn.ModuleList()
        previous = widths[0]
        for width in widths:
            self.down.append(_Level(previous, width, num_res_blocks))
            previous = width
        self.mid = _Middle(previous)
        self.norm_out = _norm(previous)
        self.conv_out = nn.Conv2d(previous, latent_width, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Latents."""
        hidden = self.conv_in(images)
        for index, level in enumerate(self.down):
            if index:
                hidden = functional.avg_pool2d(hidden, 2)
            hidden = level(hidden)
        return self.conv_out(functional.silu(self.norm_out(self.mid(hidden))))


class Decoder(nn.Module):
    """Latents `[B, latent_width, h, w]` → images `[B, C, h·f, w·f]`, not clamped; the arguments are the encoder's."""

    def __init__(self, image_channels: int, widths: Sequence[int], num_res_blocks: int, latent_width: int) -> None:
        super().__init__()
        self.conv_in = _conv3(latent_width, widths[-1])
        self.mid = _Middle(widths[-1])
        coarser = [*widths[1:], widths[-1]]  # what enters each level
        self.up = nn.ModuleList(
            _Level(before, width, num_res_blocks, upsample=index > 0)
            for index, (before, width) in enumerate(zip(coarser, widths, strict=True))
        )
        self.norm_out = _norm(widths[0])
        self.conv_out = _conv3(widths[0], image_channels)

    def forward(self, latents: Tensor) -> Tensor:
        """Images, values mostly in [0, 1]."""
        hidden = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            hidden = level(hidden)
        return self.conv_out(functional.silu(self.norm_out(hidden)))


class VectorQuantizer(nn.Module):
    """A codebook `embedding.weight` `[V, C]` and the way to it from latents `[B, C, h, w]`."""

    def __init__(self, vocab_size: int, code_width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, code_width)
        nn.init.uniform_(self.embedding.weight, -1 / vocab_size, 1 / vocab_size)

    def nearest(self, latents: Tensor) -> Tensor:
        """Indices int64 `[B, h·w]` of the nearest codes in Euclidean distance, row by row; the lowest wins a tie.

        Always float32, with or without autocast: bfloat16 would pick other codes. One image at a time, so that no more
        than `[h·w, V]` distances are in memory and an image's codes do not depend on its batch mates.
        """
        with torch.autocast(latents.device.type, enabled=False):
            codes = self.embedding.weight.float()
            columns, offset = codes.t(), codes.square().sum(dim=1)
            rows = latents.flatten(2).transpose(1, 2).float()  # |row|² is the same for every code and left out
            return torch.stack([torch.addmm(offset, image, columns, alpha=-2).argmin(dim=1) for image in rows])

    def lookup(self, indices: Tensor) -> Tensor:
        """Codes `[B, C, h, w]` of indices `[B, h, w]`."""
        return self.embedding(indices).permute(0, 3, 1, 2)

    def forward(self, latents: Tensor, beta: float = 0.25) -> tuple[Tensor, Tensor]:
        """Quantised latents with a straight-through gradient, and the training loss (scalar).

        The loss is the mean squared distance between latents and codes, once as a pull on the latents and `beta` times
        as a pull on the codes. That weighting is the official port's; van den Oord et al. (2017) put `beta` on the
        other one.
        """
        indices = self.nearest(latents).view(len(latents), *latents.shape[2:])
        codes = self.lookup(indices)
        pull_on_latents = (codes.detach() - latents).square().mean()
        pull_on_codes = (codes - latents.detach()).square().mean()
        return latents + (codes - latents).detach(), pull_on_latents + beta * pull_on_codes


class _ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, plus a shortcut.

    Where the width changes, the shortcut is a 1×1 convolution of the branch's own output rather than of the input: a
    peculiarity of MaskGIT that its trained weights rely on.
    """

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.norm1 = _norm(in_width)
        self.conv1 = _conv3(in_width, width, bias=False)
        self.norm2 = _norm(width)
        self.conv2 = _conv3(width, width, bias=False)
        self.nin_shortcut = nn.Conv2d(width, width, 1, bias=False) if in_width != width else None

    def forward(self, hidden: Tensor) -> Tensor:
        branch = self.conv1(functional.silu(self.norm1(hidden)))
        branch = self.conv2(functional.silu(self.norm2(branch)))
        return branch + (hidden if self.nin_shortcut is None else self.nin_shortcut(branch))


class _Level(nn.Module):
    """The residual blocks of one resolution; with `upsample` the map is doubled after them."""

    def __init__(self, in_width: int, width: int, num_res_blocks: int, upsample: bool = False) -> None:
        super().__init__()
        self.block = nn.ModuleList(_ResBlock(width if index else in_width, width) for index in range(num_res_blocks))
        self.upsample = _Upsample(width) if upsample else None

    def forward(self, hidden: Tensor) -> Tensor:
        for block in self.block:
            hidden = block(hidden)
        return hidden if self.upsample is None else self.upsample(hidden)


class _Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _conv3(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv(functional.interpolate(hidden, scale_factor=2.0, mode="nearest"))


class _Middle(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1 = _ResBlock(width, width)
        self.block_2 = _ResBlock(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.block_2(self.block_1(hidden))


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(NUM_GROUPS, width, eps=_NORM_EPS)


def _conv3(in_width: int, width: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(in_width, width, 3, padding=1, bias=bias)
