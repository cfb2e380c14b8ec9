"""Presets of full scale: the settings of the official training, and files that the catalogue knows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from adanat_rl.config.catalogue import published_file
from adanat_rl.config.loading import load_preset, preset_names, resolve
from adanat_rl.generation.build import build_decision_space

OFFICIAL = ("imagenet256", "imagenet512", "coco", "cc3m", "adagen_maskgit")


def leaves(value: Any) -> Iterator[str]:
    """All strings of a preset."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_valid_and_named_after_its_file(name: str) -> None:
    assert resolve(name).name == name


@pytest.mark.parametrize("name", preset_names())
def test_every_weight_file_of_a_preset_is_in_the_catalogue(name: str) -> None:
    paths = [text for text in leaves(load_preset(name)) if text.startswith("weights/")]
    assert bool(paths) == (name not in {"digits", "mnist"})
    for path in paths:
        entry = published_file(path)
        assert entry is not None, path
        assert path.startswith(entry.path), "the command of the catalogue puts it where the preset looks for it"


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_settings_are_those_of_the_official_training(name: str) -> None:
    config = resolve(name)
    training, ppo, adversarial = config.training, config.ppo, config.reward.adversarial
    assert training.trajectories_per_iteration == 4096
    assert training.num_iterations == (150 if name in {"coco", "cc3m"} else 1000)
    assert (ppo.lr, ppo.num_epochs, ppo.clip, ppo.value_coefficient) == (1e-5, 5, 0.2, 0.5)
    assert (ppo.minibatch_size, ppo.grad_clip) == (None, None)
    exploration = config.exploration
    assert (exploration.std, exploration.decay, exploration.decay_interval_iterations) == (0.6, 0.3, 500)
    assert exploration.min_std == 0.1
    assert config.policy.hidden_size == 512
    assert config.policy.average_decay == 0, "the newest actor"
    assert (adversarial.discriminator, adversarial.loss) == ("projected", "logistic")
    assert (adversarial.lr, adversarial.adam_betas) == (1e-4, (0.5, 0.999))
    assert (adversarial.num_updates, adversarial.num_warmup_updates, adversarial.batch_size) == (5, 5, 128)
    assert not config.reward.reconstruct_real
    assert config.evaluation.num_images == 5000
    assert config.evaluation.num_final_images == (30000 if name in {"coco", "cc3m"} else 50000)
    assert config.data.horizontal_flip == (name not in {"coco", "cc3m"})
    assert config.decisions.residual == (name not in {"imagenet256", "imagenet512"})


@pytest.mark.parametrize(
    ("name", "horizon", "shard_size", "image_size"),
    [
        ("imagenet256", 4, 128, 256),
        ("imagenet512", 8, 64, 512),
        ("coco", 8, 64, 256),
        ("cc3m", 8, 64, 256),
        ("adagen_maskgit", 16, 128, 256),
    ],
)
def test_steps_shards_and_sizes(name: str, horizon: int, shard_size: int, image_size: int) -> None:
    config = resolve(name)
    assert config.generator.horizon == horizon
    assert config.training.shard_size == shard_size
    assert config.data.image_size == image_size


def test_eight_steps_are_one_override() -> None:
    assert resolve("imagenet256", overrides=["generator.horizon=8"]).generator.horizon == 8


@pytest.mark.parametrize(
    ("name", "guidance", "smoothing"), [("adagen_maskgit", 1, 0.8), ("cc3m", 1, 0), ("coco", 1, 0)]
)
def test_an_untrained_policy_follows_the_official_base_schedule(name: str, guidance: float, smoothing: float) -> None:
    config = resolve(name)
    horizon = config.generator.horizon
    space = build_decision_space(config.decisions, horizon)
    assert space.smoothing == smoothing
    done = (np.arange(horizon) + 1 - 1e-3) / horizon
    scale = guidance * (np.arange(horizon) + 1e-3) / horizon
    expected = np.stack([np.cos(math.pi / 2 * done), 1 - done, np.ones(horizon), scale], axis=1)
    carry = None
    for step in range(horizon):
        decision, carry = space.decide(torch.zeros(1, 4), step, carry)
        np.testing.assert_allclose(decision[0].numpy(), expected[step], rtol=2e-3, atol=2e-5)


def test_actions_of_imagenet_are_whole_pre_activations() -> None:
    config = resolve("imagenet256")
    decision, _ = build_decision_space(config.decisions, 4).decide(torch.zeros(1, 4), 0)
    np.testing.assert_allclose(decision[0].numpy(), [0.5, *[math.log(2)] * 3], rtol=1e-6)
