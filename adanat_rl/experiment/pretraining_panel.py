"""Training of the networks of the panel: cross-fitted on the test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

from adanat_rl.config.schema import PretrainingConfig
from adanat_rl.data.dataset import ImageDataset
from adanat_rl.evaluation.panel.networks import FOLD_CLASSES, Folds, folds_of
from adanat_rl.evaluation.panel.spaces import Frequencies
from adanat_rl.experiment.pretraining import train_classifier
from adanat_rl.generation.seeding import Purpose, seeded
from adanat_rl.metrics.features import Classifier


@dataclass(frozen=True)
class FittedFolds:
    """The networks of all folds, what their constructor takes, and their accuracy on the images of their own fold."""

    network: Folds
    arguments: Mapping[str, Any]
    held_out_accuracy: float


def fit_folds(test: ImageDataset, kind: str, config: PretrainingConfig, seed: int) -> FittedFolds:
    """One of the `FOLD_CLASSES`, each of its networks trained on the test images of all other folds."""
    size = (
        {"image_size": test.images.shape[-1]}
        if kind == "convolution_folds"
        else {"num_inputs": Frequencies()(test.images[:1]).shape[1]}
    )
    arguments = {**size, "num_classes": test.num_classes, "num_images": len(test)}
    right = 0
    with seeded(Purpose.JUDGE, seed, list(FOLD_CLASSES).index(kind)):
        folds = FOLD_CLASSES[kind](**arguments)
        folds.folds.copy_(folds_of(test.labels))
        for number, network in enumerate(folds.networks):
            is_own = folds.folds == number
            trained = train_classifier(cast(Classifier, network), test.images[~is_own], test.labels[~is_own], config)
            with torch.no_grad():
                right += int((trained.logits(test.images[is_own]).argmax(dim=1) == test.labels[is_own]).sum())
    return FittedFolds(folds.eval(), arguments, right / len(test))
