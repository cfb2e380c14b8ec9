"""The trained part of the projected discriminator: one head per DINO feature, and the network that embeds labels.

DINO itself is not inside: it has no gradients, no optimizer state and no place in a checkpoint.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from adanat_rl.rewards.projected.head import DiscriminatorHead, Groups, Linear, LocalBatchNorm

DISCRIMINATOR_KIND = "projected_discriminator"
_MAPPING_LAYERS = 8
_MAPPING_LR_MULTIPLIER = 0.01
_NORM = re.compile(r"^(heads\.\d+\.main\.(?:0|1\.fn)\.1\.)weight$")
_DINO = re.compile(r"^dino\.")


class ClassMapping(nn.Module):
    """Labels `[B]` → embeddings `[B, K]`: one-hot, a linear layer to unit second moment, eight leaky-ReLU layers.

    Args:
        num_classes: number of labels. width: K.
    """

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embed = Linear(num_classes, width)
        for number in range(_MAPPING_LAYERS):
            self.add_module(f"fc{number}", Linear(width, width, _MAPPING_LR_MULTIPLIER))

    def forward(self, labels: Tensor) -> Tensor:
        """Embeddings."""
        x: Tensor = self.embed(functional.one_hot(labels, self.num_classes).to(self.embed.weight.dtype))
        x = x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for number in range(_MAPPING_LAYERS):
            x = functional.leaky_relu(self.get_submodule(f"fc{number}")(x), 0.2) * math.sqrt(2)
        return x


class ProjectedDiscriminator(nn.Module):
    """Features of images and their conditions → logits `[B, F·L]`, head after head.

    The defaults are the official one for ImageNet.

    Args:
        condition_width: K, of the class embeddings or of a text's; 0: no condition.
        num_classes: number of labels; None: conditions come as they are, `[B, K]`.
        channels: C of the features. num_features: F.
    """

    def __init__(
        self,
        condition_width: int = 512,
        num_classes: int | None = 1000,
        channels: int = 384,
        num_features: int = 5,
    ) -> None:
        super().__init__()
        self.condition_width = condition_width
        self.num_classes = num_classes
        self.channels = channels
        self.num_features = num_features
        self.mapping = None if num_classes is None else ClassMapping(num_classes, condition_width)
        self.heads = nn.ModuleList([DiscriminatorHead(channels, condition_width) for _ in range(num_features)])

    def forward(self, features: Sequence[Tensor], condition: Tensor | None, groups: Groups) -> Tensor:
        """Logits.

        Args:
            features: F tensors `[B, C, L]`.
            condition: labels `[B]` int64 for a class mapping, otherwise `[B, K]`.
            groups: sizes of the groups of the local batch norm (`local_groups`); None: no image sees another.
        """
        if self.mapping is not None:
            condition = self.mapping(condition)
        heads = zip(self.heads, features, strict=True)
        return torch.cat([head(feature, condition, groups).flatten(1) for head, feature in heads], dim=1)

    @torch.no_grad()
    def set_mates(self, batches: Iterable[tuple[Sequence[Tensor], Tensor | None, Sequence[int]]]) -> None:
        """Takes the average batch mates from generated images; for scores that depend on one image alone.

        Args:
            batches: the arguments of forward passes in groups, one after another.
        """
        norms = [module for module in self.modules() if isinstance(module, LocalBatchNorm)]
        moments = [_Moments() for _ in norms]
        hooks = [norm.register_forward_pre_hook(seen) for norm, seen in zip(norms, moments, strict=True)]
        before = self.training
        self.eval()
        try:
            for features, condition, groups in batches:
                self(features, condition, groups)
        finally:
            self.train(before)
            for hook in hooks:
                hook.remove()
        for norm, seen in zip(norms, moments, strict=True):
            norm.set_mates(*seen.mean_and_variance())


class _Moments:
    """Sums of what a layer is given, in float64."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, Groups]) -> None:
        x = inputs[0].double()
        self._count += len(x) * x.shape[2]
        self._sum = self._sum + x.sum(dim=(0, 2))
        self._squares = self._squares + x.square().sum(dim=(0, 2))

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        mean, square = torch.as_tensor(self._sum) / self._count, torch.as_tensor(self._squares) / self._count
        return mean, (square - mean.square()).clamp_min(0)


def convert_official_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trained part of an official discriminator's state dict under our names, which are the same.

    DINO is left out (`dino.convert_official_state` takes it), and mates are added to the norms: none yet. A name that
    is not the discriminator's is kept, so that whoever loads the result can tell.
    """
    converted = {}
    for name, tensor in state.items():
        if _DINO.match(name):
            continue
        converted[name] = tensor
        if match := _NORM.match(name):
            converted[f"{match[1]}mate_mean"] = torch.zeros_like(tensor)
            converted[f"{match[1]}mate_var"] = torch.zeros_like(tensor)
            converted[f"{match[1]}mate_share"] = torch.zeros((), dtype=tensor.dtype)
    return converted
