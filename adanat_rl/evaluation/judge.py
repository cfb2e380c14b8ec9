"""The judge: numbers that say how good a set of generated images is, and the contract that every judge meets.

The judge of small data sets has two independent extractors: A gives FD, precision, recall and accuracy; B, trained
apart from it, a second FD. No reward looks at them but `fid`, at A: then B alone is independent. The judge of full
scale is in `inception_judge`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from adanat_rl.config.paths import resolve_path
from adanat_rl.config.schema import EvaluationConfig
from adanat_rl.data.digits import ImageDataset
from adanat_rl.evaluation.panel.contract import Value
from adanat_rl.generation.weights import load_network
from adanat_rl.metrics.accumulation import State
from adanat_rl.metrics.features import ConvClassifier
from adanat_rl.metrics.frechet import FrechetDistance
from adanat_rl.metrics.manifold import neighbour_radii, precision_recall

# Keys of the numbers
FD_A = "fd_a"  # Fréchet distance in the features of classifier A; lower is better
FD_B = "fd_b"  # the same with classifier B
PRECISION = "precision"  # share of generated images within the real manifold
RECALL = "recall"  # share of real images within the generated manifold
ACCURACY = "accuracy"  # share of images that classifier A takes for what they were drawn as

INCEPTION_SCORE = "inception_score"  # by Inception's logits; higher is better
CLIP_SCORE = "clip_score"  # mean similarity of images and their captions by CLIP, times 100; higher is better

QUALITY_METRICS = (FD_A, FD_B, PRECISION, RECALL, ACCURACY)

_CLASSES = {"conv_classifier": ConvClassifier}


@dataclass(frozen=True)
class JudgeNames:
    """What the distances are called in tables: FID only with Inception's features.

    Args:
        fd_a, fd_b: with their features, for titles. short_a, short_b: for columns.
        second: who gives the second distance, for sentences. note: what the distances are, a sentence.
    """

    fd_a: str = "FD (features of digit classifier A)"
    fd_b: str = "FD (features of digit classifier B)"
    short_a: str = "FD A"
    short_b: str = "FD B"
    second: str = "classifier B"
    note: str = "FD A, B: Fréchet distance in the features of two independent digit classifiers; it is no FID."

    @property
    def features_a(self) -> str:
        """What the features of the first distance are."""
        return self.fd_a.partition("(")[2].removesuffix(")")


INCEPTION_NAMES = JudgeNames(
    fd_a="FID (features of Inception-v3)",
    fd_b="FD (features of a second extractor)",
    short_a="FID",
    short_b="FD B",
    second="extractor B",
    note="FID is comparable only between equal numbers of images and equal conventions of resizing.",
)


def judge_names(config: EvaluationConfig) -> JudgeNames:
    """What the distances of a configured judge are called."""
    return INCEPTION_NAMES if config.judge == "inception" else JudgeNames()


class Judgement(Protocol):
    """A set of images under judgement, handed over in batches, in order; it can be put aside between two of them."""

    @property
    def count(self) -> int:
        """Images so far."""
        ...

    def add(self, images: Tensor, labels: Tensor) -> None:
        """Takes images float32 `[B, C, H, W]` in [0, 1] that were drawn for contexts `[B]`."""
        ...

    def result(self) -> dict[str, float]:
        """The numbers of all images so far."""
        ...

    def replicates(self) -> dict[str, list[float]]:
        """Several numbers for values of `Judge.values`, whose mean is the value and which spread as values of parts of
        the images do: more to go by than one number a seed. Values without them are left out.
        """
        ...

    def state(self) -> State:
        """Everything to go on from, as arrays."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from a state, to the same bits.

        Raises:
            UserError: it is of another evaluation.
        """
        ...


class Judge(Protocol):
    """Compares sets of images with the real ones."""

    @property
    def names(self) -> JudgeNames:
        """What its distances are called."""
        ...

    @property
    def values(self) -> tuple[Value, ...]:
        """The numbers that a verdict counts; none where it gives no verdict."""
        ...

    def begin(self, num_images: int) -> Judgement:
        """An empty set that will hold so many images."""
        ...

    def distance(self, batches: Iterable[Tensor]) -> float:
        """The first distance alone, of images float32 `[B, C, H, W]` in [0, 1]: what searches minimise."""
        ...


class ClassifierJudge:
    """Compares images with all the real ones of a small data set.

    Args:
        dataset: the real images. first, second: extractors A and B.
    """

    names = JudgeNames()
    values: tuple[Value, ...] = ()  # both networks have learned from the images that the NAT has learned from

    def __init__(self, dataset: ImageDataset, first: ConvClassifier, second: ConvClassifier) -> None:
        self._first, self._second = first.eval(), second.eval()
        with torch.no_grad():
            self._real = first(dataset.images)
            self._distance_a = FrechetDistance(self._real)
            self._distance_b = FrechetDistance(second(dataset.images))
        self._radii = neighbour_radii(self._real)

    def begin(self, num_images: int) -> Judgement:
        """An empty set."""
        return Collected(self)

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """All quality metrics of images `[N, C, H, W]` that were drawn for labels `[N]`, N ≥ 4.

        Raises:
            UserError: fewer images. NonFiniteError: an extractor gave NaN or infinite features.
        """
        features = self._first(images)
        precision, recall = precision_recall(self._real, features, self._radii)
        return {
            FD_A: self._distance_a(features),
            FD_B: self._distance_b(self._second(images)),
            PRECISION: precision,
            RECALL: recall,
            ACCURACY: float((self._first.logits(images).argmax(dim=1) == labels).float().mean()),
        }

    @torch.no_grad()
    def distance(self, batches: Iterable[Tensor]) -> float:
        """The Fréchet distance by extractor A alone: what searches minimise."""
        return self._distance_a(self._first(torch.cat([batch.cpu() for batch in batches])))


class Collected:
    """Images of a small data set, kept and judged together.

    Args:
        judge: images and labels in, numbers out.
    """

    def __init__(self, judge: Callable[[Tensor, Tensor], dict[str, float]]) -> None:
        self._judge = judge
        self._images: list[Tensor] = []
        self._labels: list[Tensor] = []

    @property
    def count(self) -> int:
        """Images so far."""
        return sum(map(len, self._labels))

    def add(self, images: Tensor, labels: Tensor) -> None:
        """Keeps a batch."""
        self._images.append(images.cpu())
        self._labels.append(labels.cpu())

    def result(self) -> dict[str, float]:
        """The numbers of all that was kept."""
        return self._judge(torch.cat(self._images), torch.cat(self._labels))

    def replicates(self) -> dict[str, list[float]]:
        """None: no verdict counts them."""
        return {}

    def state(self) -> State:
        """The images and labels."""
        return {"images": torch.cat(self._images).numpy(), "labels": torch.cat(self._labels).numpy()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from a state."""
        self._images, self._labels = [torch.from_numpy(state["images"])], [torch.from_numpy(state["labels"])]


def load_judge(dataset: ImageDataset) -> ClassifierJudge:
    """The judge with the shipped extractors of a data set."""
    first, second = (
        cast(
            ConvClassifier,
            load_network(resolve_path(f"asset:{dataset.name}/judge_{name}.safetensors", "judge"), _CLASSES),
        )
        for name in ("a", "b")
    )
    return ClassifierJudge(dataset, first, second)
