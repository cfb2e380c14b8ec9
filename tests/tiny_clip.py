"""A CLIP of a few thousand random weights with a tokenizer of its own, written as transformers writes one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPConfig, CLIPModel

LENGTH, WIDTH, POOLED_WIDTH = 12, 16, 10
IMAGE_SIZE = 32


def write_tiny_clip(folder: Path, seed: int = 0) -> Path:
    """A whole CLIPModel with `vocab.json` and `merges.txt`: bytes, and one merged word, `cat`."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    tower: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = {
        "vocab_size": len(tokens),
        "max_position_embeddings": LENGTH,
        "bos_token_id": len(tokens) - 2,
        "eos_token_id": len(tokens) - 1,
    }
    config = CLIPConfig(
        text_config={**tower, **text},
        vision_config={**tower, "image_size": IMAGE_SIZE, "patch_size": 8},
        projection_dim=POOLED_WIDTH,  # the towers' own entries stay at the default, as in some published models
    )
    model = CLIPModel(config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():  # far apart, so that mistakes show
        torch.nn.init.normal_(parameter, std=0.4, generator=generator)
    model.save_pretrained(folder)
    return folder
