"""From an image file of any kind to the paper's square: upright, RGB, halved, resized, cropped.

The crop is that of the paper (PAPER_FACTS, "ImageNet images") and of ADM before it: halvings with a box filter while
both sides stay at least as long as wanted, bicubic to the short side, centre. Everything runs on 8 bits a channel.
"""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
from PIL import Image

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MAX_RESIZED_PIXELS = 2**26  # of a strip that is wider than it is high beyond reason


def decode(data: bytes) -> Image.Image:
    """The whole image of a file's bytes; of an animation, the first picture.

    Raises:
        Exception: of many kinds, whatever Pillow finds wrong.
    """
    image = Image.open(BytesIO(data))
    image.load()
    return image


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB as it is meant to be seen.

    Turned as EXIF says; transparent parts over white; CMYK as Pillow converts it. 16 bits of grey are scaled
    to 8; of colour Pillow keeps the high byte, at most one level beside.

    Raises:
        ValueError: numbers without a known range, such as a float image beyond [0, 1].
    """
    turn = _UPRIGHT.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bits(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def centre_crop(image: Image.Image, size: int) -> np.ndarray:
    """The centre of an RGB image, uint8 `[size, size, 3]`.

    Raises:
        ValueError: an image so long and thin that its resized strip would not fit into memory.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    if width * height > max(_MAX_RESIZED_PIXELS, size * size):
        raise ValueError(f"{image.width}×{image.height} pixels is too long and thin for a square of {size}")
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    top, left = (height - size) // 2, (width - size) // 2
    return pixels[top : top + size, left : left + size]


def read_square(data: bytes, size: int) -> np.ndarray:
    """A file's bytes to the crop, uint8 `[3, size, size]`."""
    return np.ascontiguousarray(centre_crop(upright_rgb(decode(data)), size).transpose(2, 0, 1))


def _orientation(image: Image.Image) -> int:
    """What EXIF says, 1 (upright) if it says nothing or cannot be read: the picture itself may be fine."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, OSError, struct.error):
        return 1


def _to_8_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Grey values uint8 of 16-bit ones (0 … 65535) or floats in [0, 1], rounded."""
    low, high = values.min(), values.max()
    if mode == "F":
        if not (low >= 0 and high <= 1):
            raise ValueError(f"float values from {low:g} to {high:g}, expected [0, 1]")
        return np.floor(values * 255 + 0.5).astype(np.uint8)
    if low < 0 or high > 65535:
        raise ValueError(f"integer values from {low} to {high}, expected 16 bits")
    return ((values.astype(np.int64) + 128) // 257).astype(np.uint8)
