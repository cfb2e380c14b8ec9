"""The algorithm on a real cluster: the batch and the weights do not depend on who draws, scores or learns."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
import ray
import torch

from adanat_rl.config.errors import RunError
from adanat_rl.rl.algorithm import RolloutInterruptedError
from adanat_rl.rl.shards import ShardKey
from tests.tiny import IN_PROCESS

ITERATIONS = 3


def history(algorithm) -> tuple[list[str], dict[str, torch.Tensor]]:
    """Batch hashes of some iterations and the weights after them."""
    algorithm.warm_up()
    hashes = []
    for _ in range(ITERATIONS):
        algorithm.train()
        hashes.append(algorithm.last_rollout.batch_hash)
    return hashes, algorithm.training_state()


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def reference(ray_cluster: None) -> tuple[list[str], dict[str, torch.Tensor]]:
    from tests.rl.conftest import _built

    with _built(IN_PROCESS) as (algorithm, _):
        return history(algorithm)


def test_batches_differ_between_iterations(reference) -> None:
    assert len(set(reference[0])) == ITERATIONS


@pytest.mark.parametrize(
    "workers",
    [
        ("resources.num_env_runners=1", "resources.num_reward_actors=1"),
        ("resources.num_env_runners=2", "resources.num_reward_actors=2"),
        ("resources.num_env_runners=0", "resources.num_reward_actors=0", "ppo.features=recompute"),
        (
            "resources.num_env_runners=1",
            "resources.num_reward_actors=0",
            "resources.num_learners=1",
            "resources.num_cpus_per_learner=0.4",
        ),
    ],
    ids=["one_runner", "two_runners_two_reward_actors", "features_recomputed", "remote_learner"],
)
def test_batches_and_weights_are_the_same_bits_for_any_number_of_workers(build, reference, workers) -> None:
    algorithm, _ = build(*workers)
    hashes, state = history(algorithm)
    assert hashes == reference[0]
    assert equal(state, reference[1])


def process_of(runner) -> int:
    """Process of an env runner, asked until it is back from its last restart."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return ray.get(runner.process_id.remote())
        except ray.exceptions.RayError:
            assert time.monotonic() < deadline, "the runner does not come back"
            threading.Event().wait(0.1)


def test_a_killed_and_a_stopped_runner_change_nothing(build, reference) -> None:
    algorithm, _ = build("resources.num_env_runners=2", "resources.num_reward_actors=0", "resources.shard_timeout_s=3")
    runners = list(algorithm._dealer._runners.values())
    algorithm.warm_up()
    hashes = []
    for number in range(ITERATIONS):
        process = process_of(runners[number % 2])
        breaking = signal.SIGKILL if number != 1 else signal.SIGSTOP
        timer = threading.Timer(0.01, os.kill, (process, breaking))  # while shards are drawn
        timer.start()
        algorithm.train()
        timer.join()
        hashes.append(algorithm.last_rollout.batch_hash)
        with suppress(ProcessLookupError):  # the dealer may have ended the one that hangs
            os.kill(process, signal.SIGKILL)
    assert hashes == reference[0]
    assert equal(algorithm.training_state(), reference[1])
    assert algorithm.dealer_counters.lost_runners >= 1


def test_an_error_in_a_shard_stops_the_run_with_the_runner_and_the_shard_named(build) -> None:
    algorithm, _ = build("resources.num_env_runners=1", "resources.num_reward_actors=0")
    weights = algorithm._weights()
    bad = weights._replace(digest="0" * 32)
    with pytest.raises(RunError, match=r"env runner 1 failed on shard 0 of iteration 1: .*digest"):
        algorithm._dealer.collect(bad, [ShardKey(0, 1, 0)])


def test_restoring_a_state_repeats_the_following_iterations_exactly(build) -> None:
    algorithm, rewards = build(*IN_PROCESS)
    algorithm.warm_up()
    algorithm.train()
    saved, scored, version = algorithm.training_state(), rewards.state(), rewards.version
    saved = {name: value.clone() for name, value in saved.items()}
    scored = {name: value.clone() for name, value in scored.items()}
    algorithm.train()
    first = algorithm.last_rollout.batch_hash, algorithm.training_state()
    algorithm.load_training_state(saved, 1)
    rewards.load_state(scored, version)
    algorithm.train()
    assert algorithm.last_rollout.batch_hash == first[0]
    assert equal(algorithm.training_state(), first[1])


def test_all_scores_of_a_batch_come_from_one_version_and_returns_are_standardised_over_the_batch(build) -> None:
    algorithm, _ = build(*IN_PROCESS)
    algorithm.warm_up()
    algorithm.train()
    rollout = algorithm.last_rollout
    assert {score.version for score in rollout.scores} == {1}
    rewards = np.concatenate([score.scores for score in rollout.scores]).astype(np.float64)
    returns = np.concatenate([shard.returns for shard in rollout.shards])
    repeated = np.repeat(rewards[:, None], returns.shape[1], axis=1)
    expected = (repeated - repeated.mean()) / (repeated.std(ddof=1) + 1e-7)
    np.testing.assert_allclose(returns, expected, atol=2e-5)


def test_the_noise_follows_its_schedule_and_travels_with_the_weights(build) -> None:
    algorithm, _ = build(
        *IN_PROCESS, "exploration.decay_interval_iterations=1", "exploration.decay=0.2", "exploration.min_std=0.3"
    )
    seen = []
    for _ in range(3):
        seen.append(float(algorithm.inference_state()["action_std"]))
        algorithm.train()
    np.testing.assert_allclose(seen, [0.6, 0.4, 0.3], atol=1e-6)


def test_an_interrupt_while_drawing_leaves_the_state_of_the_last_iteration(build) -> None:
    algorithm, rewards = build(*IN_PROCESS)
    algorithm.train()
    before = {name: value.clone() for name, value in algorithm.training_state().items()}
    algorithm.attach(rewards, lambda: True)
    with pytest.raises(RolloutInterruptedError):
        algorithm.train()
    assert equal(algorithm.training_state(), before)
    assert algorithm.iteration == 1


def test_the_frozen_generator_is_in_no_optimizer_and_no_state(build) -> None:
    algorithm, _ = build(*IN_PROCESS)
    algorithm.train()
    prefixes = {name.split(".")[1] for name in algorithm.training_state() if name.startswith("module.")}
    assert prefixes == {"actor", "critic", "action_std"}


@pytest.mark.parametrize("kind", ["per_class", "static"])
def test_tables_learn_by_the_same_algorithm(build, kind: str) -> None:
    algorithm, _ = build(*IN_PROCESS, f"policy.kind={kind}", "ppo.lr=0.01")
    before = algorithm.inference_state()["actor.table"].copy()
    algorithm.train()
    after = algorithm.inference_state()["actor.table"]
    changed = after != before
    assert changed.any()
    assert not changed[-1, ..., :2].any(), "ratio and confidence temperature have no effect at the last step"
