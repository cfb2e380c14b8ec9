"""The Fréchet distance of many sets of features to one real set.

It is called FID only with the Inception network; with other features it is "FD (features of …)".
"""

from __future__ import annotations

from torch import Tensor

from adanat_rl.metrics.accumulation import Moments
from adanat_rl.metrics.statistics import FeatureStatistics, FrechetReference


class FrechetDistance:
    """Distance of generated features `[M, D]` to a fixed real set `[N, D]`, M, N ≥ 2; everything in float64.

    Raises:
        UserError: the real set is no `[N, D]`, or too small. NonFiniteError: it holds NaN or infinite numbers.
    """

    def __init__(self, real: Tensor) -> None:
        self._reference = FrechetReference(_statistics(real, "features of the real images"))

    def __call__(self, generated: Tensor) -> float:
        """The distance, 0 or more.

        Raises:
            UserError: another width, or fewer than 2 rows. NonFiniteError: NaN or infinite numbers.
        """
        return self._reference.distance(_statistics(generated, "features of the generated images"))


def _statistics(features: Tensor, name: str) -> FeatureStatistics:
    moments = Moments(features.shape[-1] if features.dim() else 0, features.device, name)
    moments.add(features)
    return moments.statistics("")
