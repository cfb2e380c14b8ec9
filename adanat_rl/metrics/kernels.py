"""Squared maximum mean discrepancies (MMD) between sets of features, unbiased in the number of images.

The estimate (Gretton et al., "A kernel two-sample test", JMLR 2012, equation 3) leaves the kernel of a row with itself
out: 0 on average for equal distributions of any number of rows, and below it by chance. Rows are `[N, D]` float64.

| distance | kernel | of |
|---|---|---|
| KID (Bińkowski et al., "Demystifying MMD GANs", ICLR 2018) | (x·y / D + 1)³ | any features |
| CMMD (Jayasumana et al., "Rethinking FID", CVPR 2024), times 1,000 | exp(-|x - y|² / 2σ²), σ = 10 | CLIP's, length 1 |

The authors' code of CMMD counts each row with itself too; that adds about 1,000 / σ² · (1 - |mean|²) / N for each side
of N rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Compare = Callable[[Tensor], Tensor]
"""The estimate between rows `[M, D]`, M ≥ 2, and a set that is fixed."""

CMMD_BANDWIDTH = 10.0
CMMD_SCALE = 1000.0

_BLOCK_ROWS = 1024  # of a kernel matrix that are there at once


def polynomial_mmd(fixed: Tensor) -> Compare:
    """Compares sets with fixed rows `[N, D]`, N ≥ 2, by the polynomial kernel of degree 3."""
    return lambda rows: squared_mmd(fixed, rows)


def gaussian_mmd(fixed: Tensor, bandwidth: float = CMMD_BANDWIDTH, scale: float = CMMD_SCALE) -> Compare:
    """Compares sets with fixed rows `[N, D]`, N ≥ 2, by a Gaussian kernel; what is of the fixed rows alone is computed
    once.

    Args:
        bandwidth: σ. scale: the estimate is multiplied by it.
    """
    within_fixed = _within(fixed, bandwidth)

    def compare(rows: Tensor) -> Tensor:
        across = _sum(fixed, rows, bandwidth) / (len(fixed) * len(rows))
        return scale * (within_fixed + _within(rows, bandwidth) - 2 * across)

    return compare


def _within(rows: Tensor, bandwidth: float) -> Tensor:
    """The mean kernel of two different rows, less 1; that of a row with itself is 0 then."""
    return _sum(rows, rows, bandwidth) / (len(rows) * (len(rows) - 1))


def _sum(first: Tensor, second: Tensor, bandwidth: float) -> Tensor:
    """The sum of all kernels less 1 each: the ones cancel in the estimate, and would hide what is left."""
    squares = second.square().sum(dim=1)
    total = first.new_zeros(())
    for part in first.split(_BLOCK_ROWS):
        distances = part.square().sum(dim=1)[:, None] + squares - 2 * part @ second.T
        total += torch.expm1(distances.clamp_min_(0) / (-2 * bandwidth**2)).sum()
    return total


def squared_mmd(first: Tensor, second: Tensor) -> Tensor:
    """The unbiased estimate of the squared MMD between two sets, kernel (x·y / D + 1)³; it may be negative.

    Around a common centre c, x = c + u, the kernel is (a + s)³ with a = c·c / D + 1 and s = (c·u + c·v + u·v) / D. The
    terms a³ and 3 a² (c·u + c·v) / D cancel in the estimate; where features are far from 0 they would drown the rest,
    so they are left out.

    Args:
        first: `[N, D]`, N ≥ 2, float64. second: `[M, D]`, M ≥ 2, float64.
    """
    width = first.shape[1]
    centre = torch.cat([first, second]).mean(dim=0)
    u, v = first - centre, second - centre
    a = centre @ centre / width + 1
    along = [side @ centre / width for side in (u, v)]

    def kernel(i: int, j: int) -> Tensor:
        sides = (u, v)
        product = sides[i] @ sides[j].T / width
        s = along[i][:, None] + along[j][None, :] + product
        return 3 * a**2 * product + 3 * a * s**2 + s**3

    within = [(k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1)) for k in (kernel(0, 0), kernel(1, 1))]
    return within[0] + within[1] - 2 * kernel(0, 1).mean()
