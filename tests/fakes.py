"""Fakes that obey the product's contracts and refuse what breaks them.

`PointGenerator` is a generator of another kind than masked tokens: it draws a point of the plane in T steps under two
decisions and knows nothing of tokens. What a good decision is can be planted: one that differs from image to image and
that the features give away, one per class, or none that anybody could know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from adanat_rl.data.digits import ImageDataset
from adanat_rl.evaluation.judge import FD_A, Collected, JudgeNames
from adanat_rl.evaluation.panel.contract import Value
from adanat_rl.generation.decisions import Decision, DecisionSpace
from adanat_rl.generation.generator import ContextSpec, Observation, SampleSpec
from adanat_rl.generation.noise import Noise, Stream

Effect = Literal["per_image", "per_class", "none"]

EXTENT = 8.0  # the plane shown in an image: [-8, 8]²
STRENGTH = 0.8  # how far the best action of an image, or of a class, lies from 0
HIDDEN_STRENGTH = 0.3  # the same for what nobody can know


@dataclass(frozen=True)
class PointState:
    """B points in lock-step."""

    sample: Tensor  # [B, 2]: the trait of the image, and the cost so far
    hidden: Tensor  # [B]
    context: Tensor
    step: int
    noise: Noise
    features: Tensor | None
    num_passes: Tensor

    @property
    def observation(self) -> Observation:
        """What a policy sees."""
        return Observation(self.sample, self.context, self.step, self.features)


class PointGenerator:
    """Draws points; the cost of a step is the squared distance of its push from the best one, plus noise.

    Args:
        effect: what the best push depends on. horizon: T. num_classes: labels.
    """

    def __init__(self, effect: Effect = "per_image", horizon: int = 3, num_classes: int = 4) -> None:
        rows = (
            Decision("push", "softplus", base_low=0.05),
            Decision("damping", "sigmoid", high=0.9, effective_at_last=False),
        )
        base = np.tile([1.0, 0.5], (horizon, 1))
        self.effect: Effect = effect
        self.decision_space = DecisionSpace(rows, base)
        self.horizon = horizon
        self.sample_spec = SampleSpec("point", (2,), torch.float32, -1.0, 1e4, np.dtype(np.float32))
        self.context_spec = ContextSpec(num_classes)
        self.feature_shape = (4, 3)
        self.feature_dtype = torch.float32
        self.block_rows = 64
        self.image_shape = (1, 1, 2)
        self.device = torch.device("cpu")

    def with_base_schedule(self, base_schedule: np.ndarray) -> PointGenerator:
        """The same around another schedule."""
        other = PointGenerator(self.effect, len(base_schedule), self.context_spec.num_contexts)
        other.decision_space = self.decision_space.with_base_schedule(base_schedule)
        return other

    def reset(self, context: Tensor, noise: Noise, plan: Tensor | None = None) -> PointState:
        """A trait of -1 or 1 for each image, cost 0."""
        batch_size = len(context)
        assert context.dtype == torch.int64
        assert ((context >= 0) & (context < self.context_spec.num_contexts)).all()
        if plan is not None:
            assert plan.shape == (batch_size, self.horizon, self.decision_space.num_decisions)
        draws = noise.exponential(self.horizon, Stream.TOKENS, (2,))
        sides = torch.where(draws < np.log(2), -1.0, 1.0)
        sample = torch.stack([sides[:, 0], torch.zeros(batch_size)], dim=1)
        state = PointState(sample, sides[:, 1], context, 0, noise, None, torch.zeros(batch_size, dtype=torch.int64))
        return replace(state, features=self.features(state.observation))

    def step(self, state: PointState, decision: Tensor) -> PointState:
        """Adds the cost of the push."""
        assert state.step < self.horizon, "the trajectory is complete"
        assert decision.shape == (len(state.sample), 2), decision.shape
        assert decision.dtype == torch.float32
        assert (decision[:, 0] >= 0).all()
        assert ((decision[:, 1] >= 0) & (decision[:, 1] <= 0.9)).all()
        best = self.decision_space.decide(self._best_action(state), state.step)[0][:, 0]
        jitter = state.noise.exponential(state.step, Stream.TOKENS, (1,))[:, 0]
        cost = (decision[:, 0] - best) ** 2 + 0.05 * jitter
        sample = torch.stack([state.sample[:, 0], state.sample[:, 1] + cost], dim=1)
        state = replace(state, sample=sample, step=state.step + 1, num_passes=state.num_passes + 1)
        finished = state.step == self.horizon
        return replace(state, features=None if finished else self.features(state.observation))

    def features(self, observation: Observation) -> Tensor:
        """`[B, 4, 3]`: trait, cost and label, four times."""
        row = torch.cat([observation.sample, observation.context[:, None].float()], dim=1)
        return row[:, None].expand(-1, 4, -1).contiguous()

    def decode(self, sample: Tensor) -> Tensor:
        """Trait and cost as two pixels."""
        return (sample / (2 * EXTENT) + 0.5).clamp(0, 1).view(-1, 1, 1, 2)

    def _best_action(self, state: PointState) -> Tensor:
        known = {
            "per_image": state.sample[:, 0],
            "per_class": class_sides(state.context),
            "none": torch.zeros(len(state.sample)),
        }[self.effect]
        push = STRENGTH * known + HIDDEN_STRENGTH * state.hidden
        return torch.stack([push, torch.zeros_like(push)], dim=1)


def class_sides(context: Tensor) -> Tensor:
    """-1 for even labels, 1 for odd ones."""
    return (context % 2 * 2 - 1).float()


class ReadingActor(nn.Module):
    """An actor that reads trait and label off the features and pushes accordingly."""

    def __init__(self, trait: float, label: float) -> None:
        super().__init__()
        self.trait, self.label = trait, label

    def forward(self, features: Tensor, step: Tensor, context: Tensor) -> Tensor:
        """`[N, 2]` actions."""
        push = self.trait * features[:, 0, 0] + self.label * class_sides(features[:, 0, 2].long())
        return torch.stack([push, torch.zeros_like(push)], dim=1)


class CostJudge:
    """Judges points: their mean cost in place of a distance."""

    names = JudgeNames()
    values: tuple[Value, ...] = ()

    def begin(self, num_images: int) -> Collected:
        """An empty set."""
        return Collected(self)

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """The numbers of a real judge that the comparison reads."""
        assert len(images) == len(labels)
        return {FD_A: self.distance([images])}

    def distance(self, batches: Iterable[Tensor]) -> float:
        """Mean cost."""
        images = torch.cat(list(batches))
        assert images.shape[1:] == (1, 1, 2)
        return float((2 * EXTENT * (images[:, 0, 0, 1].double() - 0.5)).mean())


def point_dataset(num_images: int = 200, num_classes: int = 4) -> ImageDataset:
    """Real points with labels in turn."""
    labels = torch.arange(num_images) % num_classes
    return ImageDataset(torch.zeros(num_images, 1, 1, 2), labels, num_classes, "points")


class CountingNAT(nn.Module):
    """A NAT that counts the rows it is given, by label."""

    def __init__(self, nat: nn.Module) -> None:
        super().__init__()
        self.inner = nat
        self.vocab_size, self.num_classes, self.width = nat.vocab_size, nat.num_classes, nat.width
        self.rows_by_call: list[list[int]] = []
        self.tokens_seen: list[Tensor] = []

    def forward(self, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Counts, then asks the NAT."""
        self.rows_by_call.append(context.tolist())
        self.tokens_seen.append(tokens.clone())
        return self.inner(tokens, context)

    @property
    def num_rows(self) -> int:
        """Rows seen so far."""
        return sum(len(rows) for rows in self.rows_by_call)

    def rows_of(self, labels: Sequence[int]) -> Counter[int]:
        """How often each of `labels` was seen."""
        counts = Counter(label for rows in self.rows_by_call for label in rows)
        return Counter({label: counts[label] for label in labels})

    def forget(self) -> None:
        """Starts counting anew."""
        self.rows_by_call.clear()
        self.tokens_seen.clear()
