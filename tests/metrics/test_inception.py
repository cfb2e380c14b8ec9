from __future__ import annotations

import warnings
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from adanat_rl.config.errors import UserError
from adanat_rl.generation.weights import save_network
from adanat_rl.metrics.accumulation import Moments
from adanat_rl.metrics.inception import (
    InceptionExtractor,
    InceptionLogits,
    InceptionV3,
    load_extractor,
    network_hash,
)
from adanat_rl.metrics.resize import TORCH_FIDELITY, VENDORED
from adanat_rl.metrics.scores import inception_score, kernel_distance
from adanat_rl.metrics.statistics import frechet_distance


@pytest.fixture(scope="module")
def extractor() -> InceptionExtractor:
    network = InceptionV3()
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
    # Norms fitted to some images: otherwise all images look much the same to random weights
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    extractor = InceptionExtractor(network)
    extractor(patches(8, seed=2))
    for norm in norms:
        norm.eval()
    return extractor


def patches(count: int, seed: int) -> torch.Tensor:
    """Images `[B, 3, 40, 52]` of coarse patches of colour."""
    colours = torch.rand(count, 3, 3, 4, generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(colours, (40, 52))


@pytest.fixture(scope="module")
def sets(extractor: InceptionExtractor) -> dict[str, torch.Tensor]:
    """Two sets of images and their features."""
    real, generated = patches(6, seed=0), patches(5, seed=1) ** 2
    return {"real": real, "generated": generated, "real_features": extractor(real), "features": extractor(generated)}


def test_features_and_logits_have_their_shapes_and_belong_together(extractor, sets) -> None:
    features, logits = extractor.features_and_logits(sets["real"])
    assert (features.shape, logits.shape) == ((6, 2048), (6, 1008))
    assert torch.equal(features, sets["real_features"])
    torch.testing.assert_close(logits, features @ extractor.network.fc.weight.T)
    torch.testing.assert_close(InceptionLogits(extractor)(sets["real"]), logits)


def test_an_image_has_the_features_it_has_alone(extractor, sets) -> None:
    torch.testing.assert_close(extractor(sets["real"][2:3]), sets["real_features"][2:3], rtol=1e-4, atol=1e-5)


def test_torchmetrics_fid_takes_the_extractor_and_agrees(extractor, sets) -> None:
    metric = FrechetInceptionDistance(feature=extractor, normalize=True)
    metric.update(sets["real"], real=True)
    metric.update(sets["generated"], real=False)
    moments = {name: Moments(2048) for name in ("real_features", "features")}
    for name, each in moments.items():
        each.add(sets[name])
    ours = frechet_distance(*(each.statistics(TORCH_FIDELITY) for each in moments.values()))
    assert ours == pytest.approx(float(metric.compute()), rel=1e-4)
    assert ours > 1


def test_torchmetrics_kid_takes_the_extractor_and_agrees(extractor, sets) -> None:
    with warnings.catch_warnings(action="ignore"):
        metric = KernelInceptionDistance(feature=extractor, subsets=2, subset_size=5, normalize=True)
    metric.update(sets["real"][:5], real=True)
    metric.update(sets["generated"], real=False)
    ours, spread = kernel_distance(sets["real_features"][:5], sets["features"], num_subsets=3)
    assert ours == pytest.approx(float(metric.compute()[0]), rel=1e-3, abs=1e-6)
    assert spread == pytest.approx(0, abs=1e-9)  # each subset is the whole set
    assert ours > 0


def test_torchmetrics_inception_score_takes_the_logits_and_agrees(extractor, sets) -> None:
    with warnings.catch_warnings(action="ignore"):
        metric = InceptionScore(feature=InceptionLogits(extractor), splits=1, normalize=False)
        metric.update(sets["generated"])
        expected = float(metric.compute()[0])
    ours, _ = inception_score(extractor.logits(sets["generated"]), num_splits=1)
    assert ours == pytest.approx(expected, rel=1e-5)
    assert ours > 1.01


def test_training_mode_changes_nothing(extractor, sets) -> None:
    extractor.train()
    assert not any(layer.training for layer in extractor.network.modules())
    assert torch.equal(extractor(sets["real"][:1]), extractor.eval()(sets["real"][:1]))
    assert not any(p.requires_grad for p in extractor.parameters())


def test_mixed_precision_around_it_changes_nothing(extractor, sets) -> None:
    expected = extractor(sets["real"][:1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = extractor(sets["real"][:1])
    assert torch.equal(found, expected)


def test_double_precision_gives_the_same_features_up_to_rounding(extractor, sets) -> None:
    found = deepcopy(extractor).double()(sets["real"][:1])
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), sets["real_features"][:1], rtol=1e-3, atol=1e-4)


def test_conventions_give_other_features(extractor, sets) -> None:
    other = InceptionExtractor(extractor.network, VENDORED)(sets["real"][:2])
    assert (other - sets["real_features"][:2]).abs().max() > 1e-2


def test_the_hash_tells_weights_apart_but_not_counters_of_steps() -> None:
    layer = nn.BatchNorm1d(3)
    before = network_hash(layer)
    layer.num_batches_tracked += 5
    assert network_hash(layer) == before
    layer.weight.data[1] += 1e-6
    assert network_hash(layer) != before


def test_an_extractor_comes_from_a_file_with_a_convention(tmp_path, extractor) -> None:
    save_network(tmp_path / "inception.safetensors", "inception", {}, extractor.network)
    loaded = load_extractor(tmp_path / "inception.safetensors", VENDORED)
    assert loaded.convention == VENDORED
    assert loaded.content_hash() == extractor.content_hash()
    with pytest.raises(UserError, match="'plain'"):
        load_extractor(tmp_path / "inception.safetensors", "plain")


def kernel_by_loop(real: np.ndarray, generated: np.ndarray) -> float:
    """Unbiased squared MMD of two sets of equal size, term by term."""
    n, width = real.shape

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / width + 1) ** 3)

    within = sum(k(s[i], s[j]) for s in (real, generated) for i in range(n) for j in range(n) if i != j)
    across = sum(k(x, y) for x in real for y in generated)
    return within / (n * (n - 1)) - 2 * across / n**2


