"""Leave-one-out influence: what the Fréchet distance of a batch would rise by without one of its images, exactly.

Without row i a covariance loses one rank-one term (and with running moments gains another). The distance needs the
trace of a matrix root, and how that trace changes under such a change has a closed form, so that no eigenvalues are
taken once per row. Features `[N, D]`; everything is computed in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from adanat_rl.metrics.checks import checked_rows
from adanat_rl.metrics.statistics import FeatureStatistics, FrechetReference, check_comparable

MIN_ROWS = 3  # a row less must leave a covariance
# Trapezoidal rule in the logarithm of the variable: it converges as exp(-π² / step), and beyond ± reach nothing is left
_STEP = 0.25
_REACH = 42.0
_LOST = 1e-13  # part of a direction that rounding leaves where leaving out a row takes all of it


@dataclass(frozen=True)
class RunningMoments:
    """Moments of earlier batches, into which those of a batch are blended.

    Args:
        statistics: mean and covariance of earlier batches. decay: their weight d in first and second moments, [0, 1).
    """

    statistics: FeatureStatistics
    decay: float

    def blended(self, batch: FeatureStatistics) -> FeatureStatistics:
        """Mean d r + (1-d) b, covariance d R + (1-d) B + d (1-d) (r-b)(r-b)ᵀ: of the mixture of both distributions."""
        check_comparable(self.statistics, batch)
        d, shift = self.decay, self.statistics.mean - batch.mean
        return replace(
            batch,
            mean=d * self.statistics.mean + (1 - d) * batch.mean,
            covariance=d * self.statistics.covariance
            + (1 - d) * batch.covariance
            + d * (1 - d) * torch.outer(shift, shift),
            count=None,
            features=None,
        )

    @cached_property
    def factor(self) -> Tensor:
        """`[D, D]`, whose Gram matrix FᵀF is d R."""
        values, vectors = torch.linalg.eigh(self.statistics.covariance)
        return (self.decay * values.clamp_min(0)).sqrt()[:, None] * vectors.T


class FrechetInfluence(FrechetReference):
    """Distances of small batches to a reference, and the influence of their rows.

    The last term of the distance is the sum of the singular values of F R, FᵀF being the covariance of the batch and R
    the root of the reference's. They keep their precision where a batch has fewer rows than features; roots of
    eigenvalues that should be zero do not.
    """

    @property
    def _width(self) -> int:
        return len(self.reference.mean)

    def distance_of(self, features: Tensor, running: RunningMoments | None = None) -> float:
        """The distance of features `[N, D]`, N ≥ 2, blended into running moments if there are any."""
        return float(self._distance(_Batch.of(features, running, 2, self._width), running))

    def influence(self, features: Tensor, running: RunningMoments | None = None) -> Tensor:
        """Distance without row i less distance of all rows, `[N]` float64: positive where the row does good.

        Args:
            features: `[N, D]`, N ≥ 3. running: moments that the batch, with and without the row, is blended into.

        Raises:
            UserError: too few rows, or of another width. NonFiniteError: NaN or infinite features.
        """
        batch = _Batch.of(features, running, MIN_ROWS, self._width)
        n, d, rows = batch.count, batch.decay, batch.centred
        squares = rows.square().sum(dim=1)
        # The mean moves by -(1-d) x_i / (n-1), x_i the centred row
        ahead = batch.blended_mean - self.reference.mean
        step = (1 - d) / (n - 1)
        shift = step**2 * squares - 2 * step * (rows @ ahead)
        # The scatter loses n/(n-1) x_i x_iᵀ and is divided by n-2 instead of n-1
        trace = (1 - d) * (squares.sum() - n * squares) / ((n - 1) * (n - 2))
        if running is not None:
            trace = trace + d * step * (2 * rows @ batch.from_running + squares / (n - 1))
        return shift + trace - 2 * self._root_change(batch, running)

    def _distance(self, batch: _Batch, running: RunningMoments | None) -> Tensor:
        shift = (batch.blended_mean - self.reference.mean).square().sum()
        factor = batch.factor(batch.count - 1, running, between=True)
        traces = self.reference.covariance.trace() + factor.square().sum()
        return (shift + traces - 2 * torch.linalg.svdvals(factor @ self._root).sum()).clamp_min(0)

    def _root_change(self, batch: _Batch, running: RunningMoments | None) -> Tensor:
        """Trace of the root without row i less the one with it, `[N]`.

        Both are compared with the root of H = FᵀF, the rows weighted as if one were missing. Without row i it is
        H - g gᵀ, and + h hᵀ with running moments: the batch's mean has moved away from or towards theirs.
        """
        n, d, root = batch.count, batch.decay, self._root
        factor = batch.factor(n - 2, running, between=False) @ root
        left, values, right = torch.linalg.svd(factor, full_matrices=False)
        if running is None:
            whole = values.sum() * math.sqrt((n - 2) / (n - 1))
            added = None
        else:
            whole = torch.linalg.svdvals(batch.factor(n - 1, running, between=True) @ root).sum()
            moved = batch.from_running + batch.centred / (n - 1)
            added = math.sqrt(d * (1 - d)) * moved @ root @ right.T
        # Columns of `left` that belong to no direction of the data are arbitrary
        there = values > values[0] * max(factor.shape) * torch.finfo(values.dtype).eps
        lost = math.sqrt(n / (n - 1)) * left[-n:] * there
        return values.sum() - whole + root_trace_change(values, lost, added)


def root_trace_change(values: Tensor, lost: Tensor, added: Tensor | None = None) -> Tensor:
    """Change tr (H - g gᵀ + h hᵀ)^½ - tr H^½ of many g and h, for H = diag(s²): `[N]`.

    From √x = 1/π ∫ t^-½ x / (x + t) dt follows, by parts and with t = τ², that the change is 1/π ∫ log φ(τ²) dτ over
    τ > 0, where φ(t) = det(H - g gᵀ + h hᵀ + t) / det(H + t) = (1 - gᵀMg) (1 + hᵀMh) + (gᵀMh)² with M = (H + t)^-1.
    In log τ the integrand is analytic and falls off at both ends, so the trapezoidal rule is exact to rounding.

    Args:
        values: s `[K]`, falling. lost: g / s `[N, K]`, of length 1 or less. added: h `[N, K]`.
    """
    leverage = lost.square()
    rest = 1 - leverage.sum(dim=1, keepdim=True)
    rest = torch.where(rest < _LOST, 0.0, rest)
    scale = values[0] if added is None else torch.maximum(values[0], added.norm(dim=1).max())
    if scale == 0:
        return torch.zeros_like(rest[:, 0])
    nodes = torch.arange(-_REACH, _REACH + _STEP / 2, _STEP, dtype=values.dtype, device=values.device)
    tau = scale * nodes.exp()
    t = tau.square()
    inverse = 1 / (values.square()[:, None] + t)  # [K, Q]
    loss = (leverage * values.square()) @ inverse  # gᵀMg, [N, Q]
    kept = rest + t * (leverage @ inverse)  # the same as 1 - loss, without cancellation where loss is near 1
    if added is None:
        far, near = torch.log1p(-loss), kept.log()
    else:
        gain = added.square() @ inverse
        cross = ((lost * values * added) @ inverse).square()
        far = torch.log1p(gain - loss - gain * loss + cross)
        near = (kept * (1 + gain) + cross).log()
    # Each form where it keeps its precision: log φ is tiny for large t, φ may be tiny for small t
    logarithm = torch.where(loss < 0.5, far, near)
    return logarithm @ tau * (_STEP / math.pi)


@dataclass(frozen=True)
class _Batch:
    """A batch as the formulas see it: centred rows `[N, D]`, mean `[D]`, and how it stands to the running moments."""

    centred: Tensor
    mean: Tensor
    decay: float
    from_running: Tensor  # running mean less the batch's

    @classmethod
    def of(cls, features: Tensor, running: RunningMoments | None, min_rows: int, width: int) -> _Batch:
        rows = checked_rows(
            features, "features of a group", fewest=min_rows, width=width, use="Fréchet distance of a group"
        ).cpu()
        mean = rows.mean(dim=0)
        centred = rows - mean
        # Far from 0 the mean itself is rounded by more than the rows are apart in their least direction; once they are
        # centred, what is left of it is seen exactly
        rest = centred.mean(dim=0)
        mean, centred = mean + rest, centred - rest
        if running is None:
            return cls(centred, mean, 0.0, torch.zeros_like(mean))
        return cls(centred, mean, running.decay, running.statistics.mean - mean)

    @property
    def count(self) -> int:
        return len(self.centred)

    @property
    def blended_mean(self) -> Tensor:
        return self.mean + self.decay * self.from_running

    def factor(self, divisor: int, running: RunningMoments | None, between: bool) -> Tensor:
        """F `[M, D]` with FᵀF the blended covariance, the batch's own scatter divided by `divisor`; its rows come last.

        Args:
            between: whether the distance of the two means counts.
        """
        d = self.decay
        own = math.sqrt((1 - d) / divisor) * self.centred
        if running is None:
            return own
        parts = [running.factor, own]
        if between:
            parts.insert(1, math.sqrt(d * (1 - d)) * self.from_running[None])
        return torch.cat(parts)
