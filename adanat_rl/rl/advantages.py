"""Returns and critic-free advantages of terminal rewards; with γ = 1 both are the same at all T steps.

Rewards are `[B]`, in the order of the trajectories. Without a critic an image is compared with others of its context:
a group is G consecutive images, and G divides B.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adanat_rl.config.schema import PPOConfig
from adanat_rl.rl.losses import standardise_returns

_GROUP_EPS = 1e-6  # far above the rounding of scores near 1, which must not be blown up to advantages


def terminal_returns(rewards: Tensor, horizon: int, *, standardise: bool) -> Tensor:
    """Returns float32 `[B, T]`: the rewards, standardised over the batch or as they are."""
    if standardise:
        return standardise_returns(rewards, horizon)
    return rewards[:, None].repeat(1, horizon)


def group_relative(rewards: Tensor, group_size: int) -> Tensor:
    """`(r - mean) / (sd + eps)` over each group, `[B]` (GRPO: Shao et al. 2024, DeepSeekMath, section 4.1.2, outcome
    supervision).

    The sd is the unbiased one, which the paper leaves open. A group of equal rewards gives zeros.
    """
    groups = _groups(rewards, group_size)
    deviations = groups - groups.mean(dim=1, keepdim=True)
    return _ungrouped(deviations / (groups.std(dim=1, keepdim=True) + _GROUP_EPS), rewards)


def leave_one_out(rewards: Tensor, group_size: int) -> Tensor:
    """Reward minus the mean of the others of its group, `[B]` (RLOO: Ahmadian et al. 2024, after Kool et al. 2019)."""
    groups = _groups(rewards, group_size)
    others = (groups.sum(dim=1, keepdim=True) - groups) / (group_size - 1)
    return _ungrouped(groups - others, rewards)


def group_advantages(rewards: Tensor, returns: Tensor, ppo: PPOConfig) -> Tensor | None:
    """Advantages `[B, T]` of the configured kind; None where they take a critic.

    Args:
        rewards: `[B]` raw. returns: `[B, T]` of `terminal_returns`: what leave_one_out compares, so that it is divided
            by the batch's sd where rewards are normalised.
    """
    if ppo.advantage == "critic":
        return None
    if ppo.advantage == "group_relative":
        advantages = group_relative(rewards, ppo.group_size)
    else:
        advantages = leave_one_out(returns[:, 0], ppo.group_size)
    return advantages[:, None].repeat(1, returns.shape[1])


def _groups(rewards: Tensor, group_size: int) -> Tensor:
    """`[B / G, G]` in float64: sums of equal float32 numbers are exact, and what they leave is zero."""
    if group_size < 2 or len(rewards) % group_size:
        raise ValueError(f"group_size is {group_size}, expected a divisor of {len(rewards)} rewards, at least 2")
    return rewards.to(torch.float64).view(-1, group_size)


def _ungrouped(groups: Tensor, like: Tensor) -> Tensor:
    return groups.flatten().to(like.dtype)
