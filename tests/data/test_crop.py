"""The paper's crop against an independent resampler: dense weight matrices written from the filters' definitions."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from adanat_rl.data.crop import centre_crop, decode, read_square, upright_rgb
from tests.data.files import encode, pixels


def box(x: np.ndarray) -> np.ndarray:
    return ((x > -0.5) & (x <= 0.5)).astype(float)


def keys_cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -1/2."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def weights(kernel, support: float, size_in: int, size_out: int) -> np.ndarray:
    """`[out, in]`: the kernel, as wide as an output pixel but not narrower than an input one, around its centre."""
    scale = size_in / size_out
    width = max(scale, 1)
    centre = (np.arange(size_out) + 0.5) * scale
    place = np.arange(size_in) + 0.5
    matrix = kernel((place[None] - centre[:, None]) / width)
    first = np.maximum(0, np.floor(centre - support * width + 0.5))
    last = np.minimum(size_in, np.floor(centre + support * width + 0.5))
    index = np.arange(size_in)
    matrix[(index[None] < first[:, None]) | (index[None] >= last[:, None])] = 0
    return matrix / matrix.sum(1, keepdims=True)


def resample(image: np.ndarray, kernel, support: float, height: int, width: int) -> list[np.ndarray]:
    """Rows first and columns first, each rounded to 8 bits: which it is depends on the version of Pillow."""
    sizes = {0: height, 1: width}
    results = []
    for axes in ((0, 1), (1, 0)):
        result = image.astype(float)
        for axis in axes:
            if result.shape[axis] != sizes[axis]:
                matrix = weights(kernel, support, result.shape[axis], sizes[axis])
                result = np.moveaxis(np.tensordot(matrix, result, (1, axis)), 0, axis)
                result = np.clip(np.floor(result + 0.5), 0, 255)
        results.append(result)
    return results


def expected_crops(image: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """`[3, size, size]` of `[H, W, 3]`, for every choice of the order of rows and columns."""
    height, width = image.shape[:2]
    if min(height, width) >= 2 * size:
        for half in resample(image, box, 0.5, height // 2, width // 2):
            yield from expected_crops(half, size)
        return
    scale = size / min(height, width)
    height, width = round(height * scale), round(width * scale)
    top, left = (height - size) // 2, (width - size) // 2
    for result in resample(image, keys_cubic, 2, height, width):
        yield result[top : top + size, left : left + size].transpose(2, 0, 1)


def check(data: bytes, rgb: np.ndarray, size: int, tolerance: int = 1) -> None:
    """Equal up to one level, in rare pixels: Pillow sums in fixed point."""
    crop = read_square(data, size)
    assert crop.shape == (3, size, size)
    assert crop.dtype == np.uint8
    differences = [np.abs(crop.astype(int) - expected) for expected in expected_crops(rgb, size)]
    best = min(differences, key=lambda difference: difference.mean())
    assert best.max() <= tolerance
    assert (best > 0).mean() < 0.02


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (64, 64, 64),
        (65, 64, 64),
        (131, 97, 32),
        (97, 257, 16),
        (63, 200, 31),
        (33, 47, 32),
        (300, 128, 64),
        (127, 127, 64),
    ],
)
def test_odd_sizes_are_halved_resized_and_cropped(height: int, width: int, size: int) -> None:
    rgb = pixels(height, width)
    check(encode(rgb), rgb, size)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (3, 2), (5, 9)])
def test_tiny_images_are_enlarged(height: int, width: int) -> None:
    rgb = pixels(height, width)
    check(encode(rgb), rgb, 16)


def test_an_image_of_the_right_size_is_untouched() -> None:
    rgb = pixels(32, 32)
    assert np.array_equal(read_square(encode(rgb), 32), rgb.transpose(2, 0, 1))


def test_halving_is_not_one_big_resize() -> None:
    rgb = pixels(160, 160)
    straight = np.asarray(Image.fromarray(rgb).resize((32, 32), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.abs(read_square(encode(rgb), 32).astype(int) - straight).max() > 3


def test_grey_images_have_their_value_in_all_channels() -> None:
    grey = pixels(41, 57, 1)
    check(encode(grey), np.repeat(grey[..., None], 3, -1), 20)
    bits = Image.fromarray(grey).point(lambda v: 255 * (v > 128)).convert("1")
    check(encode(bits), np.repeat(np.where(np.asarray(bits), 255, 0)[..., None], 3, -1), 20)


def test_cmyk_is_ink_on_white() -> None:
    ink = pixels(41, 57, 4)
    paper = 255 - ink.astype(float)
    rgb = np.floor(paper[..., :3] * paper[..., 3:] / 255 + 0.5)
    check(encode(Image.fromarray(ink, "CMYK"), "TIFF"), rgb, 41, tolerance=2)  # two roundings in the conversion


def test_an_inverted_cmyk_jpeg_of_adobe_is_not_a_negative() -> None:
    white = Image.new("CMYK", (20, 20), (0, 0, 0, 0))
    data = encode(white, "JPEG")
    assert b"Adobe" in data
    assert read_square(data, 16).min() > 250


def test_palette_images_show_their_colours() -> None:
    palette = np.random.default_rng(0).integers(0, 256, (7, 3), np.uint8)
    index = np.random.default_rng(1).integers(0, 7, (37, 44), np.uint8)
    image = Image.fromarray(index, "P")
    image.putpalette(palette.tobytes())
    check(encode(image), palette[index], 20)
    check(encode(image, "GIF"), palette[index], 20)


def test_a_transparent_palette_entry_is_white() -> None:
    index = np.random.default_rng(1).integers(0, 3, (20, 20), np.uint8)
    image = Image.fromarray(index, "P")
    image.putpalette(bytes([0, 0, 0, 200, 10, 10, 10, 200, 10]))
    colours = np.array([[255, 255, 255], [200, 10, 10], [10, 200, 10]])
    check(encode(image, transparency=0), colours[index], 20)


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_16_bits_are_scaled_not_cut_off(byteorder: str) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (33, 40)).astype(np.uint16)
    rgb = np.repeat(np.floor(deep / 65535 * 255 + 0.5)[..., None], 3, -1)
    if byteorder == "<":
        check(encode(Image.fromarray(deep)), rgb, 20)
    else:
        image = Image.frombytes("I;16B", (40, 33), deep.astype(">u2").tobytes())
        check(encode(image, "TIFF"), rgb, 20)


def test_float_images_in_the_unit_interval_are_accepted_and_others_refused() -> None:
    values = np.random.default_rng(0).random((20, 20)).astype(np.float32)
    rgb = np.repeat(np.floor(values * 255 + 0.5)[..., None], 3, -1)
    check(encode(Image.fromarray(values), "TIFF"), rgb, 20)
    with pytest.raises(ValueError, match=r"expected \[0, 1\]"):
        read_square(encode(Image.fromarray(values * 300), "TIFF"), 20)


def test_integers_beyond_16_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 16 bits"):
        upright_rgb(Image.fromarray(np.array([[0, 70000]], np.int32)))


def test_transparent_parts_are_white() -> None:
    rgba = pixels(30, 41, 4)
    rgba[:10, :, 3] = 0
    alpha = rgba[..., 3:] / 255
    check(encode(rgba), np.floor(rgba[..., :3] * alpha + 255 * (1 - alpha) + 0.5), 30, tolerance=2)
    grey = pixels(30, 41, 2)
    alpha = grey[..., 1:] / 255
    rgb = np.repeat(np.floor(grey[..., :1] * alpha + 255 * (1 - alpha) + 0.5), 3, -1)
    check(encode(Image.fromarray(grey, "LA")), rgb, 30, tolerance=2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_exif_says(orientation: int) -> None:
    """A viewer undoes `orientation`: rows of the file are sides of the scene (EXIF 2.3, table of tag 0x0112)."""
    scene = pixels(24, 36)
    stored = {
        1: scene,
        2: scene[:, ::-1],
        3: scene[::-1, ::-1],
        4: scene[::-1],
        5: scene.transpose(1, 0, 2),
        6: scene.transpose(1, 0, 2)[::-1],  # the 0th row is the right side
        7: scene[::-1, ::-1].transpose(1, 0, 2),
        8: scene.transpose(1, 0, 2)[:, ::-1],  # the 0th row is the left side, from below
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(np.ascontiguousarray(stored), exif=exif)
    assert np.array_equal(np.asarray(upright_rgb(decode(data))), scene)
    check(data, scene, 24)


def test_a_broken_exif_block_does_not_cost_the_image() -> None:
    rgb = pixels(20, 20)
    data = encode(rgb, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    check(data, rgb, 20)


@pytest.mark.parametrize("damage", ["cut", "empty", "no image", "header only"])
def test_damaged_files_raise(damage: str) -> None:
    whole = encode(pixels(64, 64), "JPEG")
    data = {"cut": whole[: len(whole) // 2], "empty": b"", "no image": b"<html>", "header only": whole[:20]}[damage]
    with pytest.raises(Exception):  # noqa: B017 (whatever Pillow says)
        read_square(data, 32)


def test_a_strip_too_long_for_memory_is_refused() -> None:
    buffer = io.BytesIO()
    Image.new("L", (20000, 1)).save(buffer, "PNG")
    with pytest.raises(ValueError, match="too long and thin"):
        centre_crop(upright_rgb(decode(buffer.getvalue())), 256)
