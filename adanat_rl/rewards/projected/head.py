"""One head of the projected discriminator: spectrally normalised convolutions over the patches, with a batch norm of
small groups.

Spectral norm: Miyato et al., ICLR 2018; class projection: Miyato and Koyama, ICLR 2018. Layout: `[B, C, L]`.

**Groups.** The official norm takes its statistics from groups of about eight consecutive images of the batch, in
evaluation too, so the reward of an image depends on its batch mates. `groups` says how many images each group has, in
order. None is our own definition for scoring: each image is normalised in a group of eight made of itself and seven
average mates, whose mean and variance were taken from generated images after the last update (`mate_mean`,
`mate_var`). That is what the heads are used to from training, in expectation, and a function of the image alone.
Normalising an image by its own statistics alone would wipe out the mean of its features, which says what it shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional

GROUP_SIZE = 8
_SPECTRAL_EPS = 1e-12
_LEAK = 0.2

Groups = Sequence[int] | None


def local_groups(batch_size: int) -> list[int]:
    """Sizes of the groups of a batch: ⌈B/8⌉ of them, equal where they can be, otherwise one image apart.

    The official code has no answer where B is no multiple of ⌈B/8⌉.
    """
    count = math.ceil(batch_size / GROUP_SIZE)
    return [batch_size // count + (number < batch_size % count) for number in range(count)]


def packed_groups(groups: Sequence[int], limit: int | None) -> list[list[int]]:
    """Consecutive groups put together to at most `limit` images where a group is not larger; None: all of them."""
    packed: list[list[int]] = []
    for size in groups:
        if packed and (limit is None or sum(packed[-1]) + size <= limit):
            packed[-1].append(size)
        else:
            packed.append([size])
    return packed


class LocalBatchNorm(nn.Module):
    """Batch norm over groups of images and all positions.

    Buffers: `mate_mean`, `mate_var` `[C]`, and `mate_share` `[]`, the mates' part of a virtual group: 0 while there
    are none, which leaves the image alone in it.
    """

    mate_mean: Tensor
    mate_var: Tensor
    mate_share: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mate_mean", torch.zeros(channels))
        self.register_buffer("mate_var", torch.zeros(channels))
        self.register_buffer("mate_share", torch.zeros(()))

    def forward(self, x: Tensor, groups: Groups) -> Tensor:
        """Normalised `[B, C, L]`; statistics are taken in float32 at least."""
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        own_mean = values.mean(dim=2)
        if groups is None:
            mean = own_mean + self.mate_share * (self.mate_mean - own_mean)
            centred = values - mean[:, :, None]
            mates = self.mate_var + (self.mate_mean - mean).square()
            variance = torch.lerp(centred.square().mean(dim=2), mates, self.mate_share)
        else:
            mean = _group_means(own_mean, groups)
            centred = values - mean[:, :, None]
            variance = _group_means(centred.square().mean(dim=2), groups)
        scale = (variance + self.eps).rsqrt()[:, :, None]
        return (centred * scale * self.weight[:, None] + self.bias[:, None]).to(x.dtype)

    def set_mates(self, mean: Tensor, variance: Tensor) -> None:
        """Says what average mates look like: `[C]` each."""
        self.mate_mean.copy_(mean)
        self.mate_var.copy_(variance)
        self.mate_share.fill_(1 - 1 / GROUP_SIZE)


def _group_means(values: Tensor, groups: Sequence[int]) -> Tensor:
    """Each row of `[B, C]` replaced by the mean of its group."""
    if sum(groups) != len(values):
        raise ValueError(f"groups of {sum(groups)} images in all, but there are {len(values)}")
    runs = [(size, size * len(list(same))) for size, same in groupby(groups)]
    means = [
        part.unflatten(0, (-1, size)).mean(dim=1, keepdim=True).expand(-1, size, -1).flatten(0, 1)
        for (size, _), part in zip(runs, values.split([rows for _, rows in runs]), strict=True)
    ]
    return torch.cat(means)


class SpectralConv1d(nn.Module):
    """Circular convolution `[B, C, L]` → `[B, C', L]` whose weight is divided by its largest singular value.

    The singular vectors `weight_u`, `weight_v` follow the weight by one power iteration in every forward pass in
    training mode; nothing else differs between the modes.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_channels * kernel_size)
        self.padding = kernel_size // 2
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))
        self.weight_orig = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size).uniform_(-bound, bound))
        self.register_buffer("weight_u", functional.normalize(torch.randn(out_channels), dim=0, eps=_SPECTRAL_EPS))
        self.register_buffer("weight_v", torch.zeros(in_channels * kernel_size))
        for _ in range(15):  # as torch's own parametrization starts
            self._power_iteration()

    def forward(self, x: Tensor) -> Tensor:
        """The convolution."""
        if self.training:
            self._power_iteration()
        # Copies: the next iteration must not change what this graph goes back through.
        u, v = self.weight_u.clone(), self.weight_v.clone()
        sigma = torch.dot(u, torch.mv(self.weight_orig.flatten(1), v))
        if self.padding:
            x = functional.pad(x, (self.padding, self.padding), mode="circular")
        return functional.conv1d(x, self.weight_orig / sigma, self.bias)

    @torch.no_grad()
    def _power_iteration(self) -> None:
        matrix = self.weight_orig.flatten(1)
        self.weight_v.copy_(functional.normalize(torch.mv(matrix.T, self.weight_u), dim=0, eps=_SPECTRAL_EPS))
        self.weight_u.copy_(functional.normalize(torch.mv(matrix, self.weight_v), dim=0, eps=_SPECTRAL_EPS))


