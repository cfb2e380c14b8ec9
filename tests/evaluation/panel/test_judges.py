"""Each judge's numbers against another computation, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import fft, spatial
from sklearn.svm import SVC
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.data.dataset import ImageDataset
from adanat_rl.data.splits import Split, split_of
from adanat_rl.evaluation.panel.judges import (
    AccuracyJudge,
    CopiesJudge,
    FrechetJudge,
    KernelJudge,
    ManifoldJudge,
    UsefulnessJudge,
)
from adanat_rl.evaluation.panel.networks import folds_of
from adanat_rl.evaluation.panel.panel import Panel
from adanat_rl.evaluation.panel.spaces import Frequencies, GradientHistograms, Pixels
from adanat_rl.metrics.checks import NonFiniteError
from adanat_rl.metrics.frechet import FrechetDistance
from adanat_rl.metrics.manifold import density_coverage, precision_recall


class Space:
    """Rows are made up; only the name counts."""

    def __init__(self, name: str = "rows") -> None:
        self.name = name

    def __call__(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def _rows(count: int, width: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


CONTEXT = torch.zeros(0, dtype=torch.int64)


def test_frequencies_are_the_cosine_transform() -> None:
    images = torch.rand(3, 2, 8, 6, generator=torch.Generator().manual_seed(0))
    expected = fft.dctn(images.double().numpy(), axes=(2, 3), norm="ortho").reshape(3, -1)
    assert Frequencies()(images).numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("size", "kept"), [(8, 8), (16, 16), (28, 14), (32, 16), (256, 16)])
def test_large_images_are_reduced_to_means_of_blocks(size: int, kept: int) -> None:
    images = torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(0))
    pixels = Pixels()(images).view(2, kept, kept)
    block = size // kept
    assert pixels[1, 1, 0] == pytest.approx(float(images[1, 0, block : 2 * block, :block].mean()))


@pytest.mark.parametrize("angle", [0.0, 0.6, math.pi / 2, 2.5, -1.9])
def test_gradients_count_for_the_two_nearest_directions(angle: float) -> None:
    """A ramp has one gradient everywhere."""
    place = torch.arange(12.0)
    ramp = 0.02 * (math.cos(angle) * place[None, :] + math.sin(angle) * place[:, None]) + 0.5
    histograms = GradientHistograms()(ramp[None, None])[0].view(8, 6, 6)[:, 2:4, 2:4]
    expected = np.zeros(8)
    direction = (angle / (2 * math.pi) * 8) % 8
    expected[int(direction)] = 0.02 * (1 - direction % 1)
    expected[(int(direction) + 1) % 8] += 0.02 * (direction % 1)
    assert histograms.mean(dim=(1, 2)).numpy() == pytest.approx(expected, abs=1e-6)


def test_a_distance_is_that_of_scaled_features() -> None:
    real, generated = 3 * _rows(50) + 1, 2 * _rows(60, seed=1)
    scale = 1 / math.sqrt(np.var(real.double().numpy(), axis=0, ddof=1).mean())
    expected = FrechetDistance(real.double() * scale)(generated.double() * scale)
    found = FrechetJudge(Space(), real, "", "")(generated, CONTEXT)
    assert found == {"fd_rows": pytest.approx(expected)}


def test_cross_fitted_networks_judge_by_the_images_that_they_have_not_learned_from() -> None:
    real, generated, folds = _rows(90, 8), _rows(70, 8, seed=1), torch.arange(90) % 2
    scales = [1 / float(part.double().var(dim=0).mean().sqrt()) for part in real.chunk(2, dim=1)]
    expected = [
        FrechetDistance(real[folds == fold, 4 * fold : 4 * fold + 4].double() * scales[fold])(
            generated[:, 4 * fold : 4 * fold + 4].double() * scales[fold]
        )
        for fold in (0, 1)
    ]
    found = FrechetJudge(Space(), real, "", "", folds)(generated, CONTEXT)
    assert found["fd_rows"] == pytest.approx(np.mean(expected))


def _kernel_judge(real: Tensor) -> KernelJudge:
    return KernelJudge(Space(), real, "", "", real + 1)


@pytest.mark.parametrize("count", [20, 700])
def test_a_kernel_distance_is_zero_on_average_for_equal_distributions_of_any_number(count: int) -> None:
    found = [
        _kernel_judge(_rows(40, seed=2 * seed))(_rows(count, seed=2 * seed + 1), CONTEXT)["kid_rows"]
        for seed in range(200)
    ]
    assert abs(np.mean(found)) < 3 * np.std(found) / 200**0.5


def test_the_margin_of_a_kernel_distance_is_a_part_of_a_known_defect() -> None:
    judge = _kernel_judge(_rows(40))
    (value,) = judge.values
    assert value.margin_at(-123.0) == pytest.approx(0.03 * judge(_rows(40) + 1, CONTEXT)["kid_rows"])
    assert value.margin > 0.01


def test_manifolds_are_those_of_their_definitions() -> None:
    real, generated = _rows(50), _rows(60, seed=1)
    found = ManifoldJudge(Space(), real, "", "")(generated, CONTEXT)
    expected = (*precision_recall(real, generated), *density_coverage(real, generated))
    assert list(found.values()) == list(expected)


def test_accuracy_is_that_of_a_machine_that_learned_from_the_real_images() -> None:
    labels = torch.arange(60) % 3
    real, generated = _rows(60) + labels[:, None], _rows(30, seed=1) + (torch.arange(30) % 3)[:, None]
    judge = AccuracyJudge(Space(), real, labels)
    scale = 1 / float(real.double().var(dim=0).mean().sqrt())
    machine = SVC(C=10.0).fit(real.double().numpy() * scale, labels.numpy())
    expected = (machine.predict(generated.double().numpy() * scale) == np.arange(30) % 3).mean()
    assert judge(judge.space(generated), torch.arange(30) % 3) == {"class_accuracy": pytest.approx(expected)}


def test_usefulness_is_asked_of_real_images() -> None:
    labels = torch.arange(60) % 3
    real, generated = _rows(60) + 4 * labels[:, None], _rows(30, seed=1) + 4 * (torch.arange(30) % 3)[:, None]
    judge = UsefulnessJudge(Space(), real, labels)
    assert judge(generated, torch.arange(30) % 3)["usefulness"] > 0.9
    assert judge(generated, torch.ones(30, dtype=torch.int64))["usefulness"] == pytest.approx(1 / 3)
    assert judge(generated, (torch.arange(30) + 1) % 3)["usefulness"] < 0.2


def test_copies_are_what_is_nearer_than_a_twentieth_of_unseen_images() -> None:
    training, unseen = _rows(80), _rows(40, seed=1)
    generated = torch.cat([training[:10], _rows(30, seed=2)])
    distances = spatial.distance.cdist(unseen, training).min(axis=1)
    own = spatial.distance.cdist(generated, training).min(axis=1)
    expected = (own < np.quantile(distances, 0.05)).mean() - 0.05
    judge = CopiesJudge(Space(), training, unseen)
    found = judge(judge.space(generated), CONTEXT)
    assert found == {"copies_rows": pytest.approx(expected, abs=1e-9)}
    assert expected > 0.15


def test_features_that_are_no_numbers_are_refused(panel: Panel, digits: ImageDataset) -> None:
    test = split_of(digits, Split.TEST)
    images = test.images[:20].clone()
    images[3, 0, 2, 2] = torch.nan
    with pytest.raises(NonFiniteError):
        panel(images, test.labels[:20])


def test_a_judge_of_sets_needs_two_images(panel: Panel, digits: ImageDataset) -> None:
    with pytest.raises(UserError, match="2"):
        panel(digits.images[:1], digits.labels[:1])


def test_folds_hold_equal_parts_of_each_class(digits: ImageDataset) -> None:
    folds = folds_of(digits.labels, 3)
    for label in range(10):
        counts = torch.bincount(folds[digits.labels == label], minlength=3)
        assert int(counts.max() - counts.min()) <= 1
