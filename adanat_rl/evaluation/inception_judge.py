"""The judge of full-scale runs: FID, Inception score, precision, recall and KID of images that come in a stream.

Real images enter as a statistics file. Generated ones come in batches, in order, and are never all in memory. The
state between two batches can be kept: an evaluation of 50,000 images goes on where it stopped.
The distance is called FID only with the Inception network; with another one it is "FD (features of …)".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.evaluation.jackknife import NUM_GROUPS, GroupedMoments, num_groups, pseudo_values
from adanat_rl.evaluation.judge import (
    FD_A,
    FD_B,
    INCEPTION_NAMES,
    INCEPTION_SCORE,
    PRECISION,
    RECALL,
    JudgeNames,
)
from adanat_rl.evaluation.panel.contract import MARGIN_OF_DISTANCE, MARGIN_OF_SHARE, Value
from adanat_rl.metrics.accumulation import FeatureSet, Moments, State, part, under
from adanat_rl.metrics.inception import InceptionExtractor
from adanat_rl.metrics.manifold import neighbour_radii, precision_recall
from adanat_rl.metrics.reference_set import Extractor
from adanat_rl.metrics.scores import NUM_SPLITS, ScoreSplits, kernel_distance
from adanat_rl.metrics.statistics import (
    FeatureStatistics,
    FrechetReference,
    check_comparable,
)

# Keys of the numbers, beside those of `judge`
KID = "kid"  # squared MMD between features, mean over subsets; lower is better


class ScoringExtractor(Extractor, Protocol):
    """An extractor with class logits."""

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, D]` and `[B, C]` from one pass."""
        ...


@dataclass(frozen=True)
class Judged:
    """One extractor with the real statistics of its own features."""

    extractor: Extractor
    real: FeatureStatistics