class _Block(nn.ModuleList):
    """Convolution, norm, leaky ReLU."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__([SpectralConv1d(channels, channels, kernel_size), LocalBatchNorm(channels)])

    def forward(self, x: Tensor, groups: Groups) -> Tensor:
        convolution, norm = self
        return functional.leaky_relu(norm(convolution(x), groups), _LEAK)


class _Residual(nn.Module):
    """A block beside its input, at constant variance."""

    def __init__(self, block: _Block) -> None:
        super().__init__()
        self.fn = block

    def forward(self, x: Tensor, groups: Groups) -> Tensor:
        return (self.fn(x, groups) + x) / math.sqrt(2)


class Linear(nn.Module):
    """A linear layer whose weights are scaled when it runs, so that all layers learn at one rate (Karras et al., 2018).

    Args:
        lr_multiplier: how fast it learns, relative to others.
    """

    def __init__(self, in_features: int, out_features: int, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, in]` → `[B, out]`."""
        return functional.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)


class DiscriminatorHead(nn.Module):
    """Features `[B, C, L]` and conditions `[B, K]` → logits `[B, 1, L]`.

    Args:
        channels: C. condition_width: K; 0: no condition. projection_width: in which logits and condition meet.
    """

    def __init__(self, channels: int, condition_width: int, projection_width: int = 64) -> None:
        super().__init__()
        self.condition_width = condition_width
        self.main = nn.ModuleList([_Block(channels, 1), _Residual(_Block(channels, 9))])
        if condition_width:
            self.cmapper = Linear(condition_width, projection_width)
        self.cls = SpectralConv1d(channels, projection_width if condition_width else 1, 1)

    def forward(self, x: Tensor, condition: Tensor | None, groups: Groups) -> Tensor:
        """Logits; `groups` as explained in the module."""
        for layer in self.main:
            x = layer(x, groups)
        logits: Tensor = self.cls(x)
        if not self.condition_width:
            return logits
        if condition is None:
            raise ValueError("this head needs a condition")
        projection = self.cmapper(condition)[:, :, None]
        return (logits * projection).sum(dim=1, keepdim=True) / math.sqrt(projection.shape[1])
