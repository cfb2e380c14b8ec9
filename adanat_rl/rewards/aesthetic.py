"""An aesthetic score as a reward: a linear head on the image embeddings of a CLIP, trained on people's ratings.

Heads like that of LAION are published; none ships here. A head is a safetensors file with `weight` `[1, D]` and `bias`
`[1]`, or with linear layers `layers.N.weight`, `layers.N.bias` in the order of N (LAION's "improved" predictor, whose
dropout between them is for training alone).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from adanat_rl.config.errors import UserError
from adanat_rl.config.paths import resolve_path
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.generation.blocks import run_in_blocks
from adanat_rl.generation.weights import read_tensors
from adanat_rl.metrics.clip_score import ClipScorer
from adanat_rl.rewards.base import RewardBatch, RewardModel, RewardOutput

AESTHETIC_KIND = "aesthetic_head"
Layer = tuple[Tensor, Tensor]
"""Weight `[M, N]` and bias `[M]` of a linear layer."""


class AestheticHead(nn.Module):
    """Linear layers one after the other, as a file holds them.

    Args:
        numbers: of the layers in their names, ascending. widths: of the embedding and of what each layer gives.
    """

    def __init__(self, numbers: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.width = widths[0]
        sizes = zip(numbers, pairwise(widths), strict=True)
        self.layers = nn.ModuleDict({str(number): nn.Linear(*size) for number, size in sizes})

    def forward(self, embeddings: Tensor) -> Tensor:
        """Embeddings `[B, D]` to ratings `[B, 1]`."""
        for layer in self.layers.values():
            embeddings = layer(embeddings)
        return embeddings


class AestheticReward(RewardModel):
    """The rating that a head predicts from an image's embedding, brought to length 1.

    Args:
        embed: `images [B, C, H, W] -> [B, D]`, such as `ClipScorer.embed_images`.
        layers: of the head, from D numbers to 1.
        block_rows: images of one pass of the head, so that a score does not depend on batch mates.
    """

    def __init__(self, embed: Callable[[Tensor], Tensor], layers: Sequence[Layer], *, block_rows: int = 32) -> None:
        self._embed = embed
        self._layers = list(layers)
        self._block_rows = block_rows

    @torch.no_grad()
    def score(self, batch: RewardBatch) -> RewardOutput:
        """Ratings `[B]`, on the scale of the head; LAION's goes from 1 to 10."""
        embeddings = functional.normalize(self._embed(batch.images), dim=-1)
        (scores,) = run_in_blocks(self._head, self._block_rows, embeddings)
        return RewardOutput(scores)

    def _head(self, values: Tensor) -> tuple[Tensor, ...]:
        for weight, bias in self._layers:
            values = functional.linear(values, weight, bias)
        return (values[:, 0],)


def layer_numbers(names: Iterable[str]) -> list[int]:
    """N of the names `layers.N.weight` and `layers.N.bias`, ascending."""
    return sorted({int(found[1]) for name in names if (found := re.fullmatch(r"layers\.(\d+)\.(weight|bias)", name))})


def load_head(path: Path, device: str = "cpu") -> list[Layer]:
    """The linear layers of a head, in order, float32.

    Raises:
        UserError: the file is missing or damaged, or holds no such layers.
    """
    tensors, _ = read_tensors(path)
    if tensors.keys() == {"weight", "bias"}:
        prefixes = [""]
    else:
        prefixes = [f"layers.{number}." for number in layer_numbers(tensors)]
    names = [f"{prefix}{part}" for prefix in prefixes for part in ("weight", "bias")]
    if not names or set(names) != tensors.keys():
        raise UserError(
            f"{path} holds {', '.join(sorted(tensors)[:5])}; accepted: weight and bias, or layers.N.weight and "
            "layers.N.bias of linear layers"
        )
    layers = [(tensors[f"{prefix}weight"], tensors[f"{prefix}bias"]) for prefix in prefixes]
    _check_shapes(path, layers)
    return [(weight.to(device, torch.float32), bias.to(device, torch.float32)) for weight, bias in layers]


def from_config(config: ExperimentConfig, device: str) -> RewardModel:
    """The reward of a configuration.

    Raises:
        UserError: encoder or head are not there or do not fit, or transformers is missing.
    """
    settings = config.reward.aesthetic
    layers = load_head(resolve_path(str(settings.head), "reward.aesthetic.head"), device)
    clip = ClipScorer(Path(str(settings.encoder)).expanduser(), batch_size=settings.block_rows, device=device)
    wanted, width = layers[0][0].shape[1], clip.embed_images(torch.zeros(1, 3, 8, 8)).shape[1]
    if width != wanted:
        raise UserError(
            f"reward.aesthetic.head: {settings.head} takes embeddings of {wanted} numbers, {settings.encoder} gives "
            f"{width}"
        )
    return AestheticReward(clip.embed_images, layers, block_rows=settings.block_rows)


def _check_shapes(path: Path, layers: Sequence[Layer]) -> None:
    """Each layer takes what the one before gives, and the last one gives one number."""
    fits = (
        all(weight.ndim == 2 and bias.shape == weight.shape[:1] for weight, bias in layers)
        and all(weight.shape[1] == len(before) for (weight, _), (before, _) in pairwise(reversed(layers)))
        and len(layers[-1][0]) == 1
    )
    if not fits:
        shapes = ", ".join(f"{list(weight.shape)} and {list(bias.shape)}" for weight, bias in layers)
        raise UserError(f"{path}: layers of shape {shapes} do not lead to one number, [1, D] and [1] at the end")
