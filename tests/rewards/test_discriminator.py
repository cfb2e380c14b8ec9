from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from adanat_rl.rewards.discriminator import PatchDiscriminator


@pytest.fixture
def discriminator() -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator(num_classes=5, channels=6).eval()


@pytest.mark.parametrize("size", [4, 8, 28])
def test_there_is_one_logit_per_patch_of_two_by_two(discriminator: PatchDiscriminator, size: int) -> None:
    logits = discriminator(torch.rand(3, 1, size, size), torch.tensor([0, 4, 2]))
    assert logits.shape == (3, (size // 2) ** 2)


def test_convolutions_have_spectral_norm_one() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(num_classes=5, channels=6).train()
    for _ in range(30):  # power iterations
        discriminator(torch.rand(2, 1, 8, 8), torch.tensor([0, 1]))
    for layer in (discriminator.conv1, discriminator.conv2, discriminator.conv3):
        matrix = layer.weight.detach().flatten(1).double().numpy()
        assert np.linalg.norm(matrix, 2) == pytest.approx(1, rel=1e-3)


def test_logits_are_head_plus_class_projection_of_the_last_layer(discriminator: PatchDiscriminator) -> None:
    images, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 1, 4])
    with torch.no_grad():
        found = discriminator(images, labels)
        hidden = 2 * images - 1
        for layer, stride in ((discriminator.conv1, 1), (discriminator.conv2, 2), (discriminator.conv3, 1)):
            hidden = functional.leaky_relu(functional.conv2d(hidden, layer.weight, layer.bias, stride, padding=1), 0.2)
        for b in range(4):
            weight = discriminator.head.weight[0, :, 0, 0] + discriminator.class_projection.weight[labels[b]]
            expected = torch.einsum("chw,c->hw", hidden[b], weight) + discriminator.head.bias
            np.testing.assert_allclose(found[b], expected.flatten(), rtol=1e-4, atol=1e-5)


def test_the_label_matters_and_the_batch_does_not(discriminator: PatchDiscriminator) -> None:
    images = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        together = discriminator(images, torch.tensor([0, 1, 2, 3]))
        alone = discriminator(images[2:3], torch.tensor([2]))
        other = discriminator(images[2:3], torch.tensor([3]))
    np.testing.assert_allclose(together[2], alone[0], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(alone, other)


@pytest.mark.parametrize(("first_stride", "num_patches", "side"), [(1, 196, 10), (2, 49, 18)])
def test_a_patch_sees_as_much_as_the_first_stride_says(first_stride: int, num_patches: int, side: int) -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(num_classes=5, channels=6, first_stride=first_stride).eval()
    image = torch.rand(1, 1, 28, 28, requires_grad=True)
    logits = discriminator(image, torch.tensor([3]))
    assert logits.shape == (1, num_patches)
    grid = round(num_patches**0.5)
    (gradient,) = torch.autograd.grad(logits[0, (grid // 2) * grid + grid // 2], image)
    rows, columns = gradient[0, 0].nonzero(as_tuple=True)
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (side, side)
