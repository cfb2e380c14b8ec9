from __future__ import annotations

import numpy as np
import pytest
import torch

from adanat_rl.metrics.manifold import density_coverage, neighbour_radii, precision_recall


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(((x[:, None].astype(np.float64) - y[None].astype(np.float64)) ** 2).sum(-1))


def radii_by_sorting(x: np.ndarray, k: int) -> np.ndarray:
    return np.sort(distances(x, x), axis=1)[:, k]  # column 0 is the point itself


def covered(points: np.ndarray, centres: np.ndarray, k: int) -> float:
    """Share of `points` within the k-NN ball of at least one centre."""
    return float((distances(points, centres) <= radii_by_sorting(centres, k)).any(axis=1).mean())


def clouds(seed: int, num_real: int, num_generated: int, width: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    real = rng.normal(size=(num_real, width))
    return real.astype(np.float32), (0.7 * rng.normal(size=(num_generated, width)) + shift).astype(np.float32)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("sizes", "shift"), [((20, 15), 0.3), ((150, 90), 0.3), ((80, 200), 1.5), ((60, 60), 0.0)])
def test_precision_and_recall_agree_with_brute_force(sizes: tuple[int, int], shift: float, k: int) -> None:
    real, generated = clouds(0, *sizes, 4, shift)
    precision, recall = precision_recall(torch.from_numpy(real), torch.from_numpy(generated), k=k)
    assert precision == pytest.approx(covered(generated, real, k))
    assert recall == pytest.approx(covered(real, generated, k))
    assert 0 < precision < 1 or 0 < recall < 1  # the case says something


@pytest.mark.parametrize("size", [10, 200])
def test_radii_are_distances_to_the_third_neighbour(size: int) -> None:
    real, _ = clouds(1, size, 5, 6, 0)
    np.testing.assert_allclose(neighbour_radii(torch.from_numpy(real)), radii_by_sorting(real, 3), rtol=1e-4)


def test_radii_that_are_known_already_give_the_same_numbers() -> None:
    real, generated = (torch.from_numpy(x) for x in clouds(2, 60, 50, 3, 0.5))
    assert precision_recall(real, generated, neighbour_radii(real)) == precision_recall(real, generated)


def test_the_same_set_is_fully_covered_and_a_far_one_not_at_all() -> None:
    real, generated = (torch.from_numpy(x) for x in clouds(3, 60, 50, 3, 0.0))
    assert precision_recall(real, real) == (1, 1)
    assert precision_recall(real, generated + 1000) == (0, 0)


def test_a_collapsed_generator_has_full_precision_and_almost_no_recall() -> None:
    rng = np.random.default_rng(4)
    real = torch.from_numpy(rng.normal(size=(200, 3)).astype(np.float32))
    generated = real[:1] + 0.001 * torch.from_numpy(rng.normal(size=(100, 3)).astype(np.float32))
    precision, recall = precision_recall(real, generated)
    assert precision == 1
    assert recall <= 0.01


@pytest.mark.parametrize("offset", [30.0, 300.0])
def test_features_far_from_the_origin_cost_no_precision(offset: float) -> None:
    # |x|² + |y|² - 2xy cancels in float32 where features are large against their spread
    real, generated = (x + np.float32(offset) for x in clouds(5, 150, 120, 8, 0.2))
    precision, recall = precision_recall(torch.from_numpy(real), torch.from_numpy(generated))
    assert precision == pytest.approx(covered(generated, real, 3))
    assert recall == pytest.approx(covered(real, generated, 3))


def test_a_ball_includes_its_edge_as_in_the_paper() -> None:
    # More than k copies of one real image: their balls have radius 0 and hold that image, nothing else.
    real = torch.from_numpy(np.random.default_rng(6).normal(size=(200, 3)).astype(np.float32))
    precision, recall = precision_recall(real, real[:1].expand(100, -1))
    assert precision == 1
    assert recall == pytest.approx(1 / 200)


def by_pairs(real: np.ndarray, generated: np.ndarray, k: int) -> tuple[float, float]:
    """Density and coverage as their definitions read, one pair after the other."""
    hits = [[False] * len(generated) for _ in real]
    for i, centre in enumerate(real.astype(np.float64)):
        radius = sorted(np.sqrt(((other - centre) ** 2).sum()) for other in real.astype(np.float64))[k]
        for j, point in enumerate(generated.astype(np.float64)):
            hits[i][j] = bool(np.sqrt(((point - centre) ** 2).sum()) <= radius)
    return sum(map(sum, hits)) / (k * len(generated)), sum(map(any, hits)) / len(real)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("sizes", "shift"), [((20, 15), 0.3), ((50, 40), 0.3), ((30, 60), 1.0), ((8, 1), 0.0)])
def test_density_and_coverage_agree_with_their_definitions(sizes: tuple[int, int], shift: float, k: int) -> None:
    real, generated = clouds(7, *sizes, 3, shift)
    found = density_coverage(torch.from_numpy(real), torch.from_numpy(generated), k=k)
    assert found == pytest.approx(by_pairs(real, generated, k))


def test_a_dropped_mode_costs_coverage_and_outliers_cost_nothing_but_their_share() -> None:
    rng = np.random.default_rng(8)
    left, right = rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 50
    real = torch.from_numpy(np.concatenate([left, right]))
    both = torch.from_numpy(rng.normal(size=(200, 2)) + np.repeat([0, 50], 100)[:, None])
    density, coverage = density_coverage(real, both)
    assert density_coverage(real, both[:100])[1] == pytest.approx(coverage / 2, abs=0.05)
    outliers = torch.full((200, 2), 1e6, dtype=torch.float64)
    assert density_coverage(real, torch.cat([both, outliers])) == pytest.approx((density / 2, coverage))


def test_copies_of_the_real_images_are_dense_and_cover_all() -> None:
    real = torch.from_numpy(np.random.default_rng(9).normal(size=(60, 4)))
    density, coverage = density_coverage(real, real)
    assert coverage == 1
    assert density == pytest.approx(6 / 5)  # k neighbours and the image itself, over k
    assert density_coverage(real, real, neighbour_radii(real, 5)) == (density, coverage)
