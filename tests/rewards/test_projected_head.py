from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from adanat_rl.rewards.adversarial_losses import Loss, accuracy, image_losses
from adanat_rl.rewards.projected.discriminator import ProjectedDiscriminator
from adanat_rl.rewards.projected.head import LocalBatchNorm, SpectralConv1d, local_groups, packed_groups


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def norm() -> LocalBatchNorm:
    norm = LocalBatchNorm(3)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias)
    return norm.requires_grad_(False)


def expected(norm: LocalBatchNorm, x: np.ndarray, groups: list[int], eps: float = 1e-5) -> np.ndarray:
    parts = []
    for part in np.split(x.astype(np.float64), np.cumsum(groups)[:-1]):
        mean, variance = part.mean(axis=(0, 2), keepdims=True), part.var(axis=(0, 2), keepdims=True)
        parts.append((part - mean) / np.sqrt(variance + eps))
    weight, bias = (values.double().numpy()[:, None] for values in (norm.weight, norm.bias))
    return np.concatenate(parts) * weight + bias


@pytest.mark.parametrize("groups", [[1], [7], [5, 4], [7, 6], [8, 8], [8, 7, 7, 7], [1, 2, 1]])
def test_each_group_is_normalised_by_its_own_statistics(norm: LocalBatchNorm, groups: list[int]) -> None:
    x = 3 + noise(sum(groups), 3, 5)
    np.testing.assert_allclose(norm(x, groups), expected(norm, x.numpy(), groups), rtol=1e-4, atol=1e-5)


def test_the_eps_of_the_norm_matters_for_small_features(norm: LocalBatchNorm) -> None:
    x = 3e-3 * noise(9, 3, 5)
    np.testing.assert_allclose(norm(x, [5, 4]), expected(norm, x.numpy(), [5, 4]), rtol=1e-3, atol=1e-4)
    norm.eps = 1e-6
    assert np.abs(norm(x, [5, 4]).numpy() - expected(norm, x.numpy(), [5, 4])).max() > 0.1


def test_groups_that_do_not_add_up_are_an_error(norm: LocalBatchNorm) -> None:
    with pytest.raises(ValueError, match="groups of 8 images in all, but there are 9"):
        norm(noise(9, 3, 5), [8])


def test_a_virtual_group_is_the_image_and_seven_average_mates(norm: LocalBatchNorm) -> None:
    """With mates whose moments are those of seven real ones, both kinds of group are the same."""
    images, mates = 1 + noise(4, 3, 5), 2 * noise(7, 3, 5, seed=1)
    norm.set_mates(mates.mean(dim=(0, 2)), mates.var(dim=(0, 2), correction=0))
    found = norm(images, None)
    for number in range(4):
        group = torch.cat([images[number : number + 1], mates])
        torch.testing.assert_close(found[number], norm(group, [8])[0], rtol=1e-4, atol=1e-5)


def test_without_mates_an_image_is_alone(norm: LocalBatchNorm) -> None:
    images = noise(4, 3, 5)
    torch.testing.assert_close(norm(images, None), norm(images, [1, 1, 1, 1]))


