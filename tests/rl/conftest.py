from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from adanat_rl.config.loading import resolve
from adanat_rl.experiment.build import build_algorithm, build_scene
from adanat_rl.experiment.cluster import connect
from adanat_rl.generation.build import assemble_generator
from adanat_rl.generation.masked.sampler import MaskedTokenGenerator
from adanat_rl.generation.policies.build import PolicySpec
from adanat_rl.rewards.service import RewardService
from adanat_rl.rl.algorithm import GenerationPPO
from adanat_rl.rl.config import RLInputs, build_algorithm_config
from adanat_rl.rl.learner import GenerationPPOLearner
from adanat_rl.rl.shards import Shard
from tests.rl.learners import ACTIONS, SHARDS, random_shard
from tests.tiny import IN_PROCESS, OVERRIDES


@pytest.fixture(scope="package")
def ray_cluster() -> Iterator[None]:
    with connect(resolve(overrides=OVERRIDES).resources):
        yield


@pytest.fixture
def build(ray_cluster: None) -> Iterator[Any]:
    """`build("ppo.lr=1", …)` → algorithm and reward service of a tiny configuration; ended after the test."""
    with ExitStack() as stack:

        def make(*overrides: str) -> tuple[GenerationPPO, RewardService]:
            return stack.enter_context(_built(overrides))

        yield make


@contextmanager
def _built(overrides: tuple[str, ...]) -> Iterator[tuple[GenerationPPO, RewardService]]:
    config = resolve(overrides=[*OVERRIDES, *overrides])
    algorithm, rewards = build_algorithm(config, build_scene(config), lambda: False)
    try:
        yield algorithm, rewards
    finally:
        rewards.close()
        algorithm.stop()


@pytest.fixture
def make_learner(digits_generator: MaskedTokenGenerator) -> Callable[..., GenerationPPOLearner]:
    """`make_learner("ppo.lr=1", …)` → the learner as the algorithm builds it, all with the same first weights."""

    def make(*overrides: str) -> GenerationPPOLearner:
        config = resolve(overrides=[*OVERRIDES, *IN_PROCESS, "ppo.lr=0.01", "resources.driver_threads=1", *overrides])
        is_usual = config.generator.precision == digits_generator.precision
        frozen = digits_generator if is_usual else assemble_generator(config.generator, config.decisions)
        inputs = RLInputs(
            policy=PolicySpec.of(config.policy, digits_generator),
            effect_mask=digits_generator.decision_space.effect_mask,
            contexts=np.arange(10),
            runner_generator=lambda: digits_generator,
            learner_generator=lambda: frozen,
        )
        spaces = (gym.spaces.Box(-1, 1, (1,)), gym.spaces.Box(-1, 1, (ACTIONS,)))
        algorithm = build_algorithm_config(config, inputs, GenerationPPO)
        learner = algorithm.build_learner(spaces={DEFAULT_MODULE_ID: spaces})
        with torch.no_grad():  # the last layers start at zero, which would leave the others without a gradient
            for name, parameter in sorted(learner._unwrapped.named_parameters()):
                seed = sum(name.encode())
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
        return learner

    return make


@pytest.fixture(scope="package")
def shards() -> list[Shard]:
    """A train batch."""
    return [random_shard(number) for number in range(SHARDS)]
