from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adanat_rl.data.distortion import distorted

ANGLE, SLANT, WIDTH, HEIGHT, RIGHT, DOWN = range(6)  # in the order in which they are drawn


def with_draws(images: Tensor, draws: dict[int, float], monkeypatch: pytest.MonkeyPatch, strength: float = 1) -> Tensor:
    """Distorted by what was drawn, each in -1 … 1."""
    chosen = torch.full((6, len(images)), 0.5)
    for row, value in draws.items():
        chosen[row] = (value + 1) / 2
    monkeypatch.setattr(torch, "rand", lambda *size: chosen)
    return distorted(images, strength)


@pytest.fixture
def blob() -> Tensor:
    """A smooth spot right of the middle, `[1, 1, 25, 25]`."""
    axis = torch.arange(25.0)
    return torch.exp(-(((axis[None] - 16) ** 2 + (axis[:, None] - 12) ** 2) / 8))[None, None]


def centre(image: Tensor) -> tuple[float, float]:
    """Column and row of the centre of mass."""
    ink, axis = image[0, 0] / image.sum(), torch.arange(25.0)
    return float((ink.sum(dim=0) * axis).sum()), float((ink.sum(dim=1) * axis).sum())


def test_without_strength_images_stay_and_nothing_is_drawn() -> None:
    images, before = torch.rand(3, 1, 8, 8), torch.get_rng_state()
    assert distorted(images, 0) is images
    assert torch.equal(torch.get_rng_state(), before)


def test_each_image_gets_a_distortion_of_its_own_and_stays_in_range() -> None:
    images = torch.rand(1, 1, 8, 8).round().expand(64, -1, -1, -1)
    torch.manual_seed(1)
    found = distorted(images, 1)
    assert found.shape == images.shape
    assert found.min() >= 0
    assert found.max() <= 1
    assert len({tuple(one.flatten().tolist()) for one in found}) == 64
    torch.manual_seed(1)
    assert torch.equal(distorted(images, 1), found)


def test_a_shift_of_eight_percent_is_two_of_25_pixels(blob: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    found = with_draws(blob, {RIGHT: 1}, monkeypatch)
    torch.testing.assert_close(found[..., :-2], blob[..., 2:], atol=1e-5, rtol=0)
    assert not found[..., -2:].any(), "what comes in is black"
    half = with_draws(blob, {DOWN: -1}, monkeypatch, strength=0.5)
    torch.testing.assert_close(half[..., 1:, :], blob[..., :-1, :], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("draws", "expected"),
    [
        ({ANGLE: 1}, (12 + 4 * math.cos(math.radians(15)), 12 - 4 * math.sin(math.radians(15)))),
        ({WIDTH: 1}, (12 + 4 / 1.15, 12)),
        ({WIDTH: -1}, (12 + 4 / 0.85, 12)),
        ({HEIGHT: 1}, (16, 12)),
        ({SLANT: 1}, (16, 12)),
    ],
)
def test_a_spot_goes_where_geometry_says(
    draws: dict[int, float], expected: tuple[float, float], blob: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert centre(with_draws(blob, draws, monkeypatch)) == pytest.approx(expected, abs=0.05)
