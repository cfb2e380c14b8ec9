"""What the environments need of the objects they are given; nothing else of the product is known here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from torch import Tensor, device, dtype


class SampleSpec(Protocol):
    """Name, shape, dtype and inclusive bounds of one sample."""

    name: str
    shape: tuple[int, ...]
    dtype: dtype
    low: float
    high: float


class ContextSpec(Protocol):
    """Labels 0 … num_classes - 1."""

    num_classes: int


class DecisionSpace(Protocol):
    """Turns actions `[B, A]` into decisions `[B, K]`."""

    num_actions: int
    num_decisions: int

    def decide(self, action: Tensor, step: int, carry: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Decision and the carry for the next step."""
        ...


class Observation(Protocol):
    """B half-drawn images at one step; features are None once nothing is left to decide."""

    sample: Tensor
    context: Tensor
    step: int
    features: Tensor | None


class GeneratorState(Protocol):
    """State of B drawings."""

    observation: Observation
    num_passes: Tensor


class Generator(Protocol):
    """Draws images in `horizon` steps under decisions."""

    horizon: int
    decision_space: DecisionSpace
    sample_spec: SampleSpec
    context_spec: ContextSpec
    feature_shape: tuple[int, int]
    image_shape: tuple[int, int, int]
    device: device

    def reset(self, context: Tensor, noise: Any, plan: Tensor | None = None) -> Any:
        """Starts drawings for labels `[B]`."""
        ...

    def step(self, state: Any, decision: Tensor) -> Any:
        """Takes one step."""
        ...

    def decode(self, sample: Tensor) -> Tensor:
        """Images `[B, C, H, W]` in [0, 1]."""
        ...


Scorer = Callable[[Tensor, Tensor], Tensor]
"""`(finished samples [B, …], labels [B]) -> rewards [B]`."""

NoiseFactory = Callable[[Tensor], Any]
"""`(seeds [B] int64) -> noise`, one independent stream per image."""

Contexts = np.ndarray
"""Labels that are drawn from, each entry equally likely, `[M]` int64."""
