"""The policy network of AdaNAT: NAT features and the step in, one vector per image out (actor and critic share the
shape).

Layer names and arithmetic are those of the official `PolicyNet` (parity data `policy`), with the grid size free.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_NORM_EPS = 1e-6
_NUM_FREQUENCIES = 128
_MAX_PERIOD = 10_000.0


class PolicyNet(nn.Module):
    """Features `[N, L, C]`, step `[N]` int64 → `[N, out_channels]`.

    A depthwise convolution with stride 2 and a pointwise one shrink the h×w map of features; three linear layers
    follow. Layer norms without affine part are scaled and shifted by the embedded step (AdaLN).

    Args:
        in_channels: C. out_channels: A for an actor, 1 for a critic.
        hidden_size: width H; H/4 channels after the pointwise convolution, 2H units in the first linear layer.
        grid_size: h = w, L = grid_size².
    """

    def __init__(self, in_channels: int, out_channels: int, hidden_size: int = 512, grid_size: int = 16) -> None:
        super().__init__()
        if hidden_size < 4 or hidden_size % 4:
            raise ValueError(f"hidden_size is {hidden_size}; accepted: multiples of 4")
        self.grid_size = grid_size
        shrunk = -(-grid_size // 2)
        self.x_embedder = nn.Linear(in_channels, hidden_size) if in_channels != hidden_size else nn.Identity()
        self.t_embedder = _TimestepEmbedder(hidden_size)
        self.adaLN1 = _AdaLN(hidden_size, hidden_size)
        self.dw_conv = nn.Conv2d(hidden_size, hidden_size, 3, stride=2, padding=1, groups=hidden_size)
        self.pw_conv = nn.Conv2d(hidden_size, hidden_size // 4, 1)
        self.linear1 = nn.Linear(shrunk**2 * (hidden_size // 4), 2 * hidden_size)
        self.adaLN2 = _AdaLN(hidden_size, 2 * hidden_size)
        self.linear2 = nn.Linear(2 * hidden_size, hidden_size)
        self.adaLN3 = _AdaLN(hidden_size, hidden_size)
        self.linear3 = nn.Linear(hidden_size, out_channels)
        nn.init.zeros_(self.linear3.weight)  # training starts from the base schedule
        nn.init.zeros_(self.linear3.bias)

    def forward(self, features: Tensor, step: Tensor, context: Tensor | None = None) -> Tensor:
        """`[N, out_channels]`; the context is not used, the features already carry it."""
        condition = self.t_embedder(step)
        hidden = self.adaLN1(self.x_embedder(features), condition)
        hidden = hidden.transpose(1, 2).unflatten(2, (self.grid_size, self.grid_size))
        hidden = functional.gelu(self.dw_conv(hidden))
        hidden = functional.gelu(self.pw_conv(hidden))
        hidden = functional.gelu(self.adaLN2(self.linear1(hidden.flatten(1)), condition))
        hidden = functional.gelu(self.adaLN3(self.linear2(hidden), condition))
        return self.linear3(hidden)


class _TimestepEmbedder(nn.Module):
    """Cosines and sines of the step at 128 frequencies, then an MLP."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2 * _NUM_FREQUENCIES, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )
        exponents = torch.arange(_NUM_FREQUENCIES) / _NUM_FREQUENCIES
        self.register_buffer("frequencies", torch.exp(-math.log(_MAX_PERIOD) * exponents), persistent=False)

    frequencies: Tensor

    def forward(self, step: Tensor) -> Tensor:
        angles = step[:, None].float() * self.frequencies
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))


class _AdaLN(nn.Module):
    """Layer norm whose shift and scale come from the condition; starts as a plain layer norm."""

    def __init__(self, condition_size: int, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size, elementwise_affine=False, eps=_NORM_EPS)
        linear = nn.Linear(condition_size, 2 * size)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), linear)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=-1)
        if hidden.dim() == 3:
            shift, scale = shift[:, None], scale[:, None]
        return self.norm(hidden) * (1 + scale) + shift