class InceptionJudge:
    """Compares generated images with the statistics of real ones.

    Args:
        extractor: A, on `device`. real: statistics in its features; precision, recall and KID need features in them.
        second: extractor B, trained apart from A, with its real statistics.
        num_kept: generated and real images that precision, recall and KID look at, at most.
        num_kid_subsets: of 1,000 images; 0 leaves KID out.
        batch_size: images in one pass of an extractor.

    Raises:
        UserError: statistics and extractor do not fit together.
    """

    def __init__(
        self,
        extractor: ScoringExtractor,
        real: FeatureStatistics,
        second: Judged | None = None,
        *,
        num_kept: int = 5000,
        num_kid_subsets: int = 0,
        batch_size: int = 64,
        device: torch.device | str = "cpu",
    ) -> None:
        _check_fit(extractor, real)
        if second is not None:
            _check_fit(second.extractor, second.real)
        if num_kid_subsets and real.features is None:
            raise UserError("KID needs features of real images; the statistics file has none")
        self.extractor, self.second = extractor, second
        self.real = real
        self.batch_size = batch_size
        self.device = device
        self.num_kid_subsets = num_kid_subsets
        self.real_features = None if real.features is None else real.features[:num_kept]
        self.num_kept = num_kept if self.real_features is not None else 0
        self._distance_a = FrechetReference(real)
        self._distance_b = None if second is None else FrechetReference(second.real)
        self._radii: Tensor | None = None
        extractors = [extractor] if second is None else [extractor, second.extractor]
        self.identity = "; ".join(f"{one.name} {one.content_hash()[:12]}{_convention(one)}" for one in extractors)

    @property
    def names(self) -> JudgeNames:
        """What the distances are called in tables; the second is empty without a second extractor."""
        second = "" if self.second is None else _title(self.second.extractor, self.second.real)
        return replace(INCEPTION_NAMES, fd_a=_title(self.extractor, self.real), fd_b=second)

    @property
    def values(self) -> tuple[Value, ...]:
        """The numbers that it gives, with the margins of the panel."""
        found = [Value(FD_A, self.names.short_a, True, MARGIN_OF_DISTANCE, is_relative=True)]
        if self.second is not None:
            found.append(Value(FD_B, self.names.short_b, True, MARGIN_OF_DISTANCE, is_relative=True))
        found.append(Value(INCEPTION_SCORE, "Inception score", False, MARGIN_OF_DISTANCE, is_relative=True))
        if self.real_features is not None:
            found += [Value(key, key, False, MARGIN_OF_SHARE) for key in (PRECISION, RECALL)]
            if self.num_kid_subsets:
                found.append(Value(KID, "KID", True, MARGIN_OF_DISTANCE, is_relative=True))
        return tuple(found)

    def titles(self, num_images: int) -> dict[str, str]:
        """What each number of an evaluation of N images is, with convention and counts, by key."""
        generated = f"{num_images:,} generated"
        convention = _convention(self.extractor)
        titles = {FD_A: f"{self.names.fd_a}, {generated}"}
        if self.second is not None:
            titles[FD_B] = f"{self.names.fd_b}, {generated}"
        splits = min(NUM_SPLITS, num_images)
        titles[INCEPTION_SCORE] = f"Inception score ({self.extractor.name}{convention}), {generated}, {splits} splits"
        if self.real_features is not None:
            both = f"{min(self.num_kept, num_images):,} generated, {len(self.real_features):,} real"
            about = f"({self.extractor.name}{convention}), {both}"
            titles[PRECISION], titles[RECALL] = f"Precision {about}", f"Recall {about}"
            if self.num_kid_subsets:
                titles[KID] = f"KID {about}, {self.num_kid_subsets} subsets"
        return titles

    def groups(self, extractor: Extractor, num_images: int) -> GroupedMoments | None:
        """For the distances of all but one group of N images; None where those would be fewer than features, whose
        covariance says little.
        """
        is_enough = num_groups(num_images) > 1 and num_images * (NUM_GROUPS - 1) > NUM_GROUPS * extractor.num_features
        return GroupedMoments(extractor.num_features, self.device) if is_enough else None

    def begin(self, num_images: int) -> Evaluated:
        """An empty accumulator for N images."""
        return Evaluated(self, num_images)

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """All numbers of images `[N, 3, H, W]` in [0, 1] that were drawn for labels `[N]`."""
        evaluated = self.begin(len(images))
        evaluated.add(images, labels)
        return evaluated.result()

    @torch.no_grad()
    def distance(self, batches: Iterable[Tensor]) -> float:
        """The Fréchet distance by extractor A alone: what searches minimise."""
        moments = Moments(self.extractor.num_features, self.device)
        for images in batches:
            for batch in images.split(self.batch_size):
                moments.add(self.extractor(batch.to(self.device)))
        return self.distance_a(moments)

    def distance_a(self, moments: Moments) -> float:
        """The distance of moments by extractor A."""
        return self._distance_a.distance(moments.statistics(self.extractor.convention, self.real.extractor_hash))

    def distance_b(self, moments: Moments) -> float:
        """The distance of moments by extractor B, which must be there."""
        if self.second is None or self._distance_b is None:
            raise ValueError("there is no second extractor")
        return self._distance_b.distance(moments.statistics(self.second.extractor.convention))

    def manifold(self, generated: Tensor) -> tuple[float, float]:
        """Precision and recall of features `[M, D]`."""
        if self.real_features is None:
            raise ValueError("there are no features of real images")
        if self._radii is None:
            self._radii = neighbour_radii(self.real_features)
        return precision_recall(self.real_features, generated, self._radii)


