"""The contract of a generator: whatever draws an image in T steps under decisions.

Environment, policies, algorithm, rewards and evaluator speak to this alone. What is drawn is called the sample: token
ids for a masked-token generator, latents for a diffusion one. A generator holds frozen networks; the state of a batch
of drawings is a value that its methods take and return.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.noise import Noise


@dataclass(frozen=True)
class SampleSpec:
    """What one sample looks like: `name` in observations, shape without the batch, dtype, inclusive bounds.

    `storage_dtype` is the smallest dtype that holds every value: what travels between processes and onto the disk.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    low: float
    high: float
    storage_dtype: np.dtype[Any]

    def restored(self, stored: np.ndarray) -> Tensor:
        """Stored samples `[...]` as a tensor in `dtype`, on the CPU, in memory of its own; every value is kept."""
        whole = stored.astype(np.int64) if stored.dtype.kind in "iu" else stored.copy()
        return torch.from_numpy(whole).to(self.dtype)


@dataclass(frozen=True)
class ContextSpec:
    """What an image is conditioned on, named by integers 0 … num_contexts-1; the generator adds the null value itself.

    `kind` says what the integers mean: class labels, or rows of a table of captions. A caption's embedding never leaves
    the processes that hold the table.
    """

    num_contexts: int
    kind: Literal["class", "text"] = "class"


@dataclass(frozen=True)
class Observation:
    """What a policy may look at: B half-drawn images, all at the same step.

    Args:
        sample: `[B, *sample shape]`.
        context: `[B]` int64.
        step: t in [0, T].
        features: `[B, L, D]` float32; None once nothing is left to decide.
    """

    sample: Tensor
    context: Tensor
    step: int
    features: Tensor | None


class GeneratorState(Protocol):
    """State of B drawings in lock-step; generators add what they need."""

    @property
    def observation(self) -> Observation:
        """What a policy sees of this state."""
        ...

    @property
    def num_passes(self) -> Tensor:
        """`[B]` int64: how often each image went through the network so far (an unconditional pass counts as one)."""
        ...


class Generator(Protocol):
    """Draws images in `horizon` steps. All tensors live on `device`.

    A generator that can finish an image before the last step has `is_finished(sample) -> [B] bool` too: further steps
    then change nothing and cost nothing. See `finished`.
    """

    horizon: int
    decision_space: DecisionSpace
    sample_spec: SampleSpec
    context_spec: ContextSpec
    feature_shape: tuple[int, int]  # L, D
    feature_dtype: torch.dtype  # the smallest that holds the features without loss; they are handed out as float32
    image_shape: tuple[int, int, int]  # C, H, W
    block_rows: int  # rows of one network call, and so of one call of a policy's actor
    device: torch.device

    def with_base_schedule(self, base_schedule: np.ndarray) -> Generator:
        """The same networks around another base schedule `[T, K]`, whose length is the new horizon."""
        ...

    def reset(self, context: Tensor, noise: Noise, plan: Tensor | None = None) -> Any:
        """Starts B drawings.

        Args:
            context: `[B]` int64.
            noise: the randomness of the whole trajectory.
            plan: decisions `[B, T, K]` when they are known beforehand, so that work they rule out is left undone.

        Returns:
            A `GeneratorState`.
        """
        ...

    def step(self, state: Any, decision: Tensor) -> Any:
        """Takes one step under `decision` `[B, K]` and returns the next state."""
        ...

    def features(self, observation: Observation) -> Tensor:
        """Features `[B, L, D]` of observed samples, the same bits as those that the state carried."""
        ...

    def decode(self, sample: Tensor) -> Tensor:
        """Images float32 `[B, C, H, W]` in [0, 1] of samples; unfinished parts are shown as the generator sees fit."""
        ...


def finished(generator: Generator, sample: Tensor) -> Tensor:
    """`[B]` bool: images whose sample `[B, *sample shape]` no decision can change any more; none of them for a
    generator that does not finish images early. It says nothing of the last step, after which all are finished.
    """
    is_finished = getattr(generator, "is_finished", None)
    if is_finished is None:
        return torch.zeros(len(sample), dtype=torch.bool, device=sample.device)
    found: Tensor = is_finished(sample)
    return found
