"""The decision space: which parameters a generator takes in each step, and how a policy's action becomes them.

An action is an offset in pre-activation space; the decision is `activation(base + offset)`, optionally smoothed over
the steps, within bounds. Everything above `generation/` knows decisions only by what stands here: names, bounds, effect
mask. Decisions are float32 `[B, K]`, actions float32 `[B, A]` with A ≤ K.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Activation = Literal["sigmoid", "softplus"]

_SIGMOID_EPS = 1e-6  # AdaGen's clamp of the inverse sigmoid's argument


@dataclass(frozen=True)
class Decision:
    """One parameter of a step.

    Args:
        name: standard name, unique in its space.
        activation: maps the pre-activation to the value.
        low, high: bounds of the value; `high` None means unbounded.
        base_low, base_high: the base schedule is moved into these before its activation is inverted, so that an action
            of a few units can change the value. None means no limit.
        effective_at_last: whether the last step of a trajectory makes any use of it.
        scale: the activation times this is the value: 4096 with "sigmoid" for a top-k of AdaGen's VAR.
        zero_below: values below are exactly 0, where that saves work.
    """

    name: str
    activation: Activation
    low: float = 0.0
    high: float | None = None
    base_low: float | None = None
    base_high: float | None = None
    effective_at_last: bool = True
    scale: float = 1.0
    zero_below: float = 0.0

    def value(self, pre_activation: Tensor) -> Tensor:
        """The value of a pre-activation within the bounds, elementwise."""
        value = (self.scale * activate(pre_activation, self.activation)).clamp(self.low, self.high)
        return torch.where(value < self.zero_below, 0.0, value) if self.zero_below else value

    def pre_activation(self, value: np.ndarray) -> np.ndarray:
        """Pre-activation of a value, elementwise in float64."""
        return inverse_activation(np.asarray(value, np.float64) / self.scale, self.activation)


def activate(pre_activation: Tensor, activation: Activation) -> Tensor:
    """Value of a pre-activation, elementwise."""
    return torch.sigmoid(pre_activation) if activation == "sigmoid" else functional.softplus(pre_activation)


def inverse_activation(value: np.ndarray, activation: Activation) -> np.ndarray:
    """Pre-activation of a value, elementwise in float64; the ends are moved inward so that the result is finite."""
    value = np.asarray(value, np.float64)
    if activation == "sigmoid":
        value = np.clip(value, _SIGMOID_EPS, 1 - _SIGMOID_EPS)
        return np.log(value) - np.log1p(-value)
    value = np.maximum(value, np.finfo(np.float32).tiny)
    return value + np.log(-np.expm1(-value))


def inverse_smoothing(pre_activations: np.ndarray, smoothing: float) -> np.ndarray:
    """Residuals `[T, K]` whose exponential moving average is `pre_activations` (AdaGen: zero action gives the base
    schedule).
    """
    residual = pre_activations.copy()
    residual[1:] = (pre_activations[1:] - smoothing * pre_activations[:-1]) / (1 - smoothing)
    return residual


def effective_entries(decisions: Sequence[Decision], horizon: int) -> np.ndarray:
    """`[T, K]` bool: decisions that make a difference at a step."""
    mask = np.ones((horizon, len(decisions)), bool)
    mask[-1] = [decision.effective_at_last for decision in decisions]
    return mask


class DecisionSpace:
    """Maps actions to decisions for a horizon of T steps and K decisions, A of them learned.

    Args:
        decisions: the K rows, in the order of the generator.
        base_schedule: `[T, K]` values of the hand-made schedule.
        learned: names of the decisions that the policy sets; the others keep their base value.
        residual: whether the action is an offset to the base schedule (True) or the whole pre-activation (False).
        smoothing: s of the moving average over the steps, `p_t = s·p_{t-1} + (1-s)·a_t`; 0 switches it off.
        mask_ineffective: whether entries without effect stay out of the log-probability (False: the paper's behaviour).

    Raises:
        ValueError: an unknown name, a base schedule of the wrong shape or a smoothing outside [0, 1).
    """

    def __init__(
        self,
        decisions: Sequence[Decision],
        base_schedule: np.ndarray,
        learned: Sequence[str] | None = None,
        *,
        residual: bool = True,
        smoothing: float = 0.0,
        mask_ineffective: bool = True,
    ) -> None:
        self.decisions = tuple(decisions)
        self.names = tuple(decision.name for decision in self.decisions)
        self.learned = self.names if learned is None else tuple(name for name in self.names if name in learned)
        unknown = [name for name in learned or () if name not in self.names]
        if unknown:
            raise ValueError(f"unknown decision {unknown[0]!r}; this generator has {', '.join(self.names)}")
        base = np.asarray(base_schedule, np.float64)
        if base.ndim != 2 or base.shape[1] != len(self.names):
            raise ValueError(f"base schedule has shape {base.shape}, expected [T, {len(self.names)}]")
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing is {smoothing}, expected 0 ≤ smoothing < 1")
        self.horizon = len(base)
        self.residual = residual
        self.smoothing = smoothing
        self.mask_ineffective = mask_ineffective
        self.base_schedule = torch.from_numpy(base.astype(np.float32))
        self._learned_columns = [self.names.index(name) for name in self.learned]
        self._offset = torch.from_numpy(self._action_offsets(base).astype(np.float32))

    def can_be_zero(self, name: str) -> bool:
        """Whether the policy may set a decision to exactly 0."""
        return name in self.learned and self.decisions[self.names.index(name)].zero_below > 0

    def with_base_schedule(self, base_schedule: np.ndarray) -> DecisionSpace:
        """The same space around another base schedule `[T, K]`, whose length is the new horizon."""
        return DecisionSpace(
            self.decisions,
            base_schedule,
            self.learned,
            residual=self.residual,
            smoothing=self.smoothing,
            mask_ineffective=self.mask_ineffective,
        )

    @property
    def num_decisions(self) -> int:
        """K."""
        return len(self.names)

    @property
    def num_actions(self) -> int:
        """A."""
        return len(self.learned)

    @property
    def effective(self) -> np.ndarray:
        """`[T, K]` bool: decisions that make a difference at a step."""
        return effective_entries(self.decisions, self.horizon)

    @property
    def effect_mask(self) -> Tensor:
        """`[T, A]` bool: entries of an action that change the trajectory, all True when masking is switched off."""
        mask = torch.from_numpy(self.effective[:, self._learned_columns])
        return mask if self.mask_ineffective else torch.ones_like(mask)

    def decide(self, action: Tensor, step: int, carry: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The decision of one step.

        Args:
            action: `[B, A]` float32.
            step: t in [0, T).
            carry: smoothed pre-activations `[B, A]` of the step before; None at step 0.

        Returns:
            The decision `[B, K]` and the carry for the next step.
        """
        pre = action + self._offset[step].to(action.device)
        if self.smoothing and carry is not None:
            pre = self.smoothing * carry + (1 - self.smoothing) * pre
        return self.from_pre_activations(pre, step), pre

    def from_pre_activations(self, pre_activations: Tensor, step: int) -> Tensor:
        """The decision `[B, K]` of pre-activations `[B, A]`; decisions that are not learned keep their base value."""
        decision = self.base_schedule[step].to(pre_activations.device).repeat(len(pre_activations), 1)
        for index, column in enumerate(self._learned_columns):
            decision[:, column] = self.decisions[column].value(pre_activations[:, index])
        return decision

    def base_pre_activations(self, schedule: np.ndarray) -> np.ndarray:
        """Pre-activations `[T, A]` (float64) of a schedule `[T, K]`, moved into the base bounds first."""
        columns = []
        for column in self._learned_columns:
            row = self.decisions[column]
            low = -math.inf if row.base_low is None else row.base_low
            high = math.inf if row.base_high is None else row.base_high
            columns.append(row.pre_activation(np.clip(schedule[:, column], low, high)))
        return np.stack(columns, axis=1) if columns else np.zeros((len(schedule), 0))

    def _action_offsets(self, base: np.ndarray) -> np.ndarray:
        if not self.residual:
            return np.zeros((self.horizon, self.num_actions))
        return inverse_smoothing(self.base_pre_activations(base), self.smoothing)
