"""Precision, recall, density and coverage: how two sets of features lie in the k-NN manifolds of each other.

Precision and recall: Kynkäänniemi et al., "Improved precision and recall metric for assessing generative models",
NeurIPS 2019, with k = 3. Density and coverage: Naeem et al., "Reliable fidelity and diversity metrics for generative
models", ICML 2020, with k = 5; they use the manifold of the real images alone, which outliers among generated ones
cannot widen.
A ball includes its edge, so whether a copy of a real image lies on the edge of a ball decides: all comparisons are as
if every distance were taken from differences in float64. A matrix product, which is many times faster, sorts out the
pairs that are clear beyond its own rounding; the others are taken one by one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adanat_rl.metrics.checks import checked_rows

_PAIR_NUMBERS = 1 << 22  # of differences held at once
_USE = "manifolds of k = {k} neighbours"


def neighbour_radii(features: Tensor, k: int = 3) -> Tensor:
    """Distance `[N]` float64 of each feature `[N, D]` to its k-th nearest neighbour in its set, itself not counted.

    Raises:
        UserError: k or fewer rows. NonFiniteError: NaN or infinite features.
    """
    rows = checked_rows(features, "features of a set", fewest=k + 1, use=_USE.format(k=k))
    squares, errors = _squared_distances(rows, rows)
    squares.fill_diagonal_(torch.inf)
    bounds = squares.kthvalue(k, dim=1).values + 2 * errors.amax(dim=1)
    radii = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    candidates = squares <= bounds[:, None]  # mostly k of them; more where distances are equal to rounding
    _, places, copies = rows.unique(dim=0, return_inverse=True, return_counts=True)
    alone = (copies[places] <= k).nonzero()[:, 0]  # the others have k copies of themselves, at distance 0
    for part in alone.split(_block(len(rows))):
        exact = torch.full((len(part), len(rows)), torch.inf, dtype=torch.float64, device=rows.device)
        places = candidates[part].nonzero()
        exact[places[:, 0], places[:, 1]] = _distances(rows, rows, part[places[:, 0]], places[:, 1])
        radii[part] = exact.kthvalue(k, dim=1).values
    return radii


def precision_recall(
    real: Tensor, generated: Tensor, real_radii: Tensor | None = None, k: int = 3
) -> tuple[float, float]:
    """Precision (generated images within the real manifold) and recall (real images within the generated one).

    Args:
        real: `[N, D]`, N > k. generated: `[M, D]`, M > k.
        real_radii: `neighbour_radii(real, k)` when it is known already.

    Raises:
        UserError: a set is too small, or they have different widths. NonFiniteError: NaN or infinite features.
    """
    ours, theirs, radii = _checked_sets(real, generated, real_radii, k, fewest_generated=k + 1)
    squares, errors = _squared_distances(ours, theirs)
    precision = _within(squares, errors, radii[:, None], ours, theirs).any(dim=0)
    recall = _within(squares, errors, neighbour_radii(theirs, k)[None, :], ours, theirs).any(dim=1)
    return float(precision.double().mean()), float(recall.double().mean())


def density_coverage(
    real: Tensor, generated: Tensor, real_radii: Tensor | None = None, k: int = 5
) -> tuple[float, float]:
    """Density (in how many balls of real images a generated one lies, over k) and coverage (real images whose ball
    holds a generated one).

    Density may exceed 1: where generated images crowd among real ones. Coverage is in [0, 1].

    Args:
        real: `[N, D]`, N > k. generated: `[M, D]`, M ≥ 1.
        real_radii: `neighbour_radii(real, k)` when it is known already.

    Raises:
        UserError: a set is too small, or they have different widths. NonFiniteError: NaN or infinite features.
    """
    ours, theirs, radii = _checked_sets(real, generated, real_radii, k, fewest_generated=1)
    squares, errors = _squared_distances(ours, theirs)
    within = _within(squares, errors, radii[:, None], ours, theirs)
    return float(within.double().sum() / (k * len(theirs))), float(within.any(dim=1).double().mean())


def _checked_sets(
    real: Tensor, generated: Tensor, real_radii: Tensor | None, k: int, fewest_generated: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Both sets in float64 on one device, and the radii of the real one."""
    use = _USE.format(k=k)
    ours = checked_rows(real, "features of the real images", fewest=k + 1, use=use)
    theirs = checked_rows(
        generated, "features of the generated images", fewest=fewest_generated, width=ours.shape[1], use=use
    ).to(ours.device)
    radii = (neighbour_radii(ours, k) if real_radii is None else real_radii).to(ours)
    if radii.shape != (len(ours),):
        raise ValueError(f"radii are {list(radii.shape)}, expected [{len(ours)}]")
    return ours, theirs, radii


def _within(squares: Tensor, errors: Tensor, radii: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Which pairs `[N, M]` are no farther apart than radii that broadcast."""
    limits = radii.square()
    slack = errors + 4 * torch.finfo(torch.float64).eps * limits
    within = squares <= limits - slack
    unclear = ((squares <= limits + slack) & ~within).nonzero()
    limits = radii.expand_as(squares)
    for places in unclear.split(_block(left.shape[1])):
        i, j = places[:, 0], places[:, 1]
        within[i, j] = _distances(left, right, i, j) <= limits[i, j]
    return within


def _squared_distances(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances `[N, M]` by a matrix product around a common centre, and how far rounding can move each."""
    centre = left.mean(dim=0)
    a, b = left - centre, right - centre
    norms = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)[None, :]
    squares = (norms - 2 * a @ b.T).clamp_min(0)
    return squares, norms.mul_(4 * (left.shape[1] + 4) * torch.finfo(torch.float64).eps)


def _distances(left: Tensor, right: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Distances `[P]` of the pairs (i, j), from their differences; equal pairs give equal bits."""
    parts = [
        torch.cdist(left[rows][:, None], right[columns][:, None], compute_mode="donot_use_mm_for_euclid_dist").flatten()
        for rows, columns in zip(i.split(_block(left.shape[1])), j.split(_block(left.shape[1])), strict=True)
    ]
    return torch.cat(parts) if parts else left.new_zeros(0)


def _block(numbers: int) -> int:
    """How many items of so many numbers are held at once."""
    return max(1, _PAIR_NUMBERS // numbers)
