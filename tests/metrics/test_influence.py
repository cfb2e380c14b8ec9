from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg

from adanat_rl.config.errors import UserError
from adanat_rl.metrics.influence import FrechetInfluence, RunningMoments, root_trace_change
from adanat_rl.metrics.statistics import FeatureStatistics, FrechetReference

Moments = tuple[np.ndarray, np.ndarray]


def correlated(seed: int, count: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) / width**0.5 + 0.3 * rng.normal(size=width)


def moments(rows: np.ndarray) -> Moments:
    return rows.mean(axis=0), np.cov(rows.T).reshape(rows.shape[1], -1)


def statistics(rows: np.ndarray, convention: str = "") -> FeatureStatistics:
    mean, covariance = map(torch.from_numpy, moments(rows))
    return FeatureStatistics(mean, covariance, convention)


def running_of(rows: np.ndarray, decay: float) -> RunningMoments:
    return RunningMoments(statistics(rows), decay)


def distance(real: np.ndarray, rows: np.ndarray, before: np.ndarray | None = None, decay: float = 0.0) -> float:
    """The distance by singular values of stacked data, of which rows and earlier rows make a weighted covariance."""
    mean, covariance = moments(real)
    values, vectors = np.linalg.eigh(covariance)
    centred = (rows - rows.mean(axis=0)) / (len(rows) - 1) ** 0.5
    ours = rows.mean(axis=0)
    if before is not None:
        early = (before - before.mean(axis=0)) / (len(before) - 1) ** 0.5
        between = (decay * (1 - decay)) ** 0.5 * (before.mean(axis=0) - ours)
        centred = np.concatenate([(1 - decay) ** 0.5 * centred, decay**0.5 * early, between[None]])
        ours = decay * before.mean(axis=0) + (1 - decay) * ours
    shared = np.linalg.svd(centred @ (vectors * values.clip(0) ** 0.5), compute_uv=False).sum()
    return float(((ours - mean) ** 2).sum() + covariance.trace() + (centred**2).sum() - 2 * shared)


def brute_force(real: np.ndarray, rows: np.ndarray, before: np.ndarray | None = None, decay: float = 0.0) -> np.ndarray:
    whole = distance(real, rows, before, decay)
    return np.array([distance(real, np.delete(rows, row, axis=0), before, decay) - whole for row in range(len(rows))])


def assert_equal(influence: torch.Tensor, expected: np.ndarray) -> None:
    assert influence.dtype == torch.float64
    np.testing.assert_allclose(influence.numpy(), expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max())


SHAPES = [(64, 64), (100, 12), (512, 48), (20, 48), (63, 64), (64, 63), (65, 64), (4, 30), (3, 2), (5, 1), (3, 1)]


@pytest.mark.parametrize(("count", "width"), SHAPES)
def test_influence_is_what_leaving_each_row_out_changes(count: int, width: int) -> None:
    real, rows = correlated(0, 500, width), correlated(1, count, width)
    influence = FrechetInfluence(statistics(real)).influence(torch.from_numpy(rows))
    assert_equal(influence, brute_force(real, rows))


@pytest.mark.parametrize("decay", [0.05, 0.5, 0.95])
@pytest.mark.parametrize(("count", "width"), [(64, 64), (100, 12), (20, 48), (4, 30), (3, 1)])
def test_with_running_moments_too(count: int, width: int, decay: float) -> None:
    real, rows, before = correlated(0, 500, width), correlated(1, count, width), correlated(2, 300, width)
    influence = FrechetInfluence(statistics(real)).influence(torch.from_numpy(rows), running_of(before, decay))
    assert_equal(influence, brute_force(real, rows, before, decay))


def test_running_moments_of_few_images_may_lack_directions() -> None:
    real, rows, before = correlated(0, 500, 40), correlated(1, 10, 40), correlated(2, 6, 40)
    influence = FrechetInfluence(statistics(real)).influence(torch.from_numpy(rows), running_of(before, 0.5))
    # a covariance of 6 images gives its missing directions away to about the root of the rounding error
    np.testing.assert_allclose(influence.numpy(), brute_force(real, rows, before, 0.5), rtol=1e-6, atol=1e-6)


def test_a_weight_of_zero_is_no_running_moments() -> None:
    real, rows, before = correlated(0, 500, 12), correlated(1, 30, 12), correlated(2, 300, 12)
    frechet = FrechetInfluence(statistics(real))
    plain = frechet.influence(torch.from_numpy(rows))
    assert_equal(frechet.influence(torch.from_numpy(rows), running_of(before, 0.0)), plain.numpy())


