"""Images of an evaluation that env runners draw are those that the driver draws."""

from __future__ import annotations

import pytest
import ray
import torch

from adanat_rl.config.loading import resolve
from adanat_rl.evaluation.drawing import DrawHere, evaluation_set
from adanat_rl.generation.build import build_generator
from adanat_rl.generation.masked.schedules import hand_made_schedule
from adanat_rl.generation.policies.base import ActorPolicy, Drawing, FixedDecisionsPolicy, SchedulePolicy
from adanat_rl.generation.policies.build import PolicySpec
from tests.tiny import OVERRIDES

LABELS = torch.arange(10)


def equal(left: Drawing, right: Drawing) -> bool:
    pairs = ((left.sample, right.sample), (left.decisions, right.decisions), (left.num_passes, right.num_passes))
    return all(torch.equal(a, b) for a, b in pairs)


def actor_policy(generator) -> ActorPolicy:
    spec = PolicySpec.of(resolve(overrides=OVERRIDES).policy, generator)
    actor = spec.build_actor()
    with torch.no_grad():
        actor.linear3.weight.copy_(torch.randn(actor.linear3.weight.shape, generator=torch.Generator().manual_seed(1)))
    return ActorPolicy(actor, generator.decision_space, generator.block_rows)


@pytest.fixture
def generator():
    return build_generator(resolve(overrides=OVERRIDES))


def test_runners_and_driver_draw_the_same_images(build, generator) -> None:
    algorithm, _ = build("resources.num_env_runners=2", "resources.num_reward_actors=0")
    draw = algorithm.draw_on_runners(batch_size=16)
    images = evaluation_set(LABELS, 70, seed=3)
    here = DrawHere(batch_size=25)
    policy = actor_policy(generator)
    own = here(generator, policy, images)
    assert equal(draw(generator, policy, images), own)
    dealt = FixedDecisionsPolicy(own.decisions.flip(0))
    assert equal(draw(generator, dealt, images), here(generator, dealt, images))
    schedule = hand_made_schedule(8, guidance_scale=1.0)
    longer, fixed = generator.with_base_schedule(schedule), SchedulePolicy(torch.from_numpy(schedule).float())
    assert equal(draw(longer, fixed, images), here(longer, fixed, images))


def test_a_runner_that_dies_while_it_draws_changes_nothing(build, generator) -> None:
    algorithm, _ = build("resources.num_env_runners=2", "resources.num_reward_actors=0")
    images = evaluation_set(LABELS, 200, seed=4)
    policy = actor_policy(generator)
    waits = 0

    def kill_once() -> None:
        nonlocal waits
        waits += 1
        if waits == 2:
            ray.kill(next(iter(algorithm._dealer._runners.values())), no_restart=False)

    draw = algorithm.draw_on_runners(batch_size=8)
    draw._check = kill_once
    assert equal(draw(generator, policy, images), DrawHere(50)(generator, policy, images))
    assert waits >= 2
    counters = algorithm.dealer_counters
    assert counters.lost_runners + counters.redealt_shards >= 1


def test_without_runners_the_driver_draws(build) -> None:
    algorithm, _ = build("resources.num_env_runners=0", "resources.num_reward_actors=0")
    assert algorithm.draw_on_runners(batch_size=8) is None