class Evaluated:
    """Generated images so far, of N: made by `InceptionJudge.begin`."""

    def __init__(self, judge: InceptionJudge, num_images: int) -> None:
        if num_images < 2:
            raise ValueError(f"a Fréchet distance needs 2 images or more, not {num_images}")
        self.num_images = num_images
        self._judge = judge
        self._set = FeatureSet(num_images, judge.extractor.num_features, judge.num_kept, judge.device)
        self._second = None if judge.second is None else Moments(judge.second.extractor.num_features, judge.device)
        self._groups = judge.groups(judge.extractor, num_images)
        self._second_groups = None if judge.second is None else judge.groups(judge.second.extractor, num_images)
        self._row: dict[str, float] = {}
        self._scores: ScoreSplits | None = None  # the number of logits is known with the first image
        grouped = "" if self._groups is None else f", {NUM_GROUPS} groups"
        self._identity = f"{judge.identity}; {num_images} images, {judge.num_kept} kept{grouped}"

    @property
    def count(self) -> int:
        """Images so far: the first ones of the N."""
        return self._set.moments.count

    @torch.no_grad()
    def add(self, images: Tensor, labels: Tensor) -> None:
        """Takes in the next images `[B, 3, H, W]` in [0, 1], which were drawn for labels `[B]`."""
        if len(labels) != len(images):
            raise ValueError(f"{len(images)} images for {len(labels)} labels")
        size = self._judge.batch_size
        for batch, drawn_for in zip(images.split(size), labels.split(size), strict=True):
            self._add(batch.to(self._judge.device), drawn_for, self._set.claim(len(batch)))

    def _add(self, batch: Tensor, labels: Tensor, index: np.ndarray) -> None:
        judge = self._judge
        features, logits = judge.extractor.features_and_logits(batch)
        self._set.add(features, index)
        if self._groups is not None:
            self._groups.add(features, labels)
        if self._second is not None and judge.second is not None:
            features = judge.second.extractor(batch)
            self._second.add(features)
            if self._second_groups is not None:
                self._second_groups.add(features, labels)
        if self._scores is None:
            self._scores = self._new_scores(logits.shape[1])
        self._scores.add(logits, index)

    def result(self) -> dict[str, float]:
        """All numbers; what they are is in `InceptionJudge.titles`.

        Raises:
            ValueError: images are missing.
        """
        if self.count < self.num_images or self._scores is None:
            raise ValueError(f"{self.num_images - self.count} of {self.num_images} images are still to come")
        if self._row:
            return dict(self._row)
        judge = self._judge
        row = {FD_A: judge.distance_a(self._set.moments), INCEPTION_SCORE: self._scores.score()[0]}
        if self._second is not None:
            row[FD_B] = judge.distance_b(self._second)
        if judge.real_features is not None:
            kept = self._set.kept()
            row[PRECISION], row[RECALL] = judge.manifold(kept)
            if judge.num_kid_subsets:
                row[KID] = kernel_distance(judge.real_features, kept, judge.num_kid_subsets)[0]
        self._row = row
        return dict(row)

    def replicates(self) -> dict[str, list[float]]:
        """Of distances those of a jackknife over groups of images, of the Inception score those of its splits; none
        where images are few. Precision, recall and KID look at one set of kept features: there verdicts go by seeds.
        """
        row, judge = self.result(), self._judge
        found = {}
        for key, groups, distance in (
            (FD_A, self._groups, judge.distance_a),
            (FD_B, self._second_groups, judge.distance_b),
        ):
            if groups is not None:
                found[key] = pseudo_values(row[key], [distance(groups.without(one)) for one in range(NUM_GROUPS)])
        if self._scores is not None and num_groups(self.num_images) > 1:
            found[INCEPTION_SCORE] = self._scores.scores().tolist()
        return found

    def state(self) -> State:
        """Everything to go on from."""
        arrays = {"identity": np.array(self._identity), **under("set", self._set.state())}
        if self._second is not None:
            arrays |= under("second", self._second.state())
        for name, groups in (("groups", self._groups), ("second_groups", self._second_groups)):
            if groups is not None:
                arrays |= under(name, groups.state())
        if self._scores is not None:
            arrays |= under("scores", self._scores.state())
        return arrays

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from a state.

        Raises:
            UserError: it is of another evaluation.
        """
        if str(state.get("identity")) != self._identity:
            raise UserError(f"images so far are of {state.get('identity')}; this evaluation is {self._identity}")
        device = self._judge.device
        self._row = {}
        if self._groups is not None:
            self._groups = GroupedMoments.from_state(part(state, "groups"), device)
        if self._second_groups is not None:
            self._second_groups = GroupedMoments.from_state(part(state, "second_groups"), device)
        self._set = FeatureSet.from_state(part(state, "set"), device)
        if self._second is not None:
            self._second = Moments.from_state(part(state, "second"), device)
        scores = part(state, "scores")
        self._scores = self._new_scores(0).restore(scores) if scores else None

    def _new_scores(self, num_logits: int) -> ScoreSplits:
        return ScoreSplits(self.num_images, num_logits, min(NUM_SPLITS, self.num_images))


def _check_fit(extractor: Extractor, real: FeatureStatistics) -> None:
    width = torch.zeros(extractor.num_features, dtype=torch.float64)
    own = FeatureStatistics(width, torch.zeros(0), extractor.convention, extractor_hash=extractor.content_hash())
    check_comparable(real, own)


def _convention(extractor: Extractor) -> str:
    return f", {extractor.convention} resize" if extractor.convention else ""


def _title(extractor: Extractor, real: FeatureStatistics) -> str:
    count = "an unknown number of real images" if real.count is None else f"{real.count:,} real"
    if extractor.name == InceptionExtractor.name:
        return f"FID ({extractor.name}{_convention(extractor)}; {count})"
    return f"FD (features of {extractor.name}{_convention(extractor)}; {count})"
