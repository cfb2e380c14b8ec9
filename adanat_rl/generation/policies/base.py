"""Generation policies: whatever yields the decisions of a trajectory, and the loop that draws images with one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from adanat_rl.generation.blocks import run_in_blocks
from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.generator import Generator, Observation
from adanat_rl.generation.noise import Noise


class GenerationPolicy(Protocol):
    """Yields decisions `[B, K]` step by step, or all of them at once where they do not depend on the image."""

    def plan(self, context: Tensor) -> Tensor | None:
        """Decisions `[B, T, K]` if known before the drawing starts, else None."""
        ...

    def decide(self, observation: Observation, carry: Any = None) -> tuple[Tensor, Any]:
        """Decision `[B, K]` for the observed step, and what the next call wants back as `carry`."""
        ...

    def for_images(self, rows: Tensor) -> GenerationPolicy:
        """The policy for the images at `rows` of a larger set; itself unless it knows the images one by one."""
        ...

    def to(self, device: torch.device) -> GenerationPolicy:
        """The policy with its tensors on a device."""
        ...


class SchedulePolicy:
    """The same decisions for every image.

    Args:
        schedule: `[T, K]`.
    """

    def __init__(self, schedule: Tensor) -> None:
        self.schedule = schedule

    def plan(self, context: Tensor) -> Tensor:
        """The schedule, once per image."""
        return self.schedule.to(context.device).expand(len(context), *self.schedule.shape)

    def decide(self, observation: Observation, carry: Any = None) -> tuple[Tensor, Any]:
        """The row of the observed step."""
        row = self.schedule[observation.step].to(observation.context.device)
        return row.expand(len(observation.context), -1), None

    def for_images(self, rows: Tensor) -> SchedulePolicy:
        """Itself."""
        return self

    def to(self, device: torch.device) -> SchedulePolicy:
        """The same on a device."""
        return SchedulePolicy(self.schedule.to(device))


class ClassSchedulePolicy:
    """A schedule per class.

    Args:
        schedules: `[C, T, K]`.
    """

    def __init__(self, schedules: Tensor) -> None:
        self.schedules = schedules

    def plan(self, context: Tensor) -> Tensor:
        """The schedule of each image's class."""
        return self.schedules.to(context.device)[context]

    def decide(self, observation: Observation, carry: Any = None) -> tuple[Tensor, Any]:
        """The rows of the observed step."""
        return self.plan(observation.context)[:, observation.step], None

    def for_images(self, rows: Tensor) -> ClassSchedulePolicy:
        """Itself."""
        return self

    def to(self, device: torch.device) -> ClassSchedulePolicy:
        """The same on a device."""
        return ClassSchedulePolicy(self.schedules.to(device))


class FixedDecisionsPolicy:
    """Given decisions, image by image: what the shuffle controls replay.

    Args:
        decisions: `[B, T, K]`, in the order of the images.
    """

    def __init__(self, decisions: Tensor) -> None:
        self.decisions = decisions

    def plan(self, context: Tensor) -> Tensor:
        """The decisions as given."""
        return self.decisions

    def decide(self, observation: Observation, carry: Any = None) -> tuple[Tensor, Any]:
        """The decisions of the observed step."""
        return self.decisions[:, observation.step], None

    def for_images(self, rows: Tensor) -> FixedDecisionsPolicy:
        """The decisions of those images."""
        return FixedDecisionsPolicy(self.decisions[rows])

    def to(self, device: torch.device) -> FixedDecisionsPolicy:
        """The same on a device."""
        return FixedDecisionsPolicy(self.decisions.to(device))


class ActorPolicy:
    """A learned actor without exploration noise: its mean action, turned into a decision.

    Args:
        actor: `(features [B, L, D], step [B], context [B]) -> action [B, A]`.
        decision_space: turns actions into decisions.
        block_rows: rows of one call of the actor (see `blocks`).
    """

    def __init__(self, actor: nn.Module, decision_space: DecisionSpace, block_rows: int) -> None:
        self.actor = actor.eval()
        self.decision_space = decision_space
        self.block_rows = block_rows

    def plan(self, context: Tensor) -> None:
        """None: it looks at the image."""
        return

    @torch.no_grad()
    def decide(self, observation: Observation, carry: Any = None) -> tuple[Tensor, Any]:
        """The decision of the mean action; the carry holds the smoothed pre-activations."""
        action = actor_mean(self.actor, observation, self.block_rows)
        return self.decision_space.decide(action, observation.step, carry)

    def for_images(self, rows: Tensor) -> ActorPolicy:
        """Itself."""
        return self

    def to(self, device: torch.device) -> ActorPolicy:
        """Itself, with its actor moved."""
        self.actor.to(device)
        return self


def actor_mean(actor: nn.Module, observation: Observation, block_rows: int) -> Tensor:
    """Mean action `[B, A]` of an actor, computed in blocks so that it does not depend on the batch."""
    context = observation.context
    step = torch.full_like(context, observation.step)
    if observation.features is None:
        raise ValueError(f"nothing is left to decide at step {observation.step}")

    def call(features: Tensor, step: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        return (actor(features, step, context),)

    return run_in_blocks(call, block_rows, observation.features, step, context)[0]


@dataclass(frozen=True)
class Drawing:
    """Finished images and how they came about.

    Args:
        sample: `[B, *sample shape]`. decisions: `[B, T, K]`. num_passes: `[B]` int64.
        steps: the sample after each step, `[B, T, *sample shape]`; None unless asked for.
    """

    sample: Tensor
    decisions: Tensor
    num_passes: Tensor
    steps: Tensor | None = None


@torch.no_grad()
def draw(
    generator: Generator, policy: GenerationPolicy, context: Tensor, noise: Noise, *, keep_steps: bool = False
) -> Drawing:
    """Draws one image per context.

    Args:
        context: `[B]` int64.
        noise: per image (`ImageNoise`), so that images do not depend on their batch mates.
        keep_steps: whether the result holds the half-drawn samples too.
    """
    state = generator.reset(context, noise, policy.plan(context))
    decisions, steps, carry = [], [], None
    for _ in range(generator.horizon):
        decision, carry = policy.decide(state.observation, carry)
        state = generator.step(state, decision)
        decisions.append(decision)
        if keep_steps:
            steps.append(state.observation.sample)
    return Drawing(
        sample=state.observation.sample,
        decisions=torch.stack(decisions, dim=1),
        num_passes=state.num_passes,
        steps=torch.stack(steps, dim=1) if keep_steps else None,
    )