def test_influence_agrees_with_the_matrix_square_root() -> None:
    real, rows = correlated(3, 300, 10), correlated(4, 80, 10)

    def by_matrix_root(sample: np.ndarray) -> float:
        (m, s), (n, g) = moments(real), moments(sample)
        return float(((m - n) ** 2).sum() + np.trace(s) + np.trace(g) - 2 * np.trace(linalg.sqrtm(s @ g)).real)

    expected = [by_matrix_root(np.delete(rows, row, axis=0)) - by_matrix_root(rows) for row in range(80)]
    influence = FrechetInfluence(statistics(real)).influence(torch.from_numpy(rows))
    np.testing.assert_allclose(influence.numpy(), expected, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("degenerate", ["twins", "constant feature", "one outlier", "all but one the same", "a line"])
def test_batches_without_variety_are_exact_as_well(degenerate: str) -> None:
    real, rows = correlated(5, 400, 16), correlated(6, 24, 16)
    if degenerate == "twins":
        rows[12:] = rows[:12]
    elif degenerate == "constant feature":
        rows[:, 3] = 0.25
    elif degenerate == "one outlier":
        rows[5] *= 1e4
    elif degenerate == "all but one the same":
        rows[1:] = rows[1]
    else:
        rows = rows[:1] + np.linspace(-1, 1, 24)[:, None] * rows[1:2]
    influence = FrechetInfluence(statistics(real)).influence(torch.from_numpy(rows))
    assert_equal(influence, brute_force(real, rows))


def test_rows_that_are_all_the_same_have_no_influence() -> None:
    frechet = FrechetInfluence(statistics(correlated(5, 400, 16)))
    influence = frechet.influence(torch.full((8, 16), 0.3))
    assert influence.abs().max() < 1e-12


def test_a_row_far_from_the_real_ones_does_harm_and_one_that_fills_a_gap_does_good() -> None:
    real = np.random.default_rng(0).normal(size=(2000, 2))
    rows = np.random.default_rng(1).normal(size=(40, 2)) * [1, 0.05]  # no variety in the second feature
    rows[0], rows[1] = [9.0, 0.0], [0.0, 1.5]
    influence = FrechetInfluence(statistics(real)).influence(torch.from_numpy(rows))
    assert (influence.argmin(), influence.argmax()) == (0, 1)
    assert influence[0] < 0 < influence[1]


@pytest.mark.parametrize(("count", "width"), [(100, 12), (20, 48), (2, 5)])
def test_the_distance_of_a_batch_is_that_of_its_statistics(count: int, width: int) -> None:
    real, rows, before = correlated(0, 500, width), correlated(1, count, width), correlated(2, 300, width)
    frechet = FrechetInfluence(statistics(real))
    assert frechet.distance_of(torch.from_numpy(rows)) == pytest.approx(distance(real, rows), rel=1e-9)
    assert frechet.distance_of(torch.from_numpy(rows)) == pytest.approx(frechet.distance(statistics(rows)), abs=1e-5)
    running = running_of(before, 0.7)
    blended = frechet.distance_of(torch.from_numpy(rows), running)
    assert blended == pytest.approx(distance(real, rows, before, 0.7), rel=1e-9)
    assert blended == pytest.approx(frechet.distance(running.blended(statistics(rows))), rel=1e-7)


def test_blended_moments_are_those_of_the_mixture() -> None:
    """First and second moments are weighted means of both."""
    early, late = correlated(2, 300, 5), correlated(1, 40, 5)
    blended = running_of(early, 0.7).blended(statistics(late))
    (m, s), (n, g) = moments(early), moments(late)
    mean = 0.7 * m + 0.3 * n
    second = 0.7 * (s + np.outer(m, m)) + 0.3 * (g + np.outer(n, n))
    np.testing.assert_allclose(blended.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(blended.covariance, second - np.outer(mean, mean), rtol=1e-10, atol=1e-12)


def test_the_order_of_the_rows_and_a_common_shift_do_not_matter() -> None:
    real, rows = correlated(0, 500, 12), correlated(1, 30, 12)
    influence = FrechetInfluence(statistics(real)).influence(torch.from_numpy(rows))
    reverse = FrechetInfluence(statistics(real)).influence(torch.from_numpy(rows).flip(0))
    assert_equal(reverse.flip(0), influence.numpy())
    far = FrechetInfluence(statistics(real + 100)).influence(torch.from_numpy(rows + 100))
    np.testing.assert_allclose(far.numpy(), influence.numpy(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("spread", [1.0, 1e-6, 1e-12])
def test_the_change_of_the_roots_trace_is_that_of_the_eigenvalues(spread: float) -> None:
    """Also where eigenvalues are of very different sizes; the expected ones come from a matrix of singular values."""
    rng = np.random.default_rng(7)
    values = np.sort(np.geomspace(spread, 1, 9))[::-1].copy()
    lost, added = rng.normal(size=(4, 9)), rng.normal(size=(4, 9))
    lost /= np.linalg.norm(lost, axis=1, keepdims=True) * np.array([[1.0], [1.001], [2.0], [30.0]])
    changes = root_trace_change(*map(torch.from_numpy, (values, lost, added)))
    for row in range(4):
        norm = (lost[row] ** 2).sum()
        shrink = np.eye(9) - np.outer(lost[row], lost[row]) * (1 - max(0.0, 1 - norm) ** 0.5) / norm
        stacked = np.concatenate([shrink * values, added[row][None]])  # its Gram matrix is H - g gᵀ + h hᵀ
        expected = np.linalg.svd(stacked, compute_uv=False).sum() - values.sum()
        assert float(changes[row]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_too_few_rows_and_other_features_are_refused() -> None:
    frechet = FrechetInfluence(statistics(correlated(0, 500, 12)))
    with pytest.raises(ValueError, match="3 images or more are needed; features of a group are of 2"):
        frechet.influence(torch.zeros(2, 12))
    with pytest.raises(ValueError, match="2 images or more are needed; features of a group are of 1"):
        frechet.distance_of(torch.zeros(1, 12))
    with pytest.raises(UserError, match="resize convention"):
        running_of(correlated(0, 50, 12), 0.5).blended(statistics(correlated(0, 50, 12), "vendored"))


def test_features_are_left_as_they_are_and_single_precision_is_taken_exactly() -> None:
    frechet = FrechetInfluence(statistics(correlated(0, 500, 12)))
    rows = torch.from_numpy(correlated(1, 30, 12)).float()
    before = rows.clone()
    assert torch.equal(frechet.influence(rows), frechet.influence(rows.double()))
    assert torch.equal(rows, before)
    assert isinstance(frechet, FrechetReference)
