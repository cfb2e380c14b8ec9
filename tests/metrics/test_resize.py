from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adanat_rl.config.errors import UserError
from adanat_rl.metrics.resize import (
    INPUT_SIZE,
    TORCH_FIDELITY,
    VENDORED,
    prepare,
    resize_torch_fidelity,
    resize_vendored,
    to_bytes,
)

# height and width of the input, side of the output
SIZES = [(17, 31, 29), (31, 17, 13), (7, 300, 23), (1, 1, 5), (1, 6, 4), (29, 29, 29), (64, 45, 33)]


def axis_tensorflow(length: int, size: int) -> list[tuple[int, int, float]]:
    """Neighbours and weight of each output position; pixel i is at i."""
    scale = np.float32(length) / np.float32(size)
    rows = []
    for j in range(size):
        position = np.float32(j) * scale
        low = math.floor(position)
        rows.append((low, min(low + 1, length - 1), position - np.float32(low)))
    return rows


def axis_half_pixel(length: int, size: int) -> list[tuple[int, int, float]]:
    """Neighbours and weight of each output position; pixel i is at i + 1/2."""
    rows = []
    for j in range(size):
        position = max((j + 0.5) * length / size - 0.5, 0.0)
        low = min(math.floor(position), length - 1)
        rows.append((low, min(low + 1, length - 1), position - low))
    return rows


def by_loop(image: np.ndarray, size: int, axis) -> np.ndarray:
    """Bilinear resize of `[C, H, W]`, one output pixel after the other."""
    result = np.zeros((image.shape[0], size, size), np.float64)
    across, down = axis(image.shape[2], size), axis(image.shape[1], size)
    for i, (top, bottom, v) in enumerate(down):
        for j, (left, right, u) in enumerate(across):
            upper = image[:, top, left] * (1 - u) + image[:, top, right] * u
            lower = image[:, bottom, left] * (1 - u) + image[:, bottom, right] * u
            result[:, i, j] = upper * (1 - v) + lower * v
    return result


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (3, height, width)).astype(np.uint8)


@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_tensorflows_resize_agrees_with_a_loop_over_pixels(height: int, width: int, size: int) -> None:
    pixels = image(height, width)
    expected = (by_loop(pixels.astype(np.float64), size, axis_tensorflow) - 128) / 128
    found = resize_torch_fidelity(torch.from_numpy(pixels)[None], size)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_plain_resize_agrees_with_a_loop_over_pixels(height: int, width: int, size: int) -> None:
    pixels = image(height, width).astype(np.float32) / 255
    found = resize_vendored(torch.from_numpy(pixels)[None], size)
    np.testing.assert_allclose(found[0].numpy(), 2 * by_loop(pixels, size, axis_half_pixel) - 1, atol=5e-5)


def test_full_size_inputs_agree_with_a_loop_over_pixels() -> None:
    pixels = image(113, 257)
    batch = torch.from_numpy(pixels)[None]
    found = prepare(batch, TORCH_FIDELITY)
    assert found.shape == (1, 3, INPUT_SIZE, INPUT_SIZE)
    expected = by_loop(pixels.astype(np.float64), INPUT_SIZE, axis_tensorflow)
    np.testing.assert_allclose(found[0].numpy() * 128 + 128, expected, atol=1e-4)
    found = prepare(batch, VENDORED)
    expected = by_loop(pixels / 255, INPUT_SIZE, axis_half_pixel)
    np.testing.assert_allclose(found[0].numpy(), 2 * expected - 1, atol=1e-4)


def test_roundings_are_those_of_float32_in_tensorflows_order() -> None:
    pixels = image(5, 11)
    found = resize_torch_fidelity(torch.from_numpy(pixels)[None], 7)[0].numpy()
    for i, (top, bottom, v) in enumerate(axis_tensorflow(5, 7)):
        for j, (left, right, u) in enumerate(axis_tensorflow(11, 7)):
            x = pixels.astype(np.float32)
            upper = x[:, top, left] + (x[:, top, right] - x[:, top, left]) * u
            lower = x[:, bottom, left] + (x[:, bottom, right] - x[:, bottom, left]) * u
            value = upper + (lower - upper) * v
            np.testing.assert_array_equal(found[:, i, j], (value - np.float32(128)) / np.float32(128))


def test_an_image_of_the_networks_size_is_not_moved() -> None:
    pixels = torch.from_numpy(image(INPUT_SIZE, INPUT_SIZE))[None]
    assert torch.equal(prepare(pixels, TORCH_FIDELITY), (pixels.float() - 128) / 128)
    torch.testing.assert_close(prepare(pixels, VENDORED), pixels / 255 * 2 - 1)


def test_floats_become_the_nearest_of_256_levels() -> None:
    values = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 127.5001 / 255, 1.0, 1.3, -0.2])
    assert to_bytes(values).tolist() == [0, 0, 1, 128, 255, 255, 0]
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(levels / 255), levels)


def test_float_and_8_bit_images_give_the_same_input() -> None:
    pixels = torch.from_numpy(image(19, 23))[None]
    for convention in (TORCH_FIDELITY, VENDORED):
        assert torch.equal(prepare(pixels, convention), prepare(pixels / 255, convention))


def test_an_unknown_convention_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'torch-fidelity'; accepted: torch_fidelity, vendored \(did you mean"):
        prepare(torch.zeros(1, 3, 8, 8), "torch-fidelity")


@pytest.mark.parametrize("images", [torch.zeros(2, 1, 8, 8), torch.zeros(3, 8, 8), torch.zeros(1, 3, 8, 8).long()])
def test_what_is_no_batch_of_images_is_refused(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected"):
        prepare(images, TORCH_FIDELITY)
