"""The rule by which images of the parity data are made."""

from __future__ import annotations

import numpy as np

from tests.contracts.fill import noise


def image_rule(name: str, shape: tuple[int, int, int, int]) -> np.ndarray:
    """Images float32 `[B, 3, H, W]` in [0, 1]: blocks of 16 × 16 pixels under fine noise."""
    batch_size, channels, height, width = shape
    coarse = noise(f"{name}.coarse", (batch_size, channels, height // 16, width // 16))
    coarse = coarse.repeat(16, axis=2).repeat(16, axis=3)
    fine = noise(f"{name}.fine", shape)
    return (np.float32(0.5) + np.float32(0.2) * coarse + np.float32(0.05) * fine).clip(0, 1)
