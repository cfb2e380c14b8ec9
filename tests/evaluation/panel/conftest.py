"""The panel of digits with networks that are trained here, quickly, on test images as the rule wants it."""

from __future__ import annotations

import pytest

from adanat_rl.config.schema import PretrainingConfig
from adanat_rl.data.dataset import ImageDataset
from adanat_rl.data.digits import load_digits_dataset
from adanat_rl.data.splits import Split, split_of
from adanat_rl.evaluation.panel.networks import FOLD_CLASSES
from adanat_rl.evaluation.panel.panel import Panel
from adanat_rl.evaluation.panel.small import small_panel
from adanat_rl.experiment.pretraining_panel import fit_folds


@pytest.fixture(scope="session")
def digits() -> ImageDataset:
    return load_digits_dataset()


@pytest.fixture(scope="session")
def panel(digits: ImageDataset) -> Panel:
    test, settings = split_of(digits, Split.TEST), PretrainingConfig(num_classifier_steps=300)
    return small_panel(digits, tuple(fit_folds(test, kind, settings, 0).network for kind in FOLD_CLASSES))
