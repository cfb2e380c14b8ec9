"""Learned policies that do not look at the image: one vector per step, or one per step and class."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class StaticTable(nn.Module):
    """Step `[N]` → `[N, out_channels]`: a learned schedule."""

    def __init__(self, horizon: int, out_channels: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(horizon, out_channels))

    def forward(self, features: Tensor | None, step: Tensor, context: Tensor) -> Tensor:
        """Rows of the table; features and context are not used."""
        return self.table[step]


class ClassTable(nn.Module):
    """Step and label `[N]` → `[N, out_channels]`: a learned schedule per class."""

    def __init__(self, horizon: int, num_classes: int, out_channels: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(horizon, num_classes, out_channels))

    def forward(self, features: Tensor | None, step: Tensor, context: Tensor) -> Tensor:
        """Entries of the table; features are not used."""
        return self.table[step, context]
