"""Files as the official programs write them, filled by the rule of the parity data; small where shapes are free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adanat_rl.generation.masked.uvit import UViTNAT
from adanat_rl.generation.masked.vq_tokenizer import VQTokenizer
from adanat_rl.generation.policies.network import PolicyNet
from adanat_rl.generation.weights import save_network
from tests.contracts.fill import filled
from tests.contracts.large_fill import filled_in_blocks
from tests.contracts.parity import ParityModule

HIDDEN, WIDTH, GRID = 16, 64, 4  # of small policies, and of the NAT that they belong to


def parity_state(module: ParityModule, part: str | None = None) -> dict[str, Tensor]:
    """The official state dict of a module of the parity data, or of one of its parts."""
    description = module.description
    rows, seed, overrides = (
        description[key] if part is None else description[key][part] for key in ("state", "seed", "overrides")
    )
    rules = [tuple(rule) for rule in overrides]
    state = {}
    for row in rows:
        if row["fill"] == "npz":
            state[row["name"]] = torch.from_numpy(np.array(module[f"uv__{row['name']}"]))
        elif row["dtype"] == "float32":
            values = filled_in_blocks(row["name"], row["shape"], seed, rules)
            state[row["name"]] = torch.from_numpy(values)
    return state


def filled_state(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """A state dict of a network whose names are the official ones."""
    return {name: torch.from_numpy(filled(name, value.shape, seed)) for name, value in network.state_dict().items()}


def nat_state(name: str) -> dict[str, Tensor]:
    """An official NAT with the buffer of position numbers that it has."""
    state = parity_state(ParityModule(name))
    length = state["token_emb.position_embeddings.weight"].shape[0]
    return {**state, "token_emb.position_ids": torch.arange(length)[None]}


def small_policy(width: int = WIDTH, grid_size: int = GRID) -> dict[str, dict[str, Tensor]]:
    """State dicts of a small actor and critic."""
    sizes = {"actor": 4, "critic": 1}
    return {
        part: filled_state(PolicyNet(width, out_channels, HIDDEN, grid_size), 7 + out_channels)
        for part, out_channels in sizes.items()
    }


def discriminator_state() -> dict[str, Tensor]:
    """A small one of two heads, for texts, with some of the frozen DINO that lies in official ones."""
    head = parity_state(ParityModule("disc_head"))
    state = {f"heads.{number}.{name}": value for number in range(2) for name, value in head.items()}
    return {**state, "dino.model.model.cls_token": torch.zeros(1, 1, 16)}


def policy_checkpoint(*, trained: bool = True, prefix: str = "", **sizes: int) -> dict[str, Any]:
    """A training checkpoint; without `trained` only its model."""
    parts = small_policy(**sizes)
    model = {
        f"{prefix}{copy}.{part}.{name}": value
        for copy in ("policy", "policy_old")
        for part, state in parts.items()
        for name, value in state.items()
    }
    if not trained:
        return {"model": model, "time_step": 3}
    optimizer = {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"lr": 1e-5}]}
    state = {"discriminator": discriminator_state(), "optimizer": optimizer, "d_optimizer": optimizer}
    return {"model": model, **state, "time_step": 1000, "i_episode": 1000}


def small_generator(folder: Path) -> dict[str, str]:
    """NAT and tokenizer, in our own files, that the small policies fit."""
    arguments: dict[str, Any] = {
        "vocab_size": 32, "grid_size": GRID, "width": WIDTH, "depth": 2, "num_heads": 4, "num_classes": 10
    }  # fmt: skip
    sizes: dict[str, Any] = {"vocab_size": 32, "image_size": 8, "code_width": 8, "base_width": 32}
    sizes |= {"width_multipliers": [1, 1], "num_res_blocks": 1}
    nat, tokenizer = UViTNAT(**arguments), VQTokenizer(**sizes)
    for network in (nat, tokenizer):
        network.load_state_dict(filled_state(network, 3))
    save_network(folder / "nat.safetensors", "uvit", arguments, nat)
    save_network(folder / "tokenizer.safetensors", "vqgan", sizes, tokenizer)
    return {"--nat": str(folder / "nat.safetensors"), "--tokenizer": str(folder / "tokenizer.safetensors")}


def image_reward_state(vision: int = 64, text: int = 64) -> dict[str, Tensor]:
    """ImageReward's state dict with one layer of each encoder and narrow layers."""
    rows = ParityModule("imagereward").description["state"]
    state = {}
    for row in rows:
        name, shape = row["name"], list(row["shape"])
        if any(f".{number}." in name and ("blocks." in name or "layer." in name) for number in range(1, 24)):
            continue
        if ".visual_encoder." in name or name.startswith("blip.vision_proj"):
            shape = [size * vision // 1024 if size % 1024 == 0 else size for size in shape]
        elif name.startswith("blip.text"):
            shape = [size * text // 768 if size % 768 == 0 else vision if size == 1024 else size for size in shape]
            shape = [50 if size == 30524 else size for size in shape]
        elif name == "mlp.layers.0.weight":
            shape[1] = text
        kind = torch.int64 if row["dtype"] == "int64" else torch.float32
        state[name] = torch.from_numpy(filled(name, shape, 801)).to(kind)
    return state


def dino_state(width: int = 64, depth: int = 4, side: int = 2, patch: int = 16) -> dict[str, Tensor]:
    """DINO's published state dict, of a small network."""
    shapes: dict[str, Sequence[int]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + side**2, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    layers |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
    for block in range(depth):
        for name, shape in layers.items():
            shapes |= {f"blocks.{block}.{name}.weight": shape, f"blocks.{block}.{name}.bias": shape[:1]}
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{block}.{name}.{kind}": (width,) for kind in ("weight", "bias")}
    return {name: torch.from_numpy(filled(name, shape, 5)) for name, shape in shapes.items()}


def save(path: Path, content: Mapping[str, Any], **options: Any) -> Path:
    """Writes a file as the official programs do."""
    torch.save(dict(content), path, **options)
    return path
