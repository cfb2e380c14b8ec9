"""A DINO of a few thousand random weights and a projected discriminator on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from adanat_rl.config.reward_settings import AdversarialConfig
from adanat_rl.generation.weights import save_network
from adanat_rl.rewards.base import RewardBatch
from adanat_rl.rewards.projected.dino import DINO_KIND, DinoFeatures

NUM_CLASSES = 4
SIZE = 32  # pixels that DINO sees; images have more, so that they can be cropped
ARGUMENTS: dict[str, Any] = {
    "image_size": SIZE,
    "patch_size": 8,
    "width": 16,
    "depth": 4,
    "num_heads": 2,
    "hooks": [1, 3],
}


def write_tiny_dino(path: Path) -> Path:
    """Its weight file."""
    network = DinoFeatures(**ARGUMENTS)
    generator = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        scale = 0.3 if value.ndim > 1 else 0.1
        value.copy_(scale * torch.randn(value.shape, generator=generator))
        if "layernorm" in name and name.endswith("weight"):
            value.add_(1)
    save_network(path, DINO_KIND, ARGUMENTS, network)
    return path


def tiny_config(features: Path, **changes: Any) -> AdversarialConfig:
    """Settings of the reward on it."""
    settings: dict[str, Any] = {
        "discriminator": "projected",
        "features": str(features),
        "loss": "logistic",
        "lr": 1e-3,
        "batch_size": 24,
        "condition_width": 8,
        "micro_batch_size": 8,
    }
    return AdversarialConfig(**{**settings, **changes})


def tiny_images(seed: int, count: int = 30, brightness: float = 0.5, size: int = SIZE + 8) -> RewardBatch:
    """Noisy images of even colour, with labels."""
    generator = torch.Generator().manual_seed(seed)
    colour = brightness + 0.2 * torch.randn(count, 3, 1, 1, generator=generator)
    images = colour + 0.1 * torch.randn(count, 3, size, size, generator=generator)
    return RewardBatch(images.clamp(0, 1), torch.arange(count) % NUM_CLASSES)
