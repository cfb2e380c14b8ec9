"""Runners and learners that raise: what was under way is done again by others, and changes no bit."""

from __future__ import annotations

from typing import Any

import pytest
import ray
import torch
from ray.train._internal.worker_group import WorkerGroup

from adanat_rl.config.errors import RunError
from tests.rl.test_algorithm import equal, history, reference  # noqa: F401, a fixture
from tests.tiny import IN_PROCESS

LEARNER = ("resources.num_env_runners=0", "resources.num_reward_actors=0", "resources.num_learners=1")
LEARNER = (*LEARNER, "resources.num_cpus_per_learner=0.4")


def out_of_memory(*_: Any, **__: Any) -> None:
    """What a GPU that others fill says; the process lives on."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_the_work_of_a_runner_that_raises_is_dealt_again(build, reference) -> None:  # noqa: F811
    algorithm, _ = build("resources.num_env_runners=2", "resources.num_reward_actors=0")
    runners = list(algorithm._dealer._runners.values())
    ray.get(runners[0].apply.remote(lambda runner: setattr(runner, "_load", out_of_memory)))
    hashes, state = history(algorithm)
    assert hashes == reference[0]
    assert equal(state, reference[1])
    assert algorithm.failure_counters()["lost_env_runners"] >= 1


def test_a_learner_actor_that_raises_is_replaced(build, reference) -> None:  # noqa: F811
    algorithm, _ = build(*LEARNER)
    for worker in algorithm.learner_group._workers:
        ray.get(worker.apply.remote(lambda learner: setattr(learner, "_begin_update", out_of_memory)))
    hashes, state = history(algorithm)
    assert hashes == reference[0]
    assert equal(state, reference[1])
    assert algorithm.failure_counters()["replaced_learners"] == 1


@pytest.fixture
def lost_at_next_start(monkeypatch):
    """Arms the loss of the next learner that starts, at the first call that Ray's executor makes to it."""
    execute = WorkerGroup.execute
    armed: list[bool] = []

    def lose(group: WorkerGroup, *args: Any, **kwargs: Any) -> Any:
        if armed:
            armed.clear()
            ray.kill(group.workers[0].actor)
        return execute(group, *args, **kwargs)

    monkeypatch.setattr(WorkerGroup, "execute", lose)
    return lambda: armed.append(True)


def test_a_learner_that_is_lost_while_it_starts_is_started_again(build, reference, lost_at_next_start) -> None:  # noqa: F811
    lost_at_next_start()
    algorithm, _ = build(*LEARNER)
    hashes, state = history(algorithm)
    assert hashes == reference[0]
    assert equal(state, reference[1])


def test_a_learner_that_is_lost_while_it_takes_over_is_replaced_again(build, reference, lost_at_next_start) -> None:  # noqa: F811
    algorithm, _ = build(*LEARNER, "resources.max_learner_retries=2")
    worker = algorithm.learner_group._workers[0]
    ray.get(worker.apply.remote(lambda learner: setattr(learner, "_begin_update", out_of_memory)))
    lost_at_next_start()
    hashes, state = history(algorithm)
    assert hashes == reference[0]
    assert equal(state, reference[1])
    assert algorithm.failure_counters()["replaced_learners"] == 2


def test_a_learner_actor_that_fails_for_good_ends_with_the_state_of_the_last_iteration(build) -> None:
    algorithm, _ = build(*LEARNER, "resources.max_learner_retries=0")
    algorithm.train()
    before = algorithm.training_state()
    ray.kill(algorithm.learner_group._workers[0])
    with pytest.raises(RunError, match=r"failed, after 0 retries on fresh ones: the learner \(process \d+ on .* died"):
        algorithm.train()
    assert equal(algorithm.training_state(), before)


def test_a_learner_that_ray_ended_for_want_of_memory_spoils_no_ending(build, monkeypatch) -> None:
    """The host says goodbye to its learners and expects only some errors of those that are gone."""
    algorithm, _ = build(*LEARNER)
    group = algorithm.learner_group

    def goodbye(*_: Any, **__: Any) -> None:
        raise ray.exceptions.OutOfMemoryError("1 worker(s) were killed due to the node running low on memory.")

    monkeypatch.setattr(group._backend_executor._backend, "on_shutdown", goodbye)
    algorithm.stop()
    assert group._backend_executor._placement_group is None, "its room is given back"


def test_a_learner_in_the_driver_that_raises_leaves_the_state_of_the_last_iteration(build) -> None:
    algorithm, rewards = build(*IN_PROCESS)
    algorithm.train()
    before = {name: value.clone() for name, value in algorithm.training_state().items()}
    version = rewards.version
    learner = algorithm.learner_group._learner
    learner.after_gradient_based_update = out_of_memory  # when the weights have been changed
    with pytest.raises(RunError, match=r"the learner failed: OutOfMemoryError: CUDA out of memory"):
        algorithm.train()
    assert equal(algorithm.training_state(), before)
    assert rewards.version == version