def test_kernel_distance_agrees_with_a_loop_and_repeats_with_its_seed() -> None:
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(30, 6)), 0.8 * rng.normal(size=(30, 6)) + 0.5
    tensors = (torch.from_numpy(real), torch.from_numpy(generated))
    assert kernel_distance(*tensors, num_subsets=1)[0] == pytest.approx(kernel_by_loop(real, generated), rel=1e-10)
    first = kernel_distance(*tensors, num_subsets=4, subset_size=10, seed=1)
    assert first == kernel_distance(*tensors, num_subsets=4, subset_size=10, seed=1)
    assert first != kernel_distance(*tensors, num_subsets=4, subset_size=10, seed=2)
    assert first[1] > 0
    with pytest.raises(ValueError, match="2 images or more"):
        kernel_distance(tensors[0][:1], tensors[1])


def score_by_loop(logits: np.ndarray, num_splits: int) -> list[float]:
    """Scores of the parts of images in order, with their logarithms written out."""
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores = []
    for s in range(num_splits):
        rows = p[s * len(p) // num_splits : (s + 1) * len(p) // num_splits]
        mean = rows.mean(axis=0)
        scores.append(np.exp(np.mean([(row * np.log(row / mean)).sum() for row in rows])))
    return scores


def test_inception_score_agrees_with_a_loop_over_images() -> None:
    logits = 2 * np.random.default_rng(0).normal(size=(47, 7))
    expected = score_by_loop(logits, 5)
    mean, sd = inception_score(torch.from_numpy(logits), num_splits=5, shuffle=False)
    assert mean == pytest.approx(np.mean(expected), rel=1e-12)
    assert sd == pytest.approx(np.std(expected), rel=1e-10)


def test_inception_score_of_sure_and_even_predictions_is_the_number_of_classes() -> None:
    assert inception_score(1000 * torch.eye(4), num_splits=1)[0] == pytest.approx(4)
    assert inception_score(torch.ones(6, 4), num_splits=2)[0] == pytest.approx(1)
    with pytest.raises(ValueError, match="6 images do not make 10 splits"):
        inception_score(torch.ones(6, 4))
