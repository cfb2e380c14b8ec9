"""The judges: distances, manifolds, class accuracy, usefulness for a classifier, nearness to training images.

Real images that they compare with are those of the test split, for photos those of the statistics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from adanat_rl.evaluation.panel.contract import (
    MARGIN_OF_ACCURACY,
    MARGIN_OF_DISTANCE,
    MARGIN_OF_SHARE,
    FeatureSpace,
    Value,
)
from adanat_rl.metrics.checks import checked_finite, checked_rows
from adanat_rl.metrics.frechet import FrechetDistance
from adanat_rl.metrics.kernels import Compare, gaussian_mmd, polynomial_mmd
from adanat_rl.metrics.manifold import density_coverage, neighbour_radii, precision_recall
from adanat_rl.metrics.statistics import FeatureStatistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MANIFOLD_NEIGHBOURS, _COVERAGE_NEIGHBOURS = 3, 5
_LARGEST_SET = 5000  # images whose pairs are looked at
_KERNEL_PART = 500  # generated images of one estimate of a kernel distance
_NEAR_QUANTILE = 0.05  # of the distances of unseen images to the nearest training image
_MOST_FOR_KERNELS = 10_000  # real images, beyond which a data set is too large for kernel machines


class FrechetJudge:
    """The Fréchet distance to real images: between normal distributions of equal means and covariances.

    With networks that were cross-fitted, the distance is a mean over the networks: each compares the real images that
    it has not learned from.

    Args:
        space: what it sees; the features of all networks side by side.
        real: test images' features `[M, D]` there, which are scaled to a mean variance of 1; or the statistics of more
            images than fit into memory, which stay as they are, so that distances are those that others publish.
        kind, blind_to: as the contract says.
        folds: `[M]` int64, which network has not seen a real image; None for a space without networks.
    """

    set_size = None

    def __init__(
        self,
        space: FeatureSpace,
        real: Tensor | FeatureStatistics,
        kind: str,
        blind_to: str,
        folds: Tensor | None = None,
    ) -> None:
        self.space, self.kind, self.blind_to = space, kind, blind_to
        self.name = f"Fréchet distance, {space.name}"
        self.values = (
            Value(f"fd_{_slug(space.name)}", f"FD {space.name}", True, MARGIN_OF_DISTANCE, is_relative=True),
        )
        if isinstance(real, FeatureStatistics):
            self._scales, self._distances = [1.0], [FrechetDistance(real)]
            return
        folds = torch.zeros(len(real), dtype=torch.int64) if folds is None else folds
        parts = real.chunk(int(folds.max()) + 1, dim=1)
        self._scales = [_scale(part) for part in parts]
        self._distances = [
            FrechetDistance(part[folds == fold].double() * scale)
            for fold, (part, scale) in enumerate(zip(parts, self._scales, strict=True))
        ]

    def __call__(self, features: Tensor, context: Tensor) -> Mapping[str, float]:
        """The distance."""
        parts = features.chunk(len(self._distances), dim=1)
        found = [
            distance(part if scale == 1 else part.double() * scale)
            for distance, part, scale in zip(self._distances, parts, self._scales, strict=True)
        ]
        return {self.values[0].key: float(np.mean(found))}


@dataclass(frozen=True)
class Kernel:
    """What a kernel distance is computed with.

    Args:
        name: of the distance. is_scaled: whether features are shifted and scaled to a mean variance of 1 before.
        against: the estimate between sets and fixed rows.
    """

    name: str
    is_scaled: bool
    against: Callable[[Tensor], Compare]


KID = Kernel("KID", True, polynomial_mmd)
CMMD = Kernel("CMMD", False, gaussian_mmd)


class KernelJudge:
    """The squared maximum mean discrepancy to real images, unbiased at any number of images: 0 for as good as real, and
    below it by chance. So its margin is no part of the number, but 3 % of what a known defect comes to.

    Args:
        space: what it sees. real: test images' features `[M, D]` there. kind, blind_to: as the contract says.
        defective: features `[N, D]` of the same images with the defect. kernel: which one.
    """

    set_size = None

    def __init__(
        self, space: FeatureSpace, real: Tensor, kind: str, blind_to: str, defective: Tensor, kernel: Kernel = KID
    ) -> None:
        self.space, self.kind, self.blind_to = space, kind, blind_to
        self.name = f"kernel distance, {space.name}"
        self._mean = real.double().mean(dim=0) if kernel.is_scaled else torch.zeros(())
        self._scale = _scale(real) if kernel.is_scaled else 1.0
        self._compare = kernel.against(self._framed(real)[:_LARGEST_SET])
        margin = MARGIN_OF_DISTANCE * abs(self._distance(self._framed(defective)))
        self.values = (Value(f"{_slug(kernel.name)}_{_slug(space.name)}", f"{kernel.name} {space.name}", True, margin),)

    def __call__(self, features: Tensor, context: Tensor) -> Mapping[str, float]:
        """The distance; it may be slightly negative."""
        rows = checked_rows(features, "features of the generated images", fewest=2, use=self.name)
        return {self.values[0].key: self._distance(self._framed(rows))}

    def _framed(self, rows: Tensor) -> Tensor:
        return (rows.double() - self._mean) * self._scale

    def _distance(self, rows: Tensor) -> float:
        """The mean over parts, each evenly spread over the images: pairs grow with the square of their number."""
        count = math.ceil(len(rows) / _KERNEL_PART)
        parts = [rows[number::count] for number in range(count)]
        return float(torch.stack([self._compare(part) for part in parts]).mean())


class ManifoldJudge:
    """Precision, recall, density and coverage among real images.

    They depend on how many images there are on either side, so it measures sets as large as the real one.

    Args:
        space: what it sees. real: test images' features `[M, D]` there. kind, blind_to: as the contract says.
        most: real images that are looked at; of fewer a set of generated images gives more numbers.
    """

    def __init__(self, space: FeatureSpace, real: Tensor, kind: str, blind_to: str, most: int = _LARGEST_SET) -> None:
        self.space, self.kind, self.blind_to = space, kind, blind_to
        self.name = f"manifolds, {space.name}"
        slug = _slug(space.name)
        self.values = (
            Value(f"precision_{slug}", f"precision {space.name}", False, MARGIN_OF_SHARE),
            Value(f"recall_{slug}", f"recall {space.name}", False, MARGIN_OF_SHARE),
            Value(f"density_{slug}", f"density {space.name}", False, 2 * MARGIN_OF_SHARE),
            Value(f"coverage_{slug}", f"coverage {space.name}", False, MARGIN_OF_SHARE),
        )
        self._real = real[:most]
        self.set_size = len(self._real)
        self._near, self._far = (neighbour_radii(self._real, k) for k in (_MANIFOLD_NEIGHBOURS, _COVERAGE_NEIGHBOURS))

    def __call__(self, features: Tensor, context: Tensor) -> Mapping[str, float]:
        """The four shares."""
        shares = (
            *precision_recall(self._real, features, self._near, _MANIFOLD_NEIGHBOURS),
            *density_coverage(self._real, features, self._far, _COVERAGE_NEIGHBOURS),
        )
        return {value.key: share for value, share in zip(self.values, shares, strict=True)}


class AccuracyJudge:
    """How many images a classifier takes for what they were drawn as: a support vector machine that has learned from
    test images alone.

    Args:
        space: what it sees. real, labels: features `[M, D]` and classes `[M]` of test images, which it learns from.
    """

    kind = "support vector machine"
    blind_to = "lost diversity: one good image of each class, drawn a thousand times, is all it asks for"
    set_size = None

    def __init__(self, space: FeatureSpace, real: Tensor, labels: Tensor) -> None:
        self.name = f"class accuracy, {space.name}"
        self.space = _Recognised(space, real, labels)
        self.values = (Value("class_accuracy", "class accuracy", False, MARGIN_OF_ACCURACY),)

    def __call__(self, features: Tensor, context: Tensor) -> Mapping[str, float]:
        """The share of images; features are the classes that it takes them for."""
        return {self.values[0].key: float((features[:, 0].long() == context).double().mean())}


class _Recognised:
    """The class `[B, 1]` that a machine takes an image for."""

    def __init__(self, space: FeatureSpace, real: Tensor, labels: Tensor) -> None:
        self.name = f"recognised by {space.name}"
        self._space, self._scale = space, _scale(real)
        self._machine = _classifier(len(real)).fit(_array(real * self._scale), labels.numpy())

    def __call__(self, images: Tensor) -> Tensor:
        rows = checked_finite(self._space(images), f"features ({self._space.name}) of the generated images")
        return torch.from_numpy(self._machine.predict(_array(rows * self._scale)))[:, None].float()


class UsefulnessJudge:
    """Train on generated images, test on real ones (Ravuri and Vinyals 2019): the accuracy on test images of a
    classifier that has learned from the generated images alone.

    Args:
        space: what it sees. real, labels: features `[M, D]` and classes `[M]` of test images.
    """

    kind = "train on generated, test on real"
    blind_to = "odd images that lie far from where classes meet"
    set_size = None

    def __init__(self, space: FeatureSpace, real: Tensor, labels: Tensor) -> None:
        self.space = space
        self.name = f"usefulness, {space.name}"
        self.values = (Value("usefulness", "usefulness", False, MARGIN_OF_ACCURACY),)
        self._scale = _scale(real)
        self._real, self._labels = _array(real * self._scale), labels.numpy()

    def __call__(self, features: Tensor, context: Tensor) -> Mapping[str, float]:
        """The accuracy."""
        rows = checked_rows(features, "features of the generated images", fewest=1, use=self.name)
        labels = context.numpy()
        if len(np.unique(labels)) < 2:  # there is nothing to tell apart
            return {self.values[0].key: float((self._labels == labels[0]).mean())}
        machine = _classifier(len(self._labels)).fit(_array(rows * self._scale), labels)
        return {self.values[0].key: float((machine.predict(self._real) == self._labels).mean())}


class CopiesJudge:
    """How many images lie nearer to a training image than unseen real ones do: copies, where there are many.

    A twentieth of the test images lies as near; only what is beyond that counts.

    Args:
        space: what it sees. training: features `[N, D]` of what the generator has learned from. unseen: `[M, D]` of
            test images.
    """

    blind_to = "everything but copies: noise lies far from all training images"
    set_size = None

    def __init__(self, space: FeatureSpace, training: Tensor, unseen: Tensor) -> None:
        self.kind = f"nearest training image by {space.name}"
        self.name = f"copies, {space.name}"
        self.space = _NearestTraining(space, training)
        self.values = (Value(f"copies_{_slug(space.name)}", f"copies {space.name}", True, 2 * MARGIN_OF_SHARE),)
        self._limit = float(_nearest(unseen.double(), training.double()).quantile(_NEAR_QUANTILE))

    def __call__(self, features: Tensor, context: Tensor) -> Mapping[str, float]:
        """The share, less that of unseen images; 0 or more. Features are distances to the nearest training image."""
        share = float((features[:, 0].double() < self._limit).double().mean())
        return {self.values[0].key: max(0.0, share - _NEAR_QUANTILE)}


class _NearestTraining:
    """The distance `[B, 1]` of an image to the nearest training image."""

    def __init__(self, space: FeatureSpace, training: Tensor) -> None:
        self.name = f"nearest by {space.name}"
        self._space, self._training = space, training.double()

    def __call__(self, images: Tensor) -> Tensor:
        rows = checked_finite(self._space(images), f"features ({self._space.name}) of the generated images")
        return _nearest(rows.double(), self._training)[:, None].float()


def _scale(real: Tensor) -> float:
    """Factor that gives the real features a mean variance of 1."""
    variance = float(real.double().var(dim=0).mean())
    return 1.0 if variance == 0 else variance**-0.5


def _nearest(rows: Tensor, among: Tensor) -> Tensor:
    """Distance `[N]` of each row to the nearest of others; in pieces."""
    return torch.cat([torch.cdist(part, among).amin(dim=1) for part in rows.split(1024)])


def _classifier(count: int) -> Any:
    """A machine with a Gaussian kernel; a linear one for data sets with many real images."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.svm import SVC

    return SVC(C=10.0) if count <= _MOST_FOR_KERNELS else RidgeClassifier()


def _array(rows: Tensor) -> NDArray[np.float64]:
    return rows.double().cpu().numpy()


def _slug(name: str) -> str:
    return name.lower().replace(" ", "_")
