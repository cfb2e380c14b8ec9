"""A DINOv2 of a few thousand random weights, written as transformers writes one."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Dinov2Config, Dinov2Model

WIDTH = 16


def write_tiny_dinov2(folder: Path, seed: int = 0) -> Path:
    """A `Dinov2Model` with position embeddings for 8 × 8 patches of 28 pixels, all that 224 pixels have."""
    config = Dinov2Config(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=448,  # more than it is used with, as in the published ones: position embeddings are interpolated
        patch_size=28,
    )
    model = Dinov2Model(config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():  # far apart, so that mistakes show
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    model.save_pretrained(folder)
    return folder
