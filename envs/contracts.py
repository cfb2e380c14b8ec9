"""What the environments need of the objects they are given; nothing else of the product is known here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from torch import Tensor, device, dtype


class SampleSpec(Protocol):
    """What one sample looks like."""

    @property
    def name(self) -> str:
        """Its key in observations."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape without the batch."""
        ...

    @property
    def dtype(self) -> dtype:
        """Of its tensor."""
        ...

    @property
    def low(self) -> float:
        """Least value."""
        ...

    @property
    def high(self) -> float:
        """Largest value."""
        ...


class ContextSpec(Protocol):
    """What images are conditioned on."""

    @property
    def num_contexts(self) -> int:
        """Contexts are 0 … num_contexts - 1."""
        ...


class DecisionSpace(Protocol):
    """Turns actions `[B, A]` into decisions `[B, K]`."""

    @property
    def num_actions(self) -> int:
        """A."""
        ...

    @property
    def num_decisions(self) -> int:
        """K."""
        ...

    def decide(self, action: Tensor, step: int, carry: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Decision and the carry for the next step."""
        ...


class Observation(Protocol):
    """B half-drawn images at one step."""

    @property
    def sample(self) -> Tensor:
        """`[B, *sample shape]`."""
        ...

    @property
    def context(self) -> Tensor:
        """Labels `[B]` int64."""
        ...

    @property
    def step(self) -> int:
        """T in [0, T]."""
        ...

    @property
    def features(self) -> Tensor | None:
        """`[B, L, D]` float32; None once nothing is left to decide."""
        ...


class Generator(Protocol):
    """Draws images in `horizon` steps under decisions; its states have `observation` and `num_passes` `[B]`.

    One that can finish images before the last step has `is_finished(sample [B, …]) -> [B] bool` too.
    """

    @property
    def horizon(self) -> int:
        """T."""
        ...

    @property
    def decision_space(self) -> DecisionSpace:
        """Of its decisions."""
        ...

    @property
    def sample_spec(self) -> SampleSpec:
        """Of its samples."""
        ...

    @property
    def context_spec(self) -> ContextSpec:
        """Of its contexts."""
        ...

    @property
    def feature_shape(self) -> tuple[int, int]:
        """L, D."""
        ...

    @property
    def device(self) -> device:
        """Where its tensors live."""
        ...

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
