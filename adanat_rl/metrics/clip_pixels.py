"""Images as CLIP, BLIP and DINOv2 expect them: Pillow's bicubic resize to a short side, centre crop, normalisation.

Pillow resizes 8-bit images in fixed-point arithmetic and rounds after each of its two passes. Here both passes are
matrix products of whole numbers in float64, so the result is the same to the bit, on any device and in one batch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_PRECISION_BITS = 22  # of Pillow's fixed-point weights
_SUPPORT = 2.0  # half width of the cubic kernel
_SHARPNESS = -0.5  # Pillow's cubic parameter


def clip_pixels(
    images: Tensor, size: int, mean: tuple[float, ...] = CLIP_MEAN, std: tuple[float, ...] = CLIP_STD
) -> Tensor:
    """The input of a vision tower.

    Args:
        images: `[B, 3, H, W]` or `[B, 1, H, W]` in [0, 1], taken as 8-bit images; grey ones get three equal channels.
        size: H' = W' of the result. mean, std: per channel.

    Returns:
        Float32 `[B, 3, size, size]`, normalised.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images of shape {list(images.shape)}, expected [B, 3, H, W] or [B, 1, H, W]")
    pixels = (images.double().clamp(0, 1) * 255).round()
    height, width = short_side_size(pixels.shape[2], pixels.shape[3], size)
    pixels = centre_crop(resize_bicubic(pixels, height, width), size)
    scaled = (pixels.float() / 255).expand(-1, 3, -1, -1)
    channels = [torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (mean, std)]
    return (scaled - channels[0]) / channels[1]


def short_side_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width once the shorter side is `size`; the longer one is rounded down."""
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def centre_crop(images: Tensor, size: int) -> Tensor:
    """The middle `[..., size, size]`; of two middles the one that Python's rounding to even picks."""
    top = round((images.shape[-2] - size) / 2)
    left = round((images.shape[-1] - size) / 2)
    return images[..., top : top + size, left : left + size]


def resize_bicubic(pixels: Tensor, height: int, width: int) -> Tensor:
    """What Pillow's `resize(..., BICUBIC)` makes of 8-bit images.

    Args:
        pixels: `[..., H, W]` float64, whole numbers in [0, 255].

    Returns:
        `[..., height, width]` float64, whole numbers in [0, 255].
    """
    across = torch.from_numpy(bicubic_weights(pixels.shape[-1], width)).to(pixels.device)
    down = torch.from_numpy(bicubic_weights(pixels.shape[-2], height)).to(pixels.device)
    return _to_8_bit(down @ _to_8_bit(pixels @ across.T))


def bicubic_weights(size_in: int, size_out: int) -> np.ndarray:
    """Pillow's fixed-point weights: float64 `[size_out, size_in]`, whole numbers, rows sum to about 2²².

    When an image shrinks the kernel widens with it, so that no pixel is left out.
    """
    scale = size_in / size_out
    stretch = max(scale, 1.0)
    centre = (np.arange(size_out)[:, None] + 0.5) * scale
    first = np.maximum(np.trunc(centre - _SUPPORT * stretch + 0.5), 0)
    last = np.minimum(np.trunc(centre + _SUPPORT * stretch + 0.5), size_in)
    index = np.arange(size_in)[None]
    weights = _cubic((index - centre + 0.5) / stretch)
    weights[(index < first) | (index >= last)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    fixed = weights * 2**_PRECISION_BITS
    return np.trunc(fixed + np.where(fixed < 0, -0.5, 0.5))


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    a = _SHARPNESS
    inner = ((a + 2) * x - (a + 3)) * x**2 + 1
    outer = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, inner, np.where(x < _SUPPORT, outer, 0.0))


def _to_8_bit(sums: Tensor) -> Tensor:
    return ((sums + 2 ** (_PRECISION_BITS - 1)) / 2**_PRECISION_BITS).floor().clamp(0, 255)