def test_mates_are_the_moments_of_what_the_norms_are_given() -> None:
    torch.manual_seed(0)
    network = ProjectedDiscriminator(condition_width=0, num_classes=None, channels=3, num_features=2).train()
    features = [noise(12, 3, 5, seed=seed) for seed in (1, 2)]
    before = {name: value.clone() for name, value in network.state_dict().items() if "mate_" not in name}
    network.set_mates([([f[:8] for f in features], None, [8]), ([f[8:] for f in features], None, [4])])
    assert network.training
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    network.eval().requires_grad_(False)
    for head, feature in zip(network.heads, features, strict=True):
        convolution, norm = head.main[0]
        given = convolution(feature).double().numpy()
        np.testing.assert_allclose(norm.mate_mean, given.mean(axis=(0, 2)), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(norm.mate_var, given.var(axis=(0, 2)), rtol=1e-4)
        hidden = torch.nn.functional.leaky_relu(norm(convolution(feature), [8, 4]), 0.2)
        convolution, norm = head.main[1].fn
        np.testing.assert_allclose(norm.mate_var, convolution(hidden).double().numpy().var(axis=(0, 2)), rtol=1e-4)


def test_statistics_of_half_precision_are_taken_in_float32(norm: LocalBatchNorm) -> None:
    x = (100 + noise(16, 3, 500)).bfloat16()
    found = norm(x, [8, 8])
    assert found.dtype == torch.bfloat16
    np.testing.assert_allclose(found.float(), expected(norm, x.float().numpy(), [8, 8]), rtol=1e-2, atol=1e-2)


def test_groups_are_packed_whole() -> None:
    assert packed_groups([8, 7, 7, 7], 16) == [[8, 7], [7, 7]]
    assert packed_groups([8, 7, 7, 7], None) == [[8, 7, 7, 7]]
    assert packed_groups([8, 8], 8) == [[8], [8]]
    assert packed_groups([8, 8], 3) == [[8], [8]]
    for count in range(1, 150):
        for limit in (8, 16, 64):
            packed = packed_groups(local_groups(count), limit)
            assert [size for part in packed for size in part] == local_groups(count)
            assert max(map(sum, packed)) <= limit


def test_a_convolution_is_circular_and_has_spectral_norm_one() -> None:
    torch.manual_seed(0)
    convolution = SpectralConv1d(4, 6, 3).train()
    x = noise(2, 4, 7)
    for _ in range(50):
        convolution(x)
    convolution.eval().requires_grad_(False)
    matrix = convolution.weight_orig.flatten(1).double().numpy()
    weight = (matrix / np.linalg.svd(matrix, compute_uv=False)[0]).reshape(6, 4, 3)
    padded = np.concatenate([x[..., -1:], x, x[..., :1]], axis=2)
    windows = np.stack([padded[..., i : i + 7] for i in range(3)], axis=-1)
    by_hand = np.einsum("bilk,oik->bol", windows, weight) + convolution.bias.numpy()[:, None]
    np.testing.assert_allclose(convolution(x), by_hand, rtol=1e-4, atol=1e-5)


def test_only_training_renews_spectral_vectors() -> None:
    torch.manual_seed(0)
    convolution = SpectralConv1d(4, 6, 1).eval()
    nn.init.normal_(convolution.weight_orig)
    before = convolution.weight_u.clone()
    convolution(noise(2, 4, 7))
    assert torch.equal(convolution.weight_u, before)
    convolution.train()(noise(2, 4, 7))
    assert not torch.equal(convolution.weight_u, before)


LOSSES: list[Loss] = ["cross_entropy", "logistic", "hinge"]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("real", [True, False])
def test_losses_are_their_formulas(loss: Loss, real: bool) -> None:
    logits = 2 * noise(5, 7)
    x = logits.double().numpy()
    if loss == "cross_entropy":
        p = 1 / (1 + np.exp(-x.mean(axis=1)))
        target = 0.9 if real else 0.0
        losses = -(target * np.log(p) + (1 - target) * np.log(1 - p))
    elif loss == "logistic":
        losses = np.log1p(np.exp(-x if real else x)).mean(axis=1)
    else:
        losses = np.maximum(0, 1 - x if real else 1 + x).mean(axis=1)
    np.testing.assert_allclose(image_losses(logits, real, loss, 0.9), losses, rtol=1e-5)
    mean = image_losses(logits, real, loss, 0.9, reduction="mean")
    np.testing.assert_allclose(mean, losses.mean(), rtol=1e-5)


def test_accuracy_counts_logits_on_the_right_side() -> None:
    real, fake = torch.tensor([[1.0, -1.0], [2.0, 0.5]]), torch.tensor([[-1.0, -3.0]])
    assert accuracy(real, fake) == (3 / 4 + 1) / 2
