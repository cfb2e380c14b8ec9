"""Controls that tell whether a policy is adaptive: its own decisions, dealt to other images.

If an image fares as well with the decisions made for another image of its class, the policy is adaptive per class at
most; if with those of any image, it is a schedule. Each control draws the same images with the same seeds as the
policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor

from adanat_rl.evaluation.verdicts import ALPHA, MARGIN, paired_difference
from adanat_rl.generation.generator import Generator
from adanat_rl.generation.policies.base import FixedDecisionsPolicy


class Control(StrEnum):
    """How decisions are dealt."""

    SHUFFLED = "shuffled_over_all"  # to any other image
    SHUFFLED_WITHIN_CLASS = "shuffled_within_class"  # to another image of the same class
    MEAN = "mean_as_schedule"  # their mean, for every image
    CLASS_MEAN = "mean_per_class"  # their mean over the class


class Adaptivity(StrEnum):
    """What the controls say about a policy."""

    PER_IMAGE = "per_image"
    PER_CLASS = "per_class"
    PER_CLASS_AT_LEAST = "per_class_at_least"  # whether per image too, the seeds cannot tell
    PER_IMAGE_OR_CAPTION = "per_image_or_caption"
    NONE = "none"
    UNKNOWN = "unknown"  # too few seeds to tell


@dataclass(frozen=True)
class Verdict:
    """Adaptivity of a policy with the evidence.

    Args:
        adaptivity: the conclusion. sentence: the same in plain words.
        p_within_class, p_over_all: one-sided p-values that the shuffled decisions are worse, paired by seed.
        loss_within_class, loss_over_all: mean increase of the distance under the two shuffles.
        What concerns classes is None where there are none.
    """

    adaptivity: Adaptivity
    sentence: str
    p_within_class: float | None
    p_over_all: float
    loss_within_class: float | None
    loss_over_all: float


def possible_controls(generator: Generator) -> tuple[Control, ...]:
    """Captions are drawn once each, so nothing can be dealt or averaged among images of the same one."""
    if generator.context_spec.kind == "text":
        return Control.SHUFFLED, Control.MEAN
    return tuple(Control)


def deal(control: Control, decisions: Tensor, context: Tensor, seed: int) -> FixedDecisionsPolicy:
    """The policy of a control.

    Args:
        decisions: `[N, T, K]` of the policy, image by image. context: `[N]` labels.
        seed: of the shuffle.
    """
    if control is Control.MEAN:
        return FixedDecisionsPolicy(decisions.mean(dim=0).expand_as(decisions))
    if control is Control.CLASS_MEAN:
        return FixedDecisionsPolicy(_class_means(decisions, context)[context])
    generator = np.random.default_rng(seed)
    if control is Control.SHUFFLED:
        return FixedDecisionsPolicy(decisions[torch.from_numpy(_derangement(len(decisions), generator))])
    order = np.arange(len(decisions))
    labels = context.cpu().numpy()
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        order[rows] = rows[_derangement(len(rows), generator)]
    return FixedDecisionsPolicy(decisions[torch.from_numpy(order)])


def judge_adaptivity(policy: list[float], within_class: list[float] | None, over_all: list[float]) -> Verdict:
    """Compares distances paired by seed.

    That shuffled decisions are worse is said by a one-sided paired t-test at 5 %. That they are as good is said only
    where the same test shows that they are worse by less than a margin: `MARGIN` of the policy's distance.

    Args:
        policy, within_class, over_all: distance (lower is better) of each seed under the policy and the two shuffles;
            `within_class` is None where there are no classes.

    Raises:
        ValueError: fewer than two seeds: nothing can be said.
    """
    if len(policy) < 2:
        raise ValueError(f"adaptivity needs at least 2 seeds, got {len(policy)}")
    everywhere = _Loss.of(policy, over_all)
    if within_class is None:
        if everywhere.is_shown:
            sentence = (
                "The policy is adaptive, to the image or to its caption: given to other images its decisions are worse "
                f"by {everywhere.told}."
            )
            return _verdict(Adaptivity.PER_IMAGE_OR_CAPTION, sentence, None, everywhere)
        return _verdict(*_not_adaptive(everywhere, len(policy)), None, everywhere)
    inside = _Loss.of(policy, within_class)
    if inside.is_shown:
        sentence = (
            "The policy is adaptive per image: the same decisions given to other images of the same class are worse by "
            f"{inside.told}."
        )
        return _verdict(Adaptivity.PER_IMAGE, sentence, inside, everywhere)
    if not everywhere.is_shown:
        return _verdict(*_not_adaptive(everywhere, len(policy)), inside, everywhere)
    start = f"given to other images its decisions are worse by {everywhere.told}"
    if inside.is_too_little:
        sentence = (
            f"The policy is adaptive per class only: {start}, within a class by no more than the margin of "
            f"{inside.margin:.3f} ({inside.range})."
        )
        return _verdict(Adaptivity.PER_CLASS, sentence, inside, everywhere)
    sentence = (
        f"The policy is adaptive: {start}. Whether per image or only per class, {len(policy)} seeds cannot tell: "
        f"within a class the change is {inside.mean:+.3f} ({inside.range}; margin {inside.margin:.3f})."
    )
    return _verdict(Adaptivity.PER_CLASS_AT_LEAST, sentence, inside, everywhere)


@dataclass(frozen=True)
class _Loss:
    """How much worse shuffled decisions are: mean, bounds of the 90 % interval, margin, p-value that it is above 0."""

    mean: float
    low: float
    high: float
    margin: float
    p: float

    @classmethod
    def of(cls, policy: list[float], shuffled: list[float]) -> _Loss:
        margin = MARGIN * abs(float(np.mean(policy)))
        found = paired_difference(policy, shuffled, margin)
        return cls(found.mean, found.low_90, found.high_90, margin, found.p_better)

    @property
    def is_too_little(self) -> bool:
        return self.high <= self.margin

    @property
    def is_shown(self) -> bool:
        return self.p < ALPHA and not self.is_too_little

    @property
    def told(self) -> str:
        return f"{self.mean:.3f} (p = {self.p:.2g})"

    @property
    def range(self) -> str:
        return f"90 % interval {self.low:+.3f} to {self.high:+.3f}"


def _verdict(adaptivity: Adaptivity, sentence: str, inside: _Loss | None, everywhere: _Loss) -> Verdict:
    within = (None, None) if inside is None else (inside.p, inside.mean)
    return Verdict(adaptivity, sentence, within[0], everywhere.p, within[1], everywhere.mean)


def _not_adaptive(loss: _Loss, num_seeds: int) -> tuple[Adaptivity, str]:
    if loss.is_too_little:
        return Adaptivity.NONE, (
            "The policy is not adaptive: given to other images its decisions are worse by no more than the margin "
            f"of {loss.margin:.3f} ({loss.range}); a schedule would do."
        )
    return Adaptivity.UNKNOWN, (
        f"Whether the policy is adaptive, {num_seeds} seeds cannot tell: its decisions given to other images change "
        f"the distance by {loss.mean:+.3f} ({loss.range}), of which less than {loss.margin:.3f} would not matter; more "
        "seeds may tell (evaluation.num_seeds)."
    )


def _class_means(decisions: Tensor, context: Tensor) -> Tensor:
    """Mean decisions `[C, T, K]` of each label up to the largest."""
    num_classes = int(context.max()) + 1
    sums = decisions.new_zeros(num_classes, *decisions.shape[1:]).index_add_(0, context, decisions)
    counts = torch.bincount(context, minlength=num_classes).clamp(min=1)
    return sums / counts[:, None, None]


def _derangement(size: int, generator: np.random.Generator) -> np.ndarray:
    """A permutation without fixed points (a random cycle); the identity where there is nothing to swap with."""
    cycle = generator.permutation(size)
    order = np.empty(size, np.int64)
    order[cycle] = np.roll(cycle, 1)
    return order
