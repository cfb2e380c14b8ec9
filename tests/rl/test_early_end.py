"""Steps behind the end of an image teach nothing, and what is learned does not depend on who computes the features."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from tests.rl.learners import HORIZON, SHARD_SIZE, assert_equal_to_rounding, gradients, random_shard
from tests.tiny import IN_PROCESS

# A base ratio that falls quickly and a wide noise: many images stop early
STOPPING = (
    "decisions.mask_ratio_cutoff=0.3",
    "decisions.guidance_cutoff=0.1",
    "decisions.base.curve_power=0.5",
    "exploration.std=1.0",
)


def test_rows_behind_the_end_are_as_if_they_were_not_there(make_learner) -> None:
    """The gradient is that of a batch in which the actions behind the end are other ones."""
    lengths = np.array([4, 4, 1, 2, 3, 4, 2, 4, 1, 4], np.int16)
    shards, others = [random_shard(0)], [random_shard(0)]
    for shard in (*shards, *others):
        shard.num_steps = lengths
    behind = ~shards[0].has_effect
    assert behind.sum() == (HORIZON - lengths).sum()
    others[0].actions[behind] += 5
    others[0].returns[behind] -= 3
    first, second = (gradients(make_learner("ppo.normalize_advantages=true"), given) for given in (shards, others))
    assert torch.equal(first[0], second[0])
    whole = [copy.deepcopy(shards[0])]
    whole[0].num_steps = None
    assert not torch.allclose(gradients(make_learner(), whole)[0], first[0])


def test_a_shard_of_whole_trajectories_says_the_same_with_and_without_lengths(make_learner) -> None:
    plain, told = [random_shard(1)], [random_shard(1)]
    told[0].num_steps = np.full(SHARD_SIZE, HORIZON, np.int16)
    assert_equal_to_rounding(gradients(make_learner(), told), gradients(make_learner(), plain))


@pytest.mark.parametrize(
    ("features", "both"), [("ppo.features=recompute", ()), ("ppo.features=disk", ("ppo.micro_batch_size=64",))]
)
def test_weights_are_the_same_whoever_computes_the_features(build, features: str, both: tuple[str, ...]) -> None:
    states, seen = [], []
    for overrides in ((), (features,)):
        algorithm, _ = build(*IN_PROCESS, *STOPPING, *both, *overrides)
        algorithm.warm_up()
        for _ in range(2):
            algorithm.train()
        shards = algorithm.last_rollout.shards
        seen.append(np.concatenate([shard.num_steps for shard in shards]))
        states.append(algorithm.training_state())
        for shard in shards:
            _check(shard, algorithm)
    assert np.array_equal(*seen)
    assert 0.1 < (seen[0] < HORIZON).mean() < 0.95
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def _check(shard, algorithm) -> None:
    """Lengths and passes of a shard against its own samples and decisions."""
    masked = (shard.samples == 128).any(axis=2)  # [B, T + 1]
    assert np.array_equal(masked[:, :-1].sum(axis=1), shard.num_steps)
    assert (shard.log_probs[~shard.has_effect] == 0).all()
    guided = shard.has_effect & (shard.decisions[:, :, 3] > 0)
    expected = shard.has_effect[:, 1:].sum(axis=1) + guided[:, 1:].sum(axis=1)
    assert np.array_equal(shard.num_passes, expected)
