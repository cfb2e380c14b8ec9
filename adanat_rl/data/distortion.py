"""Distorted copies of small images, so that a network sees more of them: turned, scaled, slanted, shifted."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_ANGLE = math.radians(15)
_SCALE, _SLANT = 0.15, 0.20
_SHIFT = 0.08  # of the image's side


def distorted(images: Tensor, strength: float) -> Tensor:
    """Each image under an affine map of its own; draws from torch's global generator.

    At strength 1 an image is turned by up to 15°, each of its sides scaled by up to 15 %, slanted by up to .2 and
    shifted by up to 8 % of the side, all drawn evenly; other strengths scale these ranges. What comes in from outside
    is black.

    Args:
        images: float32 `[B, C, H, W]` in [0, 1]. strength: ≥ 0; 0 gives the images themselves and draws nothing.
    """
    if strength == 0:
        return images
    angle, slant, *others = (strength * (2 * torch.rand(6, len(images)) - 1)).unbind()
    scales = [1 + _SCALE * draw for draw in others[:2]]
    shifts = [2 * _SHIFT * draw for draw in others[2:]]  # the grid goes from -1 to 1
    cos, sin = torch.cos(_ANGLE * angle), torch.sin(_ANGLE * angle)
    turned = torch.stack([torch.stack([cos, -sin]), torch.stack([sin, cos])])
    slanted = torch.stack([torch.stack([scales[0], _SLANT * slant]), torch.stack([torch.zeros_like(slant), scales[1]])])
    linear = torch.einsum("ijb,jkb->bik", turned, slanted)
    maps = torch.cat([linear, torch.stack(shifts, dim=1)[:, :, None]], dim=2)
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bicubic", padding_mode="zeros", align_corners=False).clamp(0, 1)
