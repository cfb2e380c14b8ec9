"""Advantages without a critic, recomputed image by image."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import torch

from adanat_rl.config.schema import PPOConfig
from adanat_rl.rl.advantages import group_advantages, group_relative, leave_one_out, terminal_returns

GROUP = 4
REWARDS = torch.from_numpy(np.random.default_rng(0).random(5 * GROUP).astype(np.float32))


def groups() -> list[list[float]]:
    values = REWARDS.double().tolist()
    return [values[start : start + GROUP] for start in range(0, len(values), GROUP)]


def test_group_relative_advantages_are_standard_scores_within_the_group() -> None:
    expected = [(r - statistics.mean(group)) / statistics.stdev(group) for group in groups() for r in group]
    found = group_relative(REWARDS, GROUP)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_leave_one_out_compares_with_the_mean_of_the_others() -> None:
    expected = [group[i] - statistics.mean(group[:i] + group[i + 1 :]) for group in groups() for i in range(GROUP)]
    found = leave_one_out(REWARDS, GROUP)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_of_two_images_one_gains_what_the_other_loses() -> None:
    np.testing.assert_allclose(leave_one_out(torch.tensor([3.0, 1.0, 5.0, 6.0]), 2), [2, -2, -1, 1])


@pytest.mark.parametrize("reward", [0.0, 0.1, 0.7, 1e-3, -3e5])
@pytest.mark.parametrize("advantages", [group_relative, leave_one_out])
def test_a_group_of_equal_rewards_gives_zeros_and_leaves_the_others_alone(advantages, reward: float) -> None:
    rewards = torch.cat([REWARDS[:7], torch.full((7,), reward), REWARDS[:7]])
    found = advantages(rewards, 7)
    assert (found[7:14] == 0).all()
    assert torch.equal(found[:7], advantages(REWARDS[:7], 7))
    assert torch.equal(found[14:], found[:7])
    assert (found[:7] != 0).all()


def test_rounding_of_rewards_near_one_is_not_blown_up() -> None:
    nearly_equal = torch.tensor([1.0, 1.0 - 2**-24, 1.0, 1.0])
    assert nearly_equal[0] != nearly_equal[1]
    assert 0 < group_relative(nearly_equal, 4).abs().max() < 0.1


@pytest.mark.parametrize("size", [1, 3])
def test_groups_that_do_not_fit_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"group_size is {size}, expected a divisor of 20 rewards"):
        leave_one_out(REWARDS, size)


def test_returns_are_the_rewards_at_every_step_or_standardised() -> None:
    raw = terminal_returns(REWARDS, 3, standardise=False)
    assert raw.dtype == torch.float32
    assert torch.equal(raw, torch.stack([REWARDS] * 3, dim=1))
    standardised = terminal_returns(REWARDS, 3, standardise=True).double()
    assert standardised.mean().item() == pytest.approx(0, abs=1e-6)
    assert standardised.std().item() == pytest.approx(1, abs=1e-4)
    assert torch.equal(standardised[:, 0], standardised[:, 2])


def configured(kind: str, normalise: bool) -> torch.Tensor | None:
    ppo = PPOConfig(advantage=kind, group_size=GROUP, normalize_rewards=normalise)
    return group_advantages(REWARDS, terminal_returns(REWARDS, 3, standardise=normalise), ppo)


def test_a_critic_gets_no_group_advantages() -> None:
    assert configured("critic", True) is None


@pytest.mark.parametrize("normalise", [False, True])
def test_configured_advantages_are_the_same_at_every_step_and_in_the_units_that_were_asked_for(normalise: bool) -> None:
    relative, others = configured("group_relative", normalise), configured("leave_one_out", normalise)
    for found in (relative, others):
        assert found.shape == (len(REWARDS), 3)
        assert torch.equal(found[:, 0], found[:, 1])
        assert torch.equal(found[:, 0], found[:, 2])
    assert torch.equal(relative[:, 0], group_relative(REWARDS, GROUP))  # it has its own normalisation
    unit = np.repeat(REWARDS.double().numpy(), 3).std(ddof=1) if normalise else 1.0
    np.testing.assert_allclose(others[:, 0], leave_one_out(REWARDS, GROUP) / unit, rtol=1e-5, atol=1e-6)
