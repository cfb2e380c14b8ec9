"""The Fréchet distance between two sets of features, through torchmetrics.

It is called FID only with the Inception network; with other features it is "FD (features of …)".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FrechetDistance:
    """Distance of generated features `[M, D]` to a fixed real set `[N, D]`; sums and eigenvalues in float64."""

    def __init__(self, real: Tensor) -> None:
        from torchmetrics.image.fid import FrechetInceptionDistance  # takes seconds to import

        self._metric = FrechetInceptionDistance(feature=_Identity(real.shape[1]), reset_real_features=False)
        self._metric.set_dtype(torch.float64)
        self._metric.update(real.double(), real=True)

    def __call__(self, generated: Tensor) -> float:
        """The distance."""
        self._metric.reset()
        self._metric.update(generated.double(), real=False)
        return float(self._metric.compute())


class _Identity(nn.Module):
    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features
