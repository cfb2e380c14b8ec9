"""Every variant finds a planted optimum, and a strong leash holds the policy at the base schedule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor

from adanat_rl.config.loading import resolve
from adanat_rl.generation.policies.build import PolicySpec
from adanat_rl.rewards.service import Finished
from adanat_rl.rewards.worker import Scores
from adanat_rl.rl.algorithm import GenerationPPO
from adanat_rl.rl.config import RLInputs, build_algorithm_config
from tests.fakes import STRENGTH, PointGenerator, class_sides
from tests.tiny import IN_PROCESS

HORIZON, CLASSES, ITERATIONS = 2, 4, 12
SETTINGS = (
    *IN_PROCESS,
    f"generator.horizon={HORIZON}",
    "training.trajectories_per_iteration=192",
    "training.shard_size=96",
    "policy.kind=per_class",
    "ppo.lr=0.08",
    "seed=3",
)


class NegativeCost:
    """A reward service: minus the cost that the points carry, which is least where the planted action is taken."""

    version = num_updates = num_warmup_updates = num_replaced_actors = 0

    def score(self, batches: Sequence[Finished]) -> list[Scores]:
        """Scores of each batch."""
        return [Scores(-batch.samples[:, 1], {}, 0) for batch in batches]

    def start_update(self, generated: Finished, key: tuple[int, ...], num_updates: int) -> None:
        """Never called: there is nothing to train."""
        raise AssertionError

    def finish_update(self) -> dict[str, float]:
        """No metrics."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """No state."""
        return {}

    def load_state(self, state: Mapping[str, Tensor], version: int) -> None:
        """Nothing to take over."""

    def close(self) -> None:
        """Nothing to end."""


@contextmanager
def point_algorithm(*overrides: str) -> Iterator[GenerationPPO]:
    """The algorithm on points whose best push depends on the class: 0.8 to one side or the other."""
    config = resolve(overrides=[*SETTINGS, *overrides])
    generator = PointGenerator("per_class", HORIZON, CLASSES)
    inputs = RLInputs(
        policy=PolicySpec.of(config.policy, generator),
        effect_mask=generator.decision_space.effect_mask,
        contexts=np.arange(CLASSES),
        runner_generator=lambda: generator,
        learner_generator=lambda: generator,
    )
    algorithm = build_algorithm_config(config, inputs, GenerationPPO).build_algo()
    algorithm.attach(NegativeCost())
    try:
        yield algorithm
    finally:
        algorithm.stop()


def learn(algorithm: GenerationPPO) -> tuple[list[float], np.ndarray]:
    """Mean reward of each iteration, and the mean action on the push `[T, C]` afterwards."""
    rewards = [algorithm.train()["generation"]["reward"]["mean"] for _ in range(ITERATIONS)]
    return rewards, algorithm.inference_state()["actor.table"][..., 0]


@pytest.mark.parametrize(
    "variant",
    [
        ("ppo.advantage=critic",),
        ("ppo.advantage=critic", "ppo.normalize_rewards=false"),
        ("ppo.advantage=group_relative",),
        ("ppo.advantage=leave_one_out",),
        ("ppo.advantage=leave_one_out", "ppo.normalize_rewards=false", "ppo.normalize_advantages=true"),
    ],
    ids=["critic", "critic_raw", "group_relative", "leave_one_out", "leave_one_out_standardised_late"],
)
def test_every_variant_finds_the_planted_optimum(ray_cluster, variant: tuple[str, ...]) -> None:
    with point_algorithm(*variant) as algorithm:
        rewards, push = learn(algorithm)
    sides = class_sides(torch.arange(CLASSES)).numpy()
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.1
    assert (push * sides > STRENGTH / 2).all(), push


@pytest.mark.parametrize(("advantage", "leash"), [("critic", "kl"), ("leave_one_out", "l2")])
def test_a_strong_leash_holds_the_policy_at_the_base_schedule(ray_cluster, advantage: str, leash: str) -> None:
    settings = (f"ppo.advantage={advantage}", f"ppo.leash={leash}", "ppo.leash_coefficient=20")
    with point_algorithm(*settings) as algorithm:
        _, push = learn(algorithm)
    assert np.abs(push).max() < STRENGTH / 10
    assert np.abs(push).max() > 0
