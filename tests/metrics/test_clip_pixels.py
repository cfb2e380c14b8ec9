from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from adanat_rl.metrics.clip_pixels import centre_crop, clip_pixels, resize_bicubic, short_side_size


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Uint8 `[H, W, 3]`: noise, half of it black and white, where rounding and overshoot show."""
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.where(generator.random((height, width, 1)) < 0.5, image, image // 128 * 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "target"),
    [((256, 256), (224, 224)), ((512, 512), (224, 224)), ((31, 97), (32, 45)), ((5, 3), (64, 40)), ((1, 1), (7, 7))],
)
def test_resize_equals_pillow_to_the_bit(size: tuple[int, int], target: tuple[int, int]) -> None:
    image = random_image(*size)
    expected = np.asarray(Image.fromarray(image).resize((target[1], target[0]), Image.Resampling.BICUBIC))
    found = resize_bicubic(torch.from_numpy(image).permute(2, 0, 1).double(), *target)
    np.testing.assert_array_equal(found.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("size", [(256, 256), (240, 301), (64, 48)])
def test_pixels_are_those_of_pillow_cropped_and_normalised(size: tuple[int, int]) -> None:
    image = random_image(*size)
    height, width = size
    short = min(size)
    new = (int(224 * height / short), int(224 * width / short))
    resized = np.asarray(Image.fromarray(image).resize((new[1], new[0]), Image.Resampling.BICUBIC))
    top, left = round((new[0] - 224) / 2), round((new[1] - 224) / 2)
    crop = resized[top : top + 224, left : left + 224].astype(np.float64) / 255
    mean, std = (0.5, 0.25, 0.125), (0.5, 2.0, 4.0)
    expected = ((crop - mean) / std).transpose(2, 0, 1)
    images = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    found = clip_pixels(images, 224, mean, std)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-6)


def test_sides_are_rounded_down_and_crops_are_central() -> None:
    assert short_side_size(300, 260, 224) == (258, 224)
    assert short_side_size(100, 299, 224) == (224, 669)
    assert centre_crop(torch.arange(7)[None].expand(3, 7), 3)[0].tolist() == [2, 3, 4]
    assert centre_crop(torch.arange(6)[None].expand(3, 6), 3)[0].tolist() == [2, 3, 4]


def test_grey_images_get_three_equal_channels() -> None:
    grey = torch.linspace(0, 1, 40 * 40).reshape(1, 1, 40, 40)
    torch.testing.assert_close(clip_pixels(grey, 32), clip_pixels(grey.expand(-1, 3, -1, -1), 32))


def test_each_image_is_processed_alone() -> None:
    images = torch.stack([torch.from_numpy(random_image(50, 60, seed)).permute(2, 0, 1) / 255 for seed in range(3)])
    together = clip_pixels(images, 32)
    for row in range(3):
        assert torch.equal(clip_pixels(images[row : row + 1], 32)[0], together[row])


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images of shape \[1, 4, 8, 8\]"):
        clip_pixels(torch.zeros(1, 4, 8, 8), 32)
