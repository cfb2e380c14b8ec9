"""The adaptivity probe: how much a decision could matter to an image, to a class or to all, before any training.

Half-drawn images get one decision of one step changed and are finished several times. The reward's change is split into
mean effect, differences between classes, between images of a class, and noise; what a schedule, a policy per class and
one per image can gain by that decision is bounded. What the numbers mean: docs/probe.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from adanat_rl.evaluation.probe_design import BOOTSTRAP, FOLDS, ProbeDesign, probe_images, probe_sites
from adanat_rl.evaluation.probe_drawing import Scorer, StepRewards, draw_rewards
from adanat_rl.evaluation.probe_statistics import (
    Estimate,
    best_level_bound,
    bootstrap_weights,
    chosen_gain,
    cross_predict,
    estimate,
    estimates,
    explained,
    own_choice_gain,
    p_value,
    split_variance,
)
from adanat_rl.generation.generator import Generator
from adanat_rl.generation.policies.base import GenerationPolicy


@dataclass(frozen=True)
class Split:
    """Mean square of an effect, part by part, in squared units of the reward; parts may come out below 0.

    Args:
        mean: square of the mean effect. classes, images: variance between classes, between images of a class.
        noise: variance between finishes of one image. predicted: the part of `images` that the features predict.
    """

    mean: Estimate
    classes: Estimate
    images: Estimate
    noise: Estimate
    predicted: Estimate


@dataclass(frozen=True)
class Gain:
    """What the reward gains by choosing among the levels.

    Args:
        value, low, high: measured on what did not take part in the choice, with its 95 % interval.
        p_value: that it is above 0, one-sided. at_most: 97.5 % confidence that no choice at all gains more.
    """

    value: float
    low: float
    high: float
    p_value: float
    at_most: float | None = None


_NO_GAIN = Gain(0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Site:
    """One decision of one step.

    Args:
        step: t in [0, T). decision: its name. base_value: mean value with nothing changed.
        offsets, values: M levels in units of an action, and the mean values they lead to.
        effects: mean effect of each level. levels: split of each level. split: mean of them over the levels.
        schedule: gain of one level for all. per_class: what a level for each class adds to it.
        per_image: what a level for each image adds to that, if the image's effects were known.
        features: the same if only the features are known, by ridge regression.
        alike: whether all images of a class look alike here, so that no policy can tell them apart.
    """

    step: int
    decision: str
    base_value: float
    offsets: tuple[float, ...]
    values: tuple[float, ...]
    effects: tuple[Estimate, ...]
    levels: tuple[Split, ...]
    split: Split
    schedule: Gain
    per_class: Gain
    per_image: Gain
    features: Gain
    alike: bool

    @property
    def best_level(self) -> int | None:
        """Index of the level with the highest mean effect; None if nothing is better than no change."""
        best = int(np.argmax([effect.value for effect in self.effects]))
        return best if self.effects[best].value > 0 else None


@dataclass(frozen=True)
class RewardSplit:
    """The reward itself where nothing is changed, seen from a step.

    Args:
        step: t. mean: of the reward. classes, images, noise: its variance between classes, between half-drawn images
            of a class, and between finishes of one.
    """

    step: int
    mean: Estimate
    classes: Estimate
    images: Estimate
    noise: Estimate


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found.

    Args:
        horizon: T. num_classes, images_per_class, num_repeats: size of the experiment. seed: of it.
        sites: every decision of every step that was changed. rewards: one a step.
    """

    horizon: int
    num_classes: int
    images_per_class: int
    num_repeats: int
    seed: int
    sites: tuple[Site, ...]
    rewards: tuple[RewardSplit, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def run_probe(
    generator: Generator,
    policy: GenerationPolicy,
    scorer: Scorer,
    design: ProbeDesign | None = None,
    *,
    batch_size: int = 256,
    num_threads: int = 1,
    report: Callable[[int, int], None] | None = None,
) -> ProbeResult:
    """Draws, finishes, scores and splits.

    Args:
        generator: with the horizon of the policy.
        policy: the starting point, such as a `SchedulePolicy` of `starting_schedule`.
        scorer: `(images [B, C, H, W], context [B]) -> scores [B]`, higher is better.
        batch_size: finishes drawn at once. num_threads: batches drawn at once.
        report: told how many batches are done, and of how many.

    Raises:
        ValueError: a step or decision that there is not, or scores that are no numbers.
    """
    design = design or ProbeDesign()
    sites = probe_sites(generator, design)
    images = probe_images(generator.context_spec.num_contexts, design)
    num_classes, per_class = images.context.shape
    count = num_classes * per_class
    total = len(sites) * -(-count // max(1, batch_size // design.num_repeats))
    done = iter(range(1, total + 1))
    tell = (lambda: report(next(done), total)) if report is not None else None
    found: list[Site] = []
    rewards: list[RewardSplit] = []
    weights = bootstrap_weights(num_classes, per_class, design.num_resamples, design.random(BOOTSTRAP))
    for step, decisions in sites.items():
        drawn = draw_rewards(
            generator,
            policy,
            scorer,
            images,
            step,
            decisions,
            design.offsets,
            batch_size=batch_size,
            num_threads=num_threads,
            report=tell,
        )
        rewards.append(_split_reward(drawn, weights))
        found += [analyse_site(drawn, place, design, weights) for place in range(len(decisions))]
    return ProbeResult(
        generator.horizon, num_classes, per_class, design.num_repeats, design.seed, tuple(found), tuple(rewards)
    )


def analyse_site(drawn: StepRewards, place: int, design: ProbeDesign, weights: np.ndarray) -> Site:
    """Splits the effects of one decision and bounds what it can gain.

    Args:
        place: of the decision in `drawn`. weights: `[W, C, n]`, see `bootstrap_weights`.
    """
    effects = drawn.changed[place] - drawn.base[..., None]
    image_means = effects.mean(axis=2)
    prediction = cross_predict(drawn.features, image_means, design.random(FOLDS))
    lowered = explained(image_means, prediction)
    parts = split_variance(effects, weights)
    rows = {name: getattr(parts, name) for name in ("mean", "classes", "images", "noise")}
    rows["predicted"] = _over_images(weights, lowered)
    by_level = {name: estimates(values) for name, values in rows.items()}
    num_levels = effects.shape[3]

    overall = _over_images(weights, chosen_gain(prediction.overall, image_means))
    by_class = _over_images(weights, chosen_gain(prediction.by_class, image_means))
    by_features = _over_images(weights, chosen_gain(prediction.by_features, image_means))
    own = _over_images(weights, own_choice_gain(effects))
    # The best of noisy means is above the best of true ones, on average
    best_of_classes = np.maximum(_class_rows(weights, image_means).max(axis=2), 0.0).mean(axis=1)
    best_of_images = _over_images(weights, np.maximum(image_means.max(axis=2), 0.0))
    return Site(
        step=drawn.step,
        decision=drawn.decisions[place],
        base_value=float(drawn.base_values[place]),
        offsets=tuple(design.offsets),
        values=tuple(map(float, drawn.values[place])),
        effects=tuple(estimates(_over_images(weights, image_means))),
        levels=tuple(Split(**{name: by_level[name][level] for name in rows}) for level in range(num_levels)),
        split=Split(**{name: estimate(values.mean(axis=1)) for name, values in rows.items()}),
        schedule=_gain(overall),
        per_class=_gain(by_class - overall, _at_most(best_of_classes - overall, parts.classes)),
        per_image=replace(_NO_GAIN, at_most=0.0)
        if drawn.alike
        else _gain(own, _at_most(best_of_images - by_class, parts.images)),
        features=_NO_GAIN if drawn.alike else _gain(by_features - by_class),
        alike=drawn.alike,
    )


def _gain(rows: np.ndarray, at_most: float | None = None) -> Gain:
    found = estimate(rows)
    return Gain(found.value, found.low, found.high, p_value(rows), at_most)


def _at_most(optimistic: np.ndarray, variances: np.ndarray) -> float:
    """The lower of two upper bounds, each at the upper end of its interval.

    Args:
        optimistic: `[W]` gain with the best level in hindsight. variances: `[W, M]` of what differs.
    """
    total = estimate(variances.sum(axis=1)).high
    spread = float(best_level_bound(np.full((1, variances.shape[1]), max(total, 0.0) / variances.shape[1]))[0])
    return max(0.0, min(estimate(optimistic).high, spread))


def _split_reward(drawn: StepRewards, weights: np.ndarray) -> RewardSplit:
    parts = split_variance(drawn.base[..., None], weights)
    return RewardSplit(
        step=drawn.step,
        mean=estimate(_over_images(weights, drawn.base.mean(axis=2))),
        classes=estimate(parts.classes[:, 0]),
        images=estimate(parts.images[:, 0]),
        noise=estimate(parts.noise[:, 0]),
    )


def _over_images(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weighted means `[W, ...]` over all images, of values `[C, n, ...]`."""
    return np.tensordot(weights, values, axes=2) / weights[0].sum()


def _class_rows(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weighted means `[W, C, M]` over the images of each class."""
    return np.einsum("wcn,cnm->wcm", weights, values) / weights.shape[2]
