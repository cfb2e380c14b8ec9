from __future__ import annotations

import numpy as np
import pytest
import torch

from adanat_rl.config.paths import resolve_path
from adanat_rl.generation.weights import load_network
from adanat_rl.metrics.features import ConvClassifier


@pytest.fixture
def classifier() -> ConvClassifier:
    torch.manual_seed(0)
    return ConvClassifier(image_size=8, channels=4, num_features=16).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_features_and_logits_have_their_shapes(classifier: ConvClassifier, images: torch.Tensor) -> None:
    assert classifier(images).shape == (50, 16)
    assert classifier.logits(images).shape == (50, 10)


def test_real_images_have_mean_variance_one_per_feature(classifier: ConvClassifier, images: torch.Tensor) -> None:
    classifier.fit_scale(images)
    with torch.no_grad():
        variances = classifier(images).double().numpy().var(axis=0, ddof=1)
    assert variances.mean() == pytest.approx(1, rel=1e-4)


def test_fitting_the_scale_again_changes_nothing(classifier: ConvClassifier, images: torch.Tensor) -> None:
    classifier.fit_scale(images)
    first = classifier.scale.clone()
    classifier.fit_scale(images)
    assert torch.equal(classifier.scale, first)


@pytest.mark.parametrize("name", ["a", "b"])
def test_the_shipped_classifiers_recognise_digits_and_are_scaled(digits, name: str) -> None:
    network = load_network(
        resolve_path(f"asset:digits/judge_{name}.safetensors", "judge"), {"conv_classifier": ConvClassifier}
    )
    with torch.no_grad():
        accuracy = (network.logits(digits.images).argmax(1) == digits.labels).float().mean()
        variance = network(digits.images).double().numpy().var(axis=0, ddof=1)
    assert accuracy > 0.98
    assert variance.mean() == pytest.approx(1, rel=1e-3)
    assert np.isfinite(variance).all()
