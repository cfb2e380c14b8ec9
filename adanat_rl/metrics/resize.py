"""The two ways in which images reach the Inception network; distances compare only within one of them.

| convention | images | resize to 299 × 299 | range |
|---|---|---|---|
| `torch_fidelity` | 8 bit | TensorFlow 1's bilinear: pixel i of the input is at i, not at i + 1/2 | (x - 128) / 128 |
| `vendored` | [0, 1] as they come | plain bilinear with half-pixel centres, no antialiasing | 2x - 1 |

The first is that of the original FID code and of the torch-fidelity package, the second that of the copy which AdaNAT's
published code carries along. Layout: `[B, 3, H, W]`, any H and W. Both compute in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from adanat_rl.config.errors import UserError, nearest

TORCH_FIDELITY = "torch_fidelity"
VENDORED = "vendored"
CONVENTIONS = (TORCH_FIDELITY, VENDORED)

INPUT_SIZE = 299  # side of the network's input


def prepare(images: Tensor, convention: str) -> Tensor:
    """The network's input `[B, 3, 299, 299]` float32 under a convention.

    Args:
        images: `[B, 3, H, W]`, float in [0, 1] or uint8.

    Raises:
        ValueError: the images have another shape or dtype.
    """
    check_convention(convention)
    if images.dim() != 4 or images.shape[1] != 3:
        raise ValueError(f"images are {list(images.shape)}, expected [B, 3, H, W]")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}, expected uint8 or a float in [0, 1]")
    if convention == TORCH_FIDELITY:
        return resize_torch_fidelity(to_bytes(images))
    return resize_vendored(images.float() / 255 if images.dtype == torch.uint8 else images.float())


def check_convention(convention: str, key: str = "resize convention") -> None:
    """Refuses a name that is no convention.

    Raises:
        UserError: naming those that are.
    """
    if convention not in CONVENTIONS:
        hint = nearest(convention, CONVENTIONS)
        raise UserError(f"{key} is {convention!r}; accepted: {', '.join(CONVENTIONS)}{hint}")


def to_bytes(images: Tensor) -> Tensor:
    """The 8-bit image that a PNG would hold, uint8; floats in [0, 1] are rounded to the nearest level, not cut off."""
    if images.dtype == torch.uint8:
        return images
    return images.float().mul(255).round().clamp(0, 255).to(torch.uint8)


def resize_torch_fidelity(images: Tensor, size: int = INPUT_SIZE) -> Tensor:
    """TensorFlow 1's bilinear resize of uint8 images, then (x - 128) / 128.

    Output pixel j lies at j·H/size of the input; beyond the last input pixel its value goes on. The steps and their
    order are those of TensorFlow (along the width first, all in float32), so that even roundings agree.
    """
    x = images.float()
    top, bottom, weight = _neighbours(x.shape[2], size, x.device)
    left, right, weight_x = _neighbours(x.shape[3], size, x.device)
    start = x[..., left]
    x = start + (x[..., right] - start) * weight_x
    start = x[:, :, top]
    x = start + (x[:, :, bottom] - start) * weight[:, None]
    return (x - 128) / 128


def resize_vendored(images: Tensor, size: int = INPUT_SIZE) -> Tensor:
    """Plain bilinear resize of float images in [0, 1] (half-pixel centres, no antialiasing), then 2x - 1."""
    x = functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    return 2 * x - 1


def _neighbours(length: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Lower and upper neighbour `[size]` int64 of each output pixel on one axis, and the weight of the upper one."""
    scale = torch.tensor(length, dtype=torch.float32) / size
    position = torch.arange(size, dtype=torch.float32, device=device) * scale.to(device)
    lower = position.floor()
    return lower.long(), (lower.long() + 1).clamp_max(length - 1), position - lower
