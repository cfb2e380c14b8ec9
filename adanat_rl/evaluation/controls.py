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
from scipy import stats
from torch import Tensor

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


SIGNIFICANCE = 0.05
_FEW_SEEDS = 4  # with fewer, a difference that is there is seldom seen


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
    """Compares distances paired by seed with one-sided paired t-tests at 5 %.

    Args:
        policy, within_class, over_all: distance (lower is better) of each seed under the policy and the two shuffles;
            `within_class` is None where there are no classes.

    Raises:
        ValueError: fewer than two seeds: nothing can be said.
    """
    if len(policy) < 2:
        raise ValueError(f"adaptivity needs at least 2 seeds, got {len(policy)}")
    p_all, loss_all = _worse(over_all, policy)
    if within_class is None:
        return _over_all(p_all, loss_all, len(policy))
    p_class, loss_class = _worse(within_class, policy)
    if p_class < SIGNIFICANCE:
        adaptivity = Adaptivity.PER_IMAGE
        sentence = (
            "The policy is adaptive per image: the same decisions dealt to other images of the same class are worse by "
            f"{loss_class:.3f} (p = {p_class:.2g})."
        )
    elif p_all < SIGNIFICANCE:
        adaptivity = Adaptivity.PER_CLASS
        sentence = (
            f"The policy is adaptive per class only: dealt to any image its decisions are worse by {loss_all:.3f} "
            f"(p = {p_all:.2g}), within a class there is no difference that {len(policy)} seeds can show "
            f"({loss_class:+.3f}, p = {p_class:.2g})."
        )
    else:
        adaptivity, sentence = _not_shown(p_all, loss_all, len(policy))
    return Verdict(adaptivity, sentence, p_class, p_all, loss_class, loss_all)


def _over_all(p_all: float, loss_all: float, num_seeds: int) -> Verdict:
    """The verdict where no two images have the same context."""
    if p_all >= SIGNIFICANCE:
        return Verdict(*_not_shown(p_all, loss_all, num_seeds), None, p_all, None, loss_all)
    sentence = (
        "The policy is adaptive, to the image or to its caption: dealt to other images its decisions are worse by "
        f"{loss_all:.3f} (p = {p_all:.2g})."
    )
    return Verdict(Adaptivity.PER_IMAGE_OR_CAPTION, sentence, None, p_all, None, loss_all)


def _not_shown(p_all: float, loss_all: float, num_seeds: int) -> tuple[Adaptivity, str]:
    if num_seeds < _FEW_SEEDS:
        return Adaptivity.UNKNOWN, (
            f"Whether the policy is adaptive, {num_seeds} seeds cannot tell: its decisions dealt to any other image "
            f"differ by {loss_all:+.3f} (p = {p_all:.2g}); at least {_FEW_SEEDS} are needed (evaluation.num_seeds)."
        )
    return Adaptivity.NONE, (
        "The policy is not adaptive: its decisions are as good when dealt to any other image "
        f"({loss_all:+.3f}, p = {p_all:.2g}); a schedule would do."
    )


def _worse(shuffled: list[float], policy: list[float]) -> tuple[float, float]:
    """p-value that `shuffled` is larger, and by how much."""
    difference = np.array(shuffled) - np.array(policy)
    if np.ptp(difference) == 0:  # no spread, no t-test
        return (0.0 if difference[0] > 0 else 1.0), float(difference[0])
    return float(stats.ttest_1samp(difference, 0.0, alternative="greater").pvalue), float(difference.mean())


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
