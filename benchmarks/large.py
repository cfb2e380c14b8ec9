"""AdaNAT-L with weights from a seed, for the measurements at full size; speed and memory do not depend on weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from adanat_rl.config.schema import DecisionsConfig, GeneratorConfig
from adanat_rl.generation.build import assemble_generator
from adanat_rl.generation.masked.sampler import MaskedTokenGenerator
from adanat_rl.generation.policies.network import PolicyNet
from adanat_rl.generation.seeding import Purpose, seeded
from benchmarks.trial_inputs import write_network

NAT_ARGUMENTS = {
    "vocab_size": 1024,
    "grid_size": 16,
    "width": 768,
    "depth": 24,
    "num_heads": 8,
    "num_classes": 1000,
}
HIDDEN_SIZE = 512  # of actor and critic
_SEED = 0


def write_weights(folder: Path) -> None:
    """Writes the NAT (about 780 MB) and the tokenizer into a folder."""
    write_network(_nat_file(folder), "uvit", NAT_ARGUMENTS)
    write_network(_tokenizer_file(folder), "vqgan", {})


def write_discriminator_features(folder: Path) -> None:
    """Writes the DINO of the projected discriminator (about 90 MB); needs transformers."""
    write_network(discriminator_features_file(folder), "dino_vit", {})


def discriminator_features_file(folder: Path) -> Path:
    """What `write_discriminator_features` writes."""
    return folder / "dino.safetensors"


def weight_files(folder: Path) -> list[Path]:
    """What `write_weights` wrote."""
    return [_nat_file(folder), _tokenizer_file(folder)]


def generator_settings(folder: Path, horizon: int, block_rows: int, **others: Any) -> GeneratorConfig:
    """The section `generator` of a configuration with those weights; `others` are further settings of it."""
    files = {"nat": str(_nat_file(folder)), "tokenizer": str(_tokenizer_file(folder))}
    return GeneratorConfig(horizon=horizon, block_rows=block_rows, **files, **others)


def build_generator(settings: GeneratorConfig, device: str = "cpu") -> MaskedTokenGenerator:
    """The generator with all four decisions learned."""
    return assemble_generator(settings, DecisionsConfig(), device)


def build_actor(generator: MaskedTokenGenerator) -> PolicyNet:
    """An actor as wide as the paper's, which does not say 0 to everything."""
    length, width = generator.feature_shape
    with seeded(Purpose.POLICY_WEIGHTS, _SEED):
        actor = PolicyNet(width, generator.decision_space.num_actions, HIDDEN_SIZE, int(length**0.5))
        torch.nn.init.normal_(actor.linear3.weight, std=0.02)
    return actor.to(generator.device).eval()


def _nat_file(folder: Path) -> Path:
    return folder / "nat.safetensors"


def _tokenizer_file(folder: Path) -> Path:
    return folder / "tokenizer.safetensors"
