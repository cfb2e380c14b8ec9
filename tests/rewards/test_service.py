"""The reward service on a real cluster: an actor that dies, hangs or lies costs time and nothing else."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import ray
import torch

from adanat_rl.config.errors import RunError
from adanat_rl.config.loading import resolve
from adanat_rl.experiment.cluster import connect
from adanat_rl.rewards.base import RewardBatch, RewardModel, RewardOutput
from adanat_rl.rewards.build import build_reward_parts
from adanat_rl.rewards.service import Finished, LocalRewardService, RemoteRewardService
from tests.tiny import OVERRIDES


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    with connect(resolve(overrides=OVERRIDES).resources):
        yield


def config_with(*overrides: str):
    return resolve(overrides=[*OVERRIDES, "resources.reward_timeout_s=20", *overrides])


def batches(count: int = 4, size: int = 8) -> list[Finished]:
    generator = np.random.default_rng(0)
    return [
        Finished(generator.integers(0, 128, (size, 16)).astype(np.uint8), generator.integers(0, 10, size))
        for _ in range(count)
    ]


def joined(parts: list[Finished]) -> Finished:
    return Finished(np.concatenate([p.samples for p in parts]), np.concatenate([p.labels for p in parts]))


@pytest.fixture
def local() -> LocalRewardService:
    return LocalRewardService(partial(build_reward_parts, config_with()))


@pytest.fixture
def remote(ray_cluster: None) -> Iterator[RemoteRewardService]:
    config = config_with("resources.num_reward_actors=2")
    service = RemoteRewardService(partial(build_reward_parts, config), config.resources)
    yield service
    service.close()


def kill(actor) -> None:
    os.kill(ray.get(actor.process_id.remote()), signal.SIGKILL)


def test_actors_give_the_scores_and_the_updates_of_one_process(local, remote) -> None:
    work = batches()
    for service in (local, remote):
        service.start_update(joined(work), (0, 1, 2), 3)
    metrics = [service.finish_update() for service in (local, remote)]
    assert metrics[0] == metrics[1]
    for ours, theirs in zip(local.score(work), remote.score(work), strict=True):
        np.testing.assert_array_equal(ours.scores, theirs.scores)
        assert ours.version == theirs.version == 1


def test_an_actor_killed_while_scoring_comes_back_with_its_state(local, remote) -> None:
    work = batches()
    for service in (local, remote):
        service.start_update(joined(work), (0, 1, 2), 2)
        service.finish_update()
    expected = local.score(work)
    for actor in remote.actors:
        kill(actor)
    found = remote.score(work)
    assert remote.num_replaced_actors == 2
    for ours, theirs in zip(expected, found, strict=True):
        np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_an_actor_killed_during_its_update_repeats_it_exactly(local, remote) -> None:
    work = batches()
    local.start_update(joined(work), (0, 1, 2), 200)
    remote.start_update(joined(work), (0, 1, 2), 200)
    process = ray.get(remote.actors[1].process_id.remote())  # the second one answers while the first one trains
    assert process
    ray.kill(remote.actors[0])
    assert remote.finish_update() == local.finish_update()
    assert remote.num_replaced_actors == 1
    for name, value in local.state().items():
        assert torch.equal(value, remote.state()[name]), name


def test_an_actor_that_hangs_is_replaced_after_the_deadline(ray_cluster) -> None:
    config = config_with("resources.num_reward_actors=1", "resources.reward_timeout_s=3")
    service = RemoteRewardService(partial(build_reward_parts, config), config.resources)
    try:
        process = ray.get(service.actors[0].process_id.remote())
        os.kill(process, signal.SIGSTOP)
        scores = service.score(batches(1))
        assert np.isfinite(scores[0].scores).all()
        assert service.num_replaced_actors == 1
    finally:
        service.close()


class NotANumber(RewardModel):
    def score(self, batch: RewardBatch) -> RewardOutput:
        return RewardOutput(torch.full((len(batch),), torch.nan))


class Broken(RewardModel):
    def score(self, batch: RewardBatch) -> RewardOutput:
        raise KeyError("no such thing")


@pytest.mark.parametrize(
    ("name", "message"),
    [("NotANumber", "8 of 8 scores that are NaN or infinite"), ("Broken", "KeyError: 'no such thing'")],
)
@pytest.mark.parametrize("actors", [0, 1])
def test_a_reward_that_gives_no_number_stops_the_run_with_its_name(ray_cluster, name, message, actors) -> None:
    kind = f"{__name__}:{name}"
    config = config_with(
        f"reward.kind={kind}", f"resources.num_reward_actors={actors}", "resources.max_reward_retries=1"
    )
    factory = partial(build_reward_parts, config)
    service = RemoteRewardService(factory, config.resources) if actors else LocalRewardService(factory)
    try:
        with pytest.raises(RunError, match=kind.replace(".", r"\.") + ".*" + message.replace("(", r"\(")):
            service.score(batches(2))
    finally:
        service.close()


def test_no_actor_and_no_bundle_is_left_after_closing(ray_cluster) -> None:
    config = config_with("resources.num_reward_actors=2")
    service = RemoteRewardService(partial(build_reward_parts, config), config.resources)
    handles = service.actors
    service.close()
    for handle in handles:
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(handle.process_id.remote())
    deadline = time.monotonic() + 60
    while ray.available_resources()["CPU"] < ray.cluster_resources()["CPU"]:  # Ray frees them a moment later
        assert time.monotonic() < deadline, "CPUs stay reserved"
        threading.Event().wait(0.1)
