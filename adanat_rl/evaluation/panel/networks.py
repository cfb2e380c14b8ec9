"""Networks that judge: several of one kind, each of which has learned from a part of the test images alone.

Where test images are few, a network that judges them must not have learned from them: the images are dealt into folds,
and each network learns from all folds but its own. Real images are looked at by the network that has not seen them;
generated ones by all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from adanat_rl.evaluation.panel.spaces import Frequencies
from adanat_rl.metrics.features import Classifier, ConvClassifier

NUM_FOLDS = 3


class Folds(nn.Module):
    """The networks of all folds, and which fold each test image is in.

    Args:
        networks: one of each fold. num_images: M test images.
    """

    folds: Tensor
    space_name: str

    def __init__(self, networks: Sequence[Classifier], num_images: int) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.register_buffer("folds", torch.zeros(num_images, dtype=torch.int64))

    @property
    def name(self) -> str:
        """Of the feature space."""
        return self.space_name

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features of all networks side by side, `[B, folds · D]`."""
        return torch.cat([network(images) for network in self.networks], dim=1)


class ConvolutionFolds(Folds):
    """Convolutional classifiers."""

    space_name = "convolutions"

    def __init__(self, image_size: int, num_classes: int, num_images: int, num_folds: int = NUM_FOLDS) -> None:
        networks = [
            ConvClassifier(image_size, channels=12, num_classes=num_classes, num_features=32) for _ in range(num_folds)
        ]
        super().__init__(networks, num_images)


class FrequencyFolds(Folds):
    """Perceptrons that see the frequencies of an image."""

    space_name = "frequencies"

    def __init__(self, num_inputs: int, num_classes: int, num_images: int, num_folds: int = NUM_FOLDS) -> None:
        networks = [FrequencyPerceptron(num_inputs, num_classes) for _ in range(num_folds)]
        super().__init__(networks, num_images)


class FrequencyPerceptron(Classifier):
    """Two layers with tanh over the frequencies of an image."""

    def __init__(self, num_inputs: int, num_classes: int, width: int = 128, num_features: int = 32) -> None:
        super().__init__()
        self._frequencies = Frequencies()
        self.first = nn.Linear(num_inputs, width)
        self.second = nn.Linear(width, num_features)
        self.head = nn.Linear(num_features, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Features `[B, 32]`."""
        return self.second(torch.tanh(self.first(self._frequencies(images))))

    def logits(self, images: Tensor) -> Tensor:
        """Class logits `[B, C]`."""
        return self.head(torch.tanh(self(images)))


def folds_of(labels: Tensor, num_folds: int = NUM_FOLDS) -> Tensor:
    """The fold `[M]` of each test image: those of a class are dealt in turn."""
    folds = np.zeros(len(labels), np.int64)
    for label in np.unique(labels.numpy()):
        rows = np.flatnonzero(labels.numpy() == label)
        folds[rows] = np.arange(len(rows)) % num_folds
    return torch.from_numpy(folds)


FOLD_CLASSES: dict[str, type[ConvolutionFolds] | type[FrequencyFolds]] = {
    "convolution_folds": ConvolutionFolds,
    "frequency_folds": FrequencyFolds,
}
"""Kinds of weight files."""
