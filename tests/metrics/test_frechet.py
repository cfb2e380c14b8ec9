from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg

from adanat_rl.metrics.frechet import FrechetDistance


def by_matrix_root(real: np.ndarray, generated: np.ndarray) -> float:
    """The distance with scipy's matrix square root."""
    root = linalg.sqrtm(np.cov(real.T) @ np.cov(generated.T))
    shift = real.mean(0) - generated.mean(0)
    return float(shift @ shift + np.trace(np.cov(real.T)) + np.trace(np.cov(generated.T)) - 2 * np.trace(root).real)


def correlated(seed: int, count: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + rng.normal(size=width)


@pytest.mark.parametrize(("num_real", "num_generated", "width"), [(300, 200, 12), (50, 2000, 5), (120, 90, 30)])
def test_distance_agrees_with_the_matrix_square_root(num_real: int, num_generated: int, width: int) -> None:
    real, generated = correlated(0, num_real, width), correlated(1, num_generated, width)
    distance = FrechetDistance(torch.from_numpy(real))
    assert distance(torch.from_numpy(generated)) == pytest.approx(by_matrix_root(real, generated), rel=1e-8)


def test_a_shift_adds_its_squared_length() -> None:
    real = torch.from_numpy(correlated(2, 400, 6))
    shift = torch.tensor([1.0, -2.0, 0.0, 0.5, 0.0, 0.0], dtype=torch.float64)
    assert FrechetDistance(real)(real + shift) == pytest.approx(5.25, rel=1e-6)


def test_scaling_adds_the_squared_difference_of_the_spreads() -> None:
    real = torch.randn(500, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    real -= real.mean(dim=0)
    expected = (3 - 1) ** 2 * np.trace(np.cov(real.T.numpy()))
    assert FrechetDistance(real)(3 * real) == pytest.approx(expected, rel=1e-6)


def test_a_set_has_distance_zero_to_itself() -> None:
    real = torch.from_numpy(correlated(3, 400, 8)).float()
    assert FrechetDistance(real)(real) == pytest.approx(0, abs=1e-6)


def test_a_large_offset_costs_no_precision() -> None:
    real, generated = correlated(4, 300, 6), correlated(5, 300, 6)
    far = FrechetDistance(torch.from_numpy(real + 1e4))(torch.from_numpy(generated + 1e4))
    assert far == pytest.approx(by_matrix_root(real, generated), rel=1e-5)


def test_one_object_measures_many_sets_without_remembering_them() -> None:
    real, first, second = (torch.from_numpy(correlated(seed, 100, 4)) for seed in (0, 1, 2))
    distance = FrechetDistance(real)
    expected = distance(first)
    assert distance(second) != expected
    assert distance(first) == expected


def test_order_of_the_images_does_not_matter() -> None:
    real, generated = (torch.from_numpy(correlated(seed, 100, 4)) for seed in (0, 1))
    assert FrechetDistance(real)(generated.flip(0)) == pytest.approx(FrechetDistance(real)(generated), rel=1e-10)
