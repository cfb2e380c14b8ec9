from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from adanat_rl.config.loading import resolve
from adanat_rl.experiment.build import build_algorithm, build_scene
from adanat_rl.experiment.cluster import connect
from adanat_rl.rewards.service import RewardService
from adanat_rl.rl.algorithm import GenerationPPO
from tests.tiny import OVERRIDES


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
