"""Images of a generator as frames that people can look at."""

from __future__ import annotations

import numpy as np


def rgb_frames(images: np.ndarray, frame_size: int) -> np.ndarray:
    """Enlarges images by whole factors, pixels kept as squares.

    Args:
        images: `[B, C, H, W]` float in [0, 1], C = 1 or 3.
        frame_size: least height in pixels.

    Returns:
        uint8 `[B, H', W', 3]`.
    """
    factor = max(1, -(-frame_size // images.shape[2]))
    pixels = (images.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    pixels = pixels.repeat(factor, axis=1).repeat(factor, axis=2)
    return pixels if pixels.shape[3] == 3 else pixels.repeat(3, axis=3)
