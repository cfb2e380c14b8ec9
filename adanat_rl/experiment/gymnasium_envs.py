"""The registered environments: the generator of a preset with a fixed reward, for any Gymnasium client.

The reward is the score of the discriminator that came out of training the shipped policy, frozen. It is no moving
target and can be gamed by a long training; hand over a scorer of your own for serious work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from adanat_rl.config.loading import resolve
from adanat_rl.config.paths import resolve_path
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.data.loading import load_dataset
from adanat_rl.envs import GenerationEnv, GenerationVectorEnv
from adanat_rl.envs.contracts import Generator, Scorer
from adanat_rl.generation.build import build_generator
from adanat_rl.generation.noise import ImageNoise
from adanat_rl.generation.weights import load_network
from adanat_rl.rewards.discriminator import PatchDiscriminator


def make_env(preset: str, scorer: Scorer | None = None, overrides: Sequence[str] = (), **kwargs: Any) -> GenerationEnv:
    """`gymnasium.make("AdaNAT/Digits-v0")`, and the same of other presets.

    Args:
        preset: whose generator and data; the registered name sets it.
        scorer: `(tokens [B, L], labels [B]) -> rewards [B]`; the frozen discriminator by default.
        overrides: settings of the preset, such as `generator.horizon=8`.
        kwargs: `observation_mode`, `render_mode`, `frame_size` (see `GenerationEnv`).
    """
    return GenerationEnv(**_parts(preset, scorer, overrides), **kwargs)


def make_vector_env(
    preset: str, num_envs: int = 1, scorer: Scorer | None = None, overrides: Sequence[str] = (), **kwargs: Any
) -> GenerationVectorEnv:
    """`gymnasium.make_vec("AdaNAT/Digits-v0", num_envs=…)`; arguments as for `make_env`."""
    return GenerationVectorEnv(**_parts(preset, scorer, overrides), num_envs=num_envs, **kwargs)


def discriminator_asset(dataset: str) -> str:
    """Name of the shipped discriminator of a data set."""
    return f"asset:{dataset}/discriminator.safetensors"


class DiscriminatorScorer:
    """Scores finished samples by the shipped discriminator: `sigmoid(mean of the patch logits)`, in (0, 1).

    Args:
        generator: decodes the samples. dataset: whose discriminator.
    """

    def __init__(self, generator: Generator, dataset: str) -> None:
        path = resolve_path(discriminator_asset(dataset), "scorer")
        self._discriminator = load_network(path, {"patch_discriminator": PatchDiscriminator})
        self._generator, self._dataset = generator, dataset

    def __reduce__(self) -> tuple[type[DiscriminatorScorer], tuple[Generator, str]]:
        """Copies and pickles read the shipped file again: spectral norm does not pickle."""
        return DiscriminatorScorer, (self._generator, self._dataset)

    @torch.no_grad()
    def __call__(self, samples: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Scores `[B]` of samples `[B, L]` and labels `[B]`."""
        return torch.sigmoid(self._discriminator(self._generator.decode(samples), labels).mean(dim=1))


def _parts(preset: str, scorer: Scorer | None, overrides: Sequence[str]) -> dict[str, Any]:
    given = [overrides] if isinstance(overrides, str) else list(overrides)
    config: ExperimentConfig = resolve(preset, overrides=given)
    generator = build_generator(config)
    return {
        "generator": generator,
        "scorer": scorer if scorer is not None else DiscriminatorScorer(generator, config.data.name),
        "noise_factory": ImageNoise,
        "contexts": np.asarray(load_dataset(config.data).labels),
        "action_limit": config.decisions.action_limit,
    }
