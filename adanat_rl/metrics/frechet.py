"""The Fréchet distance of many sets of features to one real set.

It is called FID only with the Inception network; with other features it is "FD (features of …)".
"""

from __future__ import annotations

from torch import Tensor

from adanat_rl.metrics.accumulation import Moments
from adanat_rl.metrics.statistics import FeatureStatistics, FrechetReference

_ROWS_AT_ONCE = 4096  # are held in float64


class FrechetDistance:
    """Distance of generated features `[M, D]` to a fixed real set, M ≥ 2; everything in float64.

    Args:
        real: features `[N, D]`, N ≥ 2, or the statistics of a set.

    Raises:
        UserError: the real set is no `[N, D]`, or too small. NonFiniteError: it holds NaN or infinite numbers.
    """

    def __init__(self, real: Tensor | FeatureStatistics) -> None:
        if not isinstance(real, FeatureStatistics):
            real = _statistics(real, "features of the real images")
        self._reference = FrechetReference(real)

    def __call__(self, generated: Tensor) -> float:
        """The distance, 0 or more.

        Raises:
            UserError: another width, or fewer than 2 rows. NonFiniteError: NaN or infinite numbers.
        """
        return self._reference.distance(_statistics(generated, "features of the generated images"))


def _statistics(features: Tensor, name: str) -> FeatureStatistics:
    moments = Moments(features.shape[-1] if features.dim() else 0, features.device, name)
    is_large = features.dim() == 2 and len(features) > _ROWS_AT_ONCE
    for rows in features.split(_ROWS_AT_ONCE) if is_large else (features,):
        moments.add(rows)
    return moments.statistics("")
