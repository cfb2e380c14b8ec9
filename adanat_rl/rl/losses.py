"""The mathematics of PPO as pure functions (parity data `ppo`).

Actions `[N, A]`, masks `[N, A]` of entries with effect, per-sample quantities `[N]`; all float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

_RETURN_EPS = 1e-7
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def gaussian_log_prob(action: Tensor, mean: Tensor, std: Tensor, effect_mask: Tensor) -> Tensor:
    """Log-density `[N]` of a diagonal Gaussian, over the entries that have an effect."""
    standardised = (action - mean) / std
    log_density = -0.5 * standardised**2 - std.log() - _HALF_LOG_2PI
    return (log_density * effect_mask).sum(dim=-1)


def gaussian_entropy(std: Tensor, effect_mask: Tensor) -> Tensor:
    """Entropy `[N]` of a diagonal Gaussian, over the entries that have an effect."""
    return ((0.5 + _HALF_LOG_2PI + std.log()) * effect_mask).sum(dim=-1)


def standardise_returns(rewards: Tensor, horizon: int) -> Tensor:
    """Terminal rewards `[B]` as standardised returns `[B, T]` (γ = 1, reward only at the end).

    Mean and unbiased standard deviation are those over all T steps of all trajectories, in float64: equal rewards give
    zeros, not rounding errors divided by next to nothing.
    """
    returns = rewards.double()[:, None].expand(-1, horizon)
    return ((returns - returns.mean()) / (returns.std() + _RETURN_EPS)).to(rewards.dtype)


def leash_distance(mean: Tensor, base: Tensor, std: Tensor, effect_mask: Tensor, kind: Literal["kl", "l2"]) -> Tensor:
    """How far `[N]` the policy has gone from the base schedule, over the action entries that have an effect.

    Args:
        mean: `[N, A]` of the policy. base: `[N, A]` actions whose decisions are the base schedule.
        std: of the action noise, which broadcasts.
        kind: kl: `KL(N(mean, std) ‖ N(base, std)) = Σ (mean - base)² / (2 std²)`; l2: `Σ (mean - base)²`.
    """
    squares = (mean - base) ** 2
    if kind == "kl":
        squares = squares / (2 * std**2)
    return (squares * effect_mask).sum(dim=-1)


@dataclass(frozen=True)
class PPOLoss:
    """The loss and its parts before their weights, scalars; 0 for parts that are left out."""

    total: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor
    leash: Tensor
    approx_kl: Tensor
    clip_fraction: Tensor


def ppo_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantages: Tensor,
    values: Tensor | None,
    returns: Tensor,
    entropy: Tensor,
    leash: Tensor | None = None,
    *,
    clip: float,
    value_coefficient: float,
    entropy_coefficient: float,
    leash_coefficient: float = 0.0,
) -> PPOLoss:
    """`mean(-min(r·A, clip(r)·A)) + c_v·mean((V - R)²) - c_e·mean(entropy)` (Schulman et al. 2017, equation 9), plus
    `c_l·mean(leash)`.

    Args:
        values: `[N]`; None where no critic is learned. leash: `[N]` of `leash_distance`; None without one.
    """
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    policy = -surrogate.mean()
    value = functional.mse_loss(values, returns) if values is not None else policy.new_zeros(())
    mean_entropy = entropy.mean()
    with torch.no_grad():
        approx_kl = (ratio - 1 - log_ratio).mean()
        clip_fraction = ((ratio - 1).abs() > clip).float().mean()
    total = policy + value_coefficient * value if values is not None else policy
    total = total - entropy_coefficient * mean_entropy
    distance = leash.mean() if leash is not None else policy.new_zeros(())
    if leash is not None:
        total = total + leash_coefficient * distance
    return PPOLoss(total, policy, value, mean_entropy, distance, approx_kl, clip_fraction)


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """1 - Var(R - V) / Var(R); 0 where the returns do not vary."""
    variance = returns.var()
    return 1 - (returns - values).var() / variance if variance > 0 else torch.zeros(())
