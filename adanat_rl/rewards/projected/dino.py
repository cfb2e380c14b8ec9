"""The frozen eyes of the projected discriminator: DINO ViT-S/16 (Caron et al., ICCV 2021) and the pixels it is given.

The network is transformers' ViT. Layout: images `[B, 3, H, W]` in [0, 1], pixels `[B, 3, S, S]` normalised with
ImageNet's mean and standard deviation, features `[B, C, L]` of L = (S / patch_size)² patches, row by row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from adanat_rl.generation.text.local import require_transformers
from adanat_rl.generation.weights import share_network
from adanat_rl.metrics.clip_pixels import IMAGENET_MEAN, IMAGENET_STD

DINO_KIND = "dino_vit"

_RENAMED = [
    (r"^cls_token$", "vit.embeddings.cls_token"),
    (r"^pos_embed$", "vit.embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "vit.embeddings.patch_embeddings.projection."),
    (r"^blocks\.(\d+)\.norm1\.", r"vit.layers.\1.layernorm_before."),
    (r"^blocks\.(\d+)\.norm2\.", r"vit.layers.\1.layernorm_after."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"vit.layers.\1.attention.o_proj."),
    (r"^blocks\.(\d+)\.mlp\.", r"vit.layers.\1.mlp."),
    (r"^norm\.", "vit.layernorm."),
]
_QKV = re.compile(r"^blocks\.(\d+)\.attn\.qkv\.(weight|bias)$")
_WRAPPERS = re.compile(r"^(dino\.)?model\.model\.")  # of the official discriminator


class DinoFeatures(nn.Module):
    """Features of several depths; the defaults are DINO ViT-S/16 as the official discriminator reads it.

    The weights are allocated, not initialised: they come from a file, and nothing is drawn.

    Args:
        image_size: S. patch_size: of the vision transformer.
        width: C. depth, num_heads: of the vision transformer; its MLP is four times as wide.
        hooks: numbers of the blocks whose outputs are features, rising.
    """

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 16,
        width: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        hooks: Sequence[int] = (2, 5, 8, 11),
    ) -> None:
        super().__init__()
        transformers = require_transformers()
        if not hooks or not all(-1 <= hook < depth for hook in hooks):
            raise ValueError(f"hooks are {list(hooks)}; accepted: blocks from 0 to {depth - 1}")
        if image_size % patch_size:
            raise ValueError(f"patch_size {patch_size} does not divide image_size {image_size}")
        self.image_size = image_size
        self.width = width
        self.hooks = tuple(hooks)
        config = transformers.ViTConfig(
            image_size=image_size,
            patch_size=patch_size,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=depth,
            num_attention_heads=num_heads,
            layer_norm_eps=1e-6,
        )
        with torch.device("meta"):
            self.vit = transformers.ViTModel(config, add_pooling_layer=False)
        self.to_empty(device="cpu")

    @property
    def num_features(self) -> int:
        """How many features an image has: one per hook, and the embedded patches."""
        return len(self.hooks) + 1

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Features, each `[B, C, L]`: the hooked blocks, then the patch and position embeddings.

        The class token is added to every patch and then left out.
        """
        states = self.vit(pixel_values=pixels, output_hidden_states=True).hidden_states
        chosen = [states[hook + 1] for hook in self.hooks] + [states[0]]
        return [(state[:, 1:] + state[:, :1]).transpose(1, 2) for state in chosen]


@dataclass(frozen=True)
class Window:
    """The square of an image that is looked at: its first row and column."""

    row: int
    column: int


def draw_window(generator: torch.Generator, height: int, width: int, size: int) -> Window | None:
    """The crop coin of a batch: half of the time a random square of `size` pixels, otherwise None (the whole image).

    Images without room for a square that differs from them are never cropped. The draws do not depend on that.
    """
    coin, down, right = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    if coin >= 0.5 or min(height, width) < size or max(height, width) == size:
        return None
    return Window(int(down * (height - size + 1)), int(right * (width - size + 1)))


def dino_pixels(images: Tensor, size: int, window: Window | None = None) -> Tensor:
    """What DINO is given of images.

    Args:
        images: `[B, 3, H, W]` or `[B, 1, H, W]` in [0, 1]; grey ones get three equal channels.
        size: S. window: cuts a square out; None: the whole image, resized by averaging areas where it is not S × S.

    Returns:
        `[B, 3, S, S]`, normalised.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images of shape {list(images.shape)}, expected [B, 3, H, W] or [B, 1, H, W]")
    if window is not None:
        images = images[..., window.row : window.row + size, window.column : window.column + size]
    elif images.shape[-2:] != (size, size):
        images = functional.interpolate(images, size=(size, size), mode="area")
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


def load_dino(path: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> DinoFeatures:
    """The network of a file, frozen and shared by all of this process.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    network = share_network(path, {DINO_KIND: DinoFeatures}, device, dtype)
    assert isinstance(network, DinoFeatures)
    return network


def convert_official_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINO's published state dict under our names, also when it is a part of an official discriminator's.

    Queries, keys and values are split. A name that is not DINO's is kept, so that whoever loads the result can tell.
    """
    converted = {}
    for full_name, tensor in state.items():
        name = _WRAPPERS.sub("", full_name)
        if match := _QKV.match(name):
            for part, values in zip("qkv", tensor.chunk(3), strict=True):
                converted[f"vit.layers.{match[1]}.attention.{part}_proj.{match[2]}"] = values.clone()
        else:
            converted[_convert_name(name, full_name)] = tensor
    return converted


def _convert_name(name: str, full_name: str) -> str:
    for pattern, replacement in _RENAMED:
        converted, found = re.subn(pattern, replacement, name)
        if found:
            return converted
    return full_name
