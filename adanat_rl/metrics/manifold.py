"""Improved precision and recall: the part of one set of features that lies in the k-NN manifold of another.

Kynkäänniemi et al., "Improved precision and recall metric for assessing generative models", NeurIPS 2019, with k = 3.
"""

from __future__ import annotations

import torch
from torch import Tensor


def neighbour_radii(features: Tensor, k: int = 3) -> Tensor:
    """Distance `[N]` of each feature `[N, D]` to its k-th nearest neighbour in the same set, itself not counted."""
    return _distances(features, features).kthvalue(k + 1, dim=1).values


def precision_recall(
    real: Tensor, generated: Tensor, real_radii: Tensor | None = None, k: int = 3
) -> tuple[float, float]:
    """Precision (generated images within the real manifold) and recall (real images within the generated one).

    Args:
        real: `[N, D]`. generated: `[M, D]`.
        real_radii: `neighbour_radii(real, k)` when it is known already.
    """
    radii = neighbour_radii(real, k) if real_radii is None else real_radii
    distance = _distances(real, generated)
    precision = (distance <= radii[:, None]).any(dim=0).float().mean()
    recall = (distance <= neighbour_radii(generated, k)[None, :]).any(dim=1).float().mean()
    return float(precision), float(recall)


def _distances(left: Tensor, right: Tensor) -> Tensor:
    """Euclidean distances `[N, M]` float64, by a matrix product around a common centre, where it does not cancel."""
    centre = left.double().mean(dim=0)
    shifted = (left.double() - centre, right.double() - centre)
    return torch.cdist(*shifted, compute_mode="use_mm_for_euclid_dist")
