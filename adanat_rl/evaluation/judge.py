"""The judge: numbers that say how good a set of generated images is, from two independent extractors.

Extractor A gives FD, precision, recall and accuracy; extractor B, trained apart from it, gives a second FD. Neither is
ever used as a reward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from adanat_rl.config.paths import resolve_path
from adanat_rl.data.digits import ImageDataset
from adanat_rl.generation.weights import load_network
from adanat_rl.metrics.features import ConvClassifier
from adanat_rl.metrics.frechet import FrechetDistance
from adanat_rl.metrics.manifold import neighbour_radii, precision_recall

# Keys of the numbers
FD_A = "fd_a"  # Fréchet distance in the features of classifier A; lower is better
FD_B = "fd_b"  # the same with classifier B
PRECISION = "precision"  # share of generated images within the real manifold
RECALL = "recall"  # share of real images within the generated manifold
ACCURACY = "accuracy"  # share of images that classifier A takes for what they were drawn as

QUALITY_METRICS = (FD_A, FD_B, PRECISION, RECALL, ACCURACY)

_CLASSES = {"conv_classifier": ConvClassifier}


@dataclass(frozen=True)
class JudgeNames:
    """What the distances are called in tables: never FID, the features are not Inception's."""

    fd_a: str = "FD (features of digit classifier A)"
    fd_b: str = "FD (features of digit classifier B)"


class Judge:
    """Compares images with the real ones.

    Args:
        dataset: the real images. first, second: extractors A and B.
    """

    names = JudgeNames()

    def __init__(self, dataset: ImageDataset, first: ConvClassifier, second: ConvClassifier) -> None:
        self._first, self._second = first.eval(), second.eval()
        with torch.no_grad():
            self._real = first(dataset.images)
            self._distance_a = FrechetDistance(self._real)
            self._distance_b = FrechetDistance(second(dataset.images))
        self._radii = neighbour_radii(self._real)

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """All quality metrics of images `[N, C, H, W]` that were drawn for labels `[N]`."""
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
    def distance(self, images: Tensor) -> float:
        """The Fréchet distance by extractor A alone: what searches minimise."""
        return self._distance_a(self._first(images))


def load_judge(dataset: ImageDataset) -> Judge:
    """The judge with the shipped extractors of a data set."""
    first, second = (
        cast(
            ConvClassifier,
            load_network(resolve_path(f"asset:{dataset.name}/judge_{name}.safetensors", "judge"), _CLASSES),
        )
        for name in ("a", "b")
    )
    return Judge(dataset, first, second)
