"""Training without a critic on the shipped generator: contexts in groups, the same bits wherever they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adanat_rl.experiment.rollout_table import rollout_table
from adanat_rl.rl.algorithm import learner_metrics
from adanat_rl.rl.shards import hash_batch
from tests.tiny import IN_PROCESS

GROUP = 4
ADVANTAGES = ("critic", "group_relative", "leave_one_out")
SMALL = (f"ppo.group_size={GROUP}", "training.trajectories_per_iteration=32", "training.shard_size=16")


def test_images_of_a_group_share_a_context_and_nothing_else(build) -> None:
    algorithm, _ = build(*IN_PROCESS, *SMALL, "ppo.advantage=group_relative")
    shards = algorithm.sample(3)
    contexts = np.concatenate([shard.context for shard in shards]).reshape(-1, GROUP)
    assert (contexts == contexts[:, :1]).all()
    assert len(np.unique(contexts[:, 0])) > 3
    actions = np.concatenate([shard.actions for shard in shards])
    assert len(np.unique(actions[:, 0, 0])) == len(actions), "each image has noise of its own"
    assert hash_batch(algorithm.sample(3)) == hash_batch(shards)
    assert hash_batch(algorithm.sample(4)) != hash_batch(shards)


def test_with_a_critic_every_image_draws_its_own_context_whatever_the_group_size(build) -> None:
    two, eight = (build(*IN_PROCESS, *SMALL, f"ppo.group_size={size}")[0] for size in (2, 8))
    shards = two.sample(1)
    assert hash_batch(shards) == hash_batch(eight.sample(1))
    contexts = np.concatenate([shard.context for shard in shards]).reshape(-1, 2)
    assert (contexts[:, 0] != contexts[:, 1]).any()


def test_a_grouped_variant_learns_the_same_bits_with_no_and_with_one_remote_runner(build) -> None:
    settings = (*SMALL, "ppo.advantage=leave_one_out", "ppo.leash=kl", "resources.num_reward_actors=0")
    found = []
    for runners in (0, 1):
        algorithm, _ = build(*settings, f"resources.num_env_runners={runners}")
        algorithm.warm_up()
        hashes = []
        for _ in range(2):
            algorithm.train()
            hashes.append(algorithm.last_rollout.batch_hash)
        found.append((hashes, algorithm.training_state()))
    (first, state), (second, other) = found
    assert first == second
    assert state.keys() == other.keys()
    assert all(torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize("advantage", ["group_relative", "leave_one_out"])
def test_the_rollout_table_shows_the_advantages_that_were_learned_from(build, advantage: str) -> None:
    algorithm, _ = build(*IN_PROCESS, *SMALL, f"ppo.advantage={advantage}", "ppo.normalize_rewards=false")
    algorithm.train()
    table = rollout_table(algorithm.last_rollout).to_pydict()
    rewards = np.array(table["reward"], np.float64).reshape(-1, GROUP)
    mean = rewards.mean(1, keepdims=True)
    if advantage == "group_relative":
        expected = (rewards - mean) / (rewards.std(1, ddof=1, keepdims=True) + 1e-6)
    else:
        expected = (rewards - mean) * GROUP / (GROUP - 1)
    advantages = np.array(table["advantages"])
    assert (advantages == advantages[:, :1]).all()
    np.testing.assert_allclose(advantages[:, 0], expected.flatten(), rtol=1e-5, atol=1e-7)
    returns = np.concatenate([shard.returns for shard in algorithm.last_rollout.shards])
    np.testing.assert_array_equal(returns, np.array(table["reward"], np.float32)[:, None].repeat(4, axis=1))


@pytest.mark.parametrize("advantage", ADVANTAGES)
def test_smoothing_and_a_choice_of_decisions_work_with_every_variant(build, advantage: str) -> None:
    algorithm, _ = build(
        *IN_PROCESS,
        *SMALL,
        f"ppo.advantage={advantage}",
        "ppo.leash=kl",
        "decisions.smoothing=0.5",
        "decisions.learned=[mask_ratio,guidance_scale]",
    )
    before = algorithm.inference_state()
    metrics = learner_metrics(algorithm.train())
    after = algorithm.inference_state()
    assert any((after[name] != before[name]).any() for name in before)
    assert metrics["leash"] > 0
    (shard, *_) = algorithm.last_rollout.shards
    assert shard.actions.shape == (16, 4, 2)
    space = algorithm.env_runner_group.local_env_runner.env.unwrapped.generator.decision_space
    assert space.smoothing == 0.5
    kept = [space.names.index(name) for name in ("confidence_temperature", "sampling_temperature")]
    base = space.base_schedule.numpy()
    np.testing.assert_array_equal(shard.decisions[..., kept], np.broadcast_to(base[:, kept], (16, 4, 2)))
    carry = None
    for step in range(4):
        decision, carry = space.decide(torch.from_numpy(shard.actions[:, step]), step, carry)
        np.testing.assert_array_equal(shard.decisions[:, step], decision)
