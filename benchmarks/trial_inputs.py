"""Everything that a full-scale preset needs, with weights from a seed: for trials where no trained weights can be had.

Networks have the shapes of the catalogue, or small ones of the same classes for tests. Nothing that is drawn with them
looks like anything; speed, memory and every step of a run are the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adanat_rl.config.catalogue import PublishedFile, published_file
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.generation.masked.uvit import UViTNAT
from adanat_rl.generation.masked.vq_tokenizer import VQTokenizer
from adanat_rl.generation.weights import save_network
from adanat_rl.metrics.inception import InceptionV3

SMALL: dict[str, dict[str, Any]] = {
    "uvit": {"vocab_size": 32, "grid_size": 4, "width": 32, "depth": 2, "num_heads": 2},
    "vqgan": {"vocab_size": 32, "code_width": 8, "base_width": 32, "width_multipliers": (1, 1, 1), "num_res_blocks": 1},
    "dino_vit": {"image_size": 32, "width": 24, "depth": 4, "num_heads": 2, "hooks": (0, 1, 2, 3)},
    "inception": {},
}
SMALL_IMAGE_SIZE = 16


@dataclass(frozen=True)
class ClipShape:
    """Shape of a CLIP's text tower: width, layers, heads, width of the pooled embedding, longest caption in tokens."""

    width: int
    num_layers: int
    num_heads: int
    pooled_width: int
    length: int = 77


CLIP_SHAPES = {
    "clip-vit-bigg-14": ClipShape(1280, 32, 20, 1280),
    "clip-vit-large-patch14": ClipShape(768, 12, 12, 768),
    "amused": ClipShape(768, 12, 12, 768),
}
SMALL_CLIP = ClipShape(16, 2, 2, 16, 12)


def write_inputs(config: ExperimentConfig, root: Path, *, small: bool = False) -> list[Path]:
    """Writes every network that a configuration names and that is not there yet; returns the new files.

    Args:
        root: where the relative paths of the configuration start.
    """
    written = []
    if config.generator.kind == "amused":
        folder = (root / config.generator.nat).parent.parent
        if not folder.exists():
            write_amused(folder, small=small, image_size=config.data.image_size)
            written.append(folder)
    elif config.text.encoder is not None and not (root / config.text.encoder).exists():
        folder = root / config.text.encoder
        write_clip(folder, SMALL_CLIP if small else CLIP_SHAPES[folder.name])
        written.append(folder)
    for name in _named_files(config):
        entry = published_file(name)
        if entry is None or entry.kind is None or (root / name).exists():
            continue
        write_network(root / name, entry.kind, _arguments(entry, config, small))
        written.append(root / name)
    return written


def write_network(path: Path, kind: str, arguments: Mapping[str, Any]) -> None:
    """Writes one network with weights from a seed."""
    network = _class_of(kind)(**arguments)
    fill(network)
    save_network(path, kind, arguments, network)


@torch.no_grad()
def fill(network: nn.Module, seed: int = 0) -> None:
    """Weights of variance 1 over their inputs, of convolutions, which ReLUs follow, 2; gains 1, the rest 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            tensor.zero_()
        elif tensor.dim() > 1:
            gain = 2 if tensor.dim() == 4 else 1
            tensor.normal_(0, (gain / tensor[0].numel()) ** 0.5, generator=generator)
        else:
            tensor.fill_(1.0 if name.endswith(("weight", "running_var")) else 0.0)


def write_clip(folder: Path, shape: ClipShape) -> None:
    """A text tower of transformers with a tokenizer of bytes."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    num_tokens = write_byte_tokenizer(folder)
    config = CLIPTextConfig(
        vocab_size=num_tokens,
        hidden_size=shape.width,
        intermediate_size=4 * shape.width,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        max_position_embeddings=shape.length,
        projection_dim=shape.pooled_width,
        bos_token_id=num_tokens - 2,
        eos_token_id=num_tokens - 1,
    )
    model = CLIPTextModelWithProjection(config)
    fill(model)
    model.save_pretrained(folder)


def write_byte_tokenizer(folder: Path) -> int:
    """Writes a CLIP tokenizer that knows bytes only; returns how many tokens it has."""
    from tokenizers.pre_tokenizers import ByteLevel

    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(tokens)


def write_amused(folder: Path, *, small: bool, image_size: int) -> None:
    """A folder in diffusers' layout."""
    from diffusers import AmusedScheduler, UVit2DModel, VQModel

    clip = SMALL_CLIP if small else CLIP_SHAPES["amused"]
    coarse = image_size == 512
    blocks = {"downsample": coarse, "upsample": coarse, "sample_size": 32 if coarse else 16}
    networks: dict[str, Any] = {"cond_embed_dim": clip.width, "encoder_hidden_size": clip.width}
    if small:
        networks |= {
            "hidden_size": 32,
            "micro_cond_encode_dim": 4,
            "micro_cond_embed_dim": 4 + 4 * 4,
            "vocab_size": 64,
            "codebook_size": 48,
            "in_channels": 24,
            "block_out_channels": 16,
            "num_res_blocks": 1,
            "block_num_heads": 2,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 48,
        }
        widths, latents, codes, mask_token_id = (8,) * 5, 8, 48, 63
    else:
        widths, latents, codes, mask_token_id = (128, 256, 256, 512, 768), 64, 8192, 8255
    transformer = UVit2DModel(**networks, **blocks)
    vqvae = VQModel(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * 5,
        up_block_types=("UpDecoderBlock2D",) * 5,
        layers_per_block=1 if small else 2,
        latent_channels=latents,
        num_vq_embeddings=codes,
        norm_num_groups=4 if small else 32,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
        force_upcast=True,
    )
    for name, network in (("transformer", transformer), ("vqvae", vqvae)):
        fill(network)
        network.save_pretrained(folder / name)
    AmusedScheduler(mask_token_id=mask_token_id).save_pretrained(folder / "scheduler")
    write_clip(folder / "text_encoder", clip)
    write_byte_tokenizer(folder / "tokenizer")


def _named_files(config: ExperimentConfig) -> list[str]:
    """Weight files that a configuration names."""
    names = [
        config.generator.nat,
        config.generator.tokenizer,
        config.reward.adversarial.features,
        config.evaluation.inception,
    ]
    return [name for name in names if name is not None]


def _arguments(entry: PublishedFile, config: ExperimentConfig, small: bool) -> dict[str, Any]:
    """Those of the catalogue, or small ones of the same kind of context and image."""
    arguments = dict(entry.arguments)
    if not small:
        return arguments
    kind = str(entry.kind)
    if kind == "uvit":
        context = "text_width" if "text_width" in arguments else "num_classes"
        return {**SMALL[kind], context: SMALL_CLIP.width if context == "text_width" else arguments[context]}
    if kind == "vqgan":
        return {**SMALL[kind], "image_size": config.data.image_size}
    return dict(SMALL[kind])


def _class_of(kind: str) -> type[nn.Module]:
    if kind == "dino_vit":
        from adanat_rl.rewards.projected.dino import DinoFeatures

        return DinoFeatures
    return {"uvit": UViTNAT, "vqgan": VQTokenizer, "inception": InceptionV3}[kind]
