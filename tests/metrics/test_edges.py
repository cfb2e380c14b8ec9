"""Sets of features at the edges: copies, low rank, a mean far beyond the spread, half precision, too few, not finite.

Each number is compared with one that is computed otherwise, in 60 digits or pair by pair.
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from mpmath import mp

from adanat_rl.metrics.accumulation import Moments
from adanat_rl.metrics.clip_score import clip_score
from adanat_rl.metrics.frechet import FrechetDistance
from adanat_rl.metrics.influence import FrechetInfluence
from adanat_rl.metrics.manifold import neighbour_radii, precision_recall
from adanat_rl.metrics.scores import ScoreSplits, inception_score, kernel_distance
from adanat_rl.metrics.statistics import FeatureStatistics, FrechetReference, frechet_distance

OFFSETS = [0.0, 300.0, 1e4]
Set = np.ndarray


def exact_moments(rows: Set) -> tuple[mpmath.matrix, mpmath.matrix]:
    data = mpmath.matrix(rows.astype(np.float64).tolist())
    count, width = data.rows, data.cols
    mean = mpmath.matrix([mpmath.fsum(data[i, j] for i in range(count)) / count for j in range(width)])
    centred = mpmath.matrix([[data[i, j] - mean[j] for j in range(width)] for i in range(count)])
    return mean, centred.T * centred / (count - 1)


def exact_root(matrix: mpmath.matrix) -> mpmath.matrix:
    values, vectors = mp.eigsy(matrix)
    return vectors * mp.diag([mp.sqrt(max(value, 0)) for value in values]) * vectors.T


def exact_distance(real: Set, generated: Set) -> float:
    """The definition, in 60 digits."""
    with mpmath.workdps(60):
        (m, s), (n, g) = exact_moments(real), exact_moments(generated)
        root = exact_root(s)
        shared = exact_root(root * g * root)
        trace = sum(s[i, i] + g[i, i] - 2 * shared[i, i] for i in range(s.rows))
        return float(mpmath.fsum((a - b) ** 2 for a, b in zip(m, n, strict=True)) + trace)


def cloud(seed: int, count: int, width: int, rank: int | None = None) -> Set:
    """Correlated rows, multiples of 2^-20, so that adding an offset to them is exact; `rank` directions at most."""
    rng = np.random.default_rng(seed)
    rank = width if rank is None else rank
    rows = rng.integers(-(2**10), 2**10, (count, rank)) @ rng.integers(-(2**9), 2**9, (rank, width))
    return rows / 2.0**20


def tensor(rows: Set) -> torch.Tensor:
    return torch.from_numpy(rows)


def statistics_of(rows: Set) -> FeatureStatistics:
    moments = Moments(rows.shape[1])
    moments.add(tensor(rows))
    return moments.statistics("")


CASES = {
    "as usual": (cloud(0, 30, 5), cloud(1, 20, 5)),
    "fewer images than features": (cloud(2, 5, 8), cloud(3, 4, 8)),
    "low rank": (cloud(4, 30, 6, rank=2), cloud(5, 30, 6, rank=3)),
    "a constant": (cloud(6, 12, 4), np.ones((12, 4))),
    "constant features": (np.hstack([cloud(7, 20, 3), np.full((20, 2), 0.5)]), np.hstack([cloud(8, 20, 3)] * 2)[:, :5]),
    "copies": (cloud(9, 10, 4), cloud(9, 10, 4)[[0, 0, 0, 1, 1, 2, 3, 3]]),
}


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("case", CASES)
def test_frechet_distance_is_the_definition_in_sixty_digits(case: str, offset: float) -> None:
    real, generated = CASES[case]
    expected = exact_distance(real, generated)
    scale = real.var(axis=0).sum() + generated.var(axis=0).sum()
    found = FrechetDistance(tensor(real + offset))(tensor(generated + offset))
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-9 * scale)
    by_statistics = frechet_distance(statistics_of(real + offset), statistics_of(generated + offset))
    assert by_statistics == pytest.approx(expected, rel=1e-8, abs=1e-9 * scale)
    assert FrechetInfluence(statistics_of(real + offset)).distance_of(tensor(generated + offset)) == pytest.approx(
        expected, rel=1e-8, abs=1e-9 * scale
    )


@pytest.mark.parametrize(("count", "width", "rank"), [(40, 64, 64), (500, 64, 3), (200, 30, 1)])
@pytest.mark.parametrize("offset", OFFSETS)
def test_a_set_of_low_rank_has_no_distance_to_itself_and_never_a_negative_one(
    count: int, width: int, rank: int, offset: float
) -> None:
    rows = tensor(cloud(10, count, width, rank) + offset)
    scale = float(rows.var(dim=0).sum())
    assert 0 <= FrechetDistance(rows)(rows) < 1e-12 * scale
    assert 0 <= FrechetDistance(rows)(rows.flip(0)) < 1e-12 * scale
    assert 0 <= FrechetReference(statistics_of(rows.numpy())).distance(statistics_of(rows.numpy())) < 1e-12 * scale


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("shape", [(8, 3), (5, 9), (20, 6)])
def test_influence_far_from_the_origin_is_the_rise_of_the_exact_distance(offset: float, shape: tuple[int, int]) -> None:
    real, rows = cloud(11, 40, shape[1]), cloud(12, *shape)
    whole = exact_distance(real, rows)
    expected = np.array([exact_distance(real, np.delete(rows, row, axis=0)) - whole for row in range(len(rows))])
    found = FrechetInfluence(statistics_of(real + offset)).influence(tensor(rows + offset))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("offset", [300.0, 1e4])
def test_influence_of_a_wide_group_does_not_see_where_the_features_lie(offset: float) -> None:
    real, rows = cloud(13, 300, 64), cloud(14, 32, 64)
    here = FrechetInfluence(statistics_of(real)).influence(tensor(rows))
    there = FrechetInfluence(statistics_of(real + offset)).influence(tensor(rows + offset))
    np.testing.assert_allclose(there, here, rtol=1e-6, atol=1e-7 * float(here.abs().max()))


def distance(x: Set, y: Set) -> float:
    return float(np.sqrt(((x - y) ** 2).sum()))


def share_within(points: Set, centres: Set, k: int) -> float:
    """Share of the points that lie in the ball of a centre, edge included, as a loop over pairs."""
    radii = [
        sorted(distance(one, other) for j, other in enumerate(centres) if j != i)[k - 1]
        for i, one in enumerate(centres)
    ]
    inside = [
        any(distance(point, centre) <= radius for centre, radius in zip(centres, radii, strict=True))
        for point in points
    ]
    return float(np.mean(inside))


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize(("width", "num_copied"), [(2, 60), (7, 25), (64, 40)])
def test_precision_and_recall_of_copies_of_real_images_are_the_definition(
    width: int, num_copied: int, k: int, offset: float
) -> None:
    # A copy lies on the edge of the balls of its neighbours: rounding of a matrix product decided
    real = cloud(15, 40, width) + offset
    generated = real[np.random.default_rng(16).integers(0, len(real), num_copied)]
    precision, recall = precision_recall(tensor(real), tensor(generated), k=k)
    assert precision == 1
    assert recall == pytest.approx(share_within(real, generated, k))
    mixed = np.concatenate([generated[:20], cloud(17, 20, width) + offset])
    assert precision_recall(tensor(real), tensor(mixed), k=k) == pytest.approx(
        (share_within(mixed, real, k), share_within(real, mixed, k))
    )


def test_radii_of_copies_and_of_a_lattice_are_exact() -> None:
    lattice = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0)), axis=-1).reshape(-1, 2) / 3
    for rows in (lattice, np.repeat(lattice[:5], 3, axis=0), np.ones((9, 4))):
        expected = [
            sorted(distance(one, other) for j, other in enumerate(rows) if j != i)[2] for i, one in enumerate(rows)
        ]
        np.testing.assert_allclose(neighbour_radii(tensor(rows)), expected, rtol=1e-15, atol=0)


def kernel_by_loop(real: Set, generated: Set) -> float:
    """Squared MMD with the cubic kernel, unbiased, in 60 digits."""
    with mpmath.workdps(60):
        first, second = (mpmath.matrix(rows.tolist()) for rows in (real, generated))
        width = first.cols

        def kernel(a: mpmath.matrix, i: int, b: mpmath.matrix, j: int) -> mpmath.mpf:
            return (mpmath.fsum(a[i, d] * b[j, d] for d in range(width)) / width + 1) ** 3

        def within(a: mpmath.matrix) -> mpmath.mpf:
            n = a.rows
            return mpmath.fsum(kernel(a, i, a, j) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

        across = mpmath.fsum(kernel(first, i, second, j) for i in range(first.rows) for j in range(second.rows))
        return float(within(first) + within(second) - 2 * across / (first.rows * second.rows))


@pytest.mark.parametrize("offset", OFFSETS)
def test_kernel_distance_is_the_definition_in_sixty_digits(offset: float) -> None:
    real, generated = cloud(18, 12, 5) + offset, 0.75 * cloud(19, 12, 5) + offset
    found, sd = kernel_distance(tensor(real), tensor(generated), num_subsets=1)
    assert found == pytest.approx(kernel_by_loop(real, generated), rel=1e-7)
    assert sd == 0


def test_half_precision_is_widened_before_anything_is_computed() -> None:
    real, generated = (tensor(cloud(seed, 40, 6)).half() for seed in (20, 21))
    wide = (real.double(), generated.double())
    assert FrechetDistance(real)(generated) == FrechetDistance(wide[0])(wide[1])
    assert precision_recall(real, generated) == precision_recall(*wide)
    assert kernel_distance(real, generated, 2) == kernel_distance(*wide, 2)
    assert inception_score(16 * real, 4) == inception_score(16 * wide[0], 4)
    reference = FrechetInfluence(statistics_of(wide[0].numpy()))
    assert torch.equal(reference.influence(generated), reference.influence(wide[1]))


GOOD = tensor(cloud(22, 20, 4))
MEASURES: dict[str, Callable[[torch.Tensor], object]] = {
    "Fréchet distance": lambda rows: FrechetDistance(GOOD)(rows),
    "Fréchet distance, real": lambda rows: FrechetDistance(rows)(GOOD),
    "precision and recall": lambda rows: precision_recall(GOOD, rows),
    "precision and recall, real": lambda rows: precision_recall(rows, GOOD),
    "radii": neighbour_radii,
    "KID": lambda rows: kernel_distance(GOOD, rows, 2),
    "KID, real": lambda rows: kernel_distance(rows, GOOD, 2),
    "influence": lambda rows: FrechetInfluence(statistics_of(GOOD.numpy())).influence(rows),
    "group distance": lambda rows: FrechetInfluence(statistics_of(GOOD.numpy())).distance_of(rows),
    "Inception score": lambda rows: inception_score(rows),
    "moments": lambda rows: Moments(4).add(rows),
    "CLIPScore": clip_score,
}


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("measure", MEASURES)
def test_numbers_that_are_not_finite_are_refused_by_name(measure: str, bad: float) -> None:
    rows = GOOD.clone()
    rows[7, 2] = bad
    with pytest.raises(ValueError, match="not finite: 1 of 80 numbers"):
        MEASURES[measure](rows)


@pytest.mark.parametrize("measure", sorted(set(MEASURES) - {"moments", "CLIPScore"}))
def test_sets_that_are_too_small_are_refused_in_one_line(measure: str) -> None:
    fewest = {"precision and recall": 4, "precision and recall, real": 4, "radii": 4, "influence": 3}
    fewest["Inception score"] = 10
    for count in range(fewest.get(measure, 2)):
        with pytest.raises(ValueError, match=r"images? or more|do not make") as error:
            MEASURES[measure](GOOD[:count])
        assert "\n" not in str(error.value)
    MEASURES[measure](GOOD[: fewest.get(measure, 2)])


@pytest.mark.parametrize("measure", sorted(set(MEASURES) - {"radii", "Inception score", "CLIPScore"}))
def test_sets_of_another_width_are_refused(measure: str) -> None:
    with pytest.raises(ValueError, match=r"expected \[N, 4\]|features per image|expected \[N, 3\]"):
        MEASURES[measure](GOOD[:, :3])


@pytest.mark.parametrize("measure", sorted(set(MEASURES) - {"CLIPScore"}))
def test_what_is_no_list_of_rows_is_refused(measure: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        MEASURES[measure](GOOD.flatten())


def test_an_empty_set_has_no_score() -> None:
    with pytest.raises(ValueError, match="no image has come"):
        clip_score(torch.zeros(0))
    with pytest.raises(ValueError, match="no image has come"):
        ScoreSplits(10, 4).score()


@pytest.mark.parametrize("index", [[-1, 0], [0, 10], [0]])
def test_a_score_takes_no_image_that_the_set_has_not(index: list[int]) -> None:
    with pytest.raises(ValueError, match="places"):
        ScoreSplits(10, 4, 2).add(GOOD[:2], np.array(index))


def test_moments_of_another_width_do_not_join() -> None:
    first, second = Moments(4), Moments(3)
    first.add(GOOD)
    second.add(GOOD[:, :3])
    with pytest.raises(ValueError, match="do not join"):
        first.merge(second)
    assert first.count == 20


def test_a_symmetric_matrix_that_is_no_covariance_is_refused() -> None:
    indefinite = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
    bad = FeatureStatistics(torch.zeros(2, dtype=torch.float64), indefinite, "")
    good = FeatureStatistics(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64), "")
    with pytest.raises(ValueError, match="so it is none"):
        frechet_distance(bad, good)
    with pytest.raises(ValueError, match="so it is none"):
        frechet_distance(good, bad)
