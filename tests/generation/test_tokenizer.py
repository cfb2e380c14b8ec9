from __future__ import annotations

import numpy as np
import pytest
import torch

from adanat_rl.generation.masked.patch_tokenizer import PatchTokenizer, image_patches
from adanat_rl.generation.masked.sampler import MaskedTokenGenerator


@pytest.fixture
def tokenizer() -> PatchTokenizer:
    tokenizer = PatchTokenizer(vocab_size=40, patch_size=2, image_size=6)
    tokenizer.codebook.copy_(torch.rand(40, 4, generator=torch.Generator().manual_seed(0)))
    return tokenizer


def random_images(count: int, size: int) -> torch.Tensor:
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(1))


def test_patches_are_taken_row_by_row() -> None:
    image = torch.arange(36.0).view(1, 1, 6, 6)
    patches = image_patches(image, 2)
    assert patches.shape == (1, 9, 4)
    for token in range(9):
        row, column = 2 * (token // 3), 2 * (token % 3)
        assert patches[0, token].tolist() == image[0, 0, row : row + 2, column : column + 2].flatten().tolist()


def test_encode_finds_the_nearest_code(tokenizer: PatchTokenizer) -> None:
    images = random_images(20, 6)
    patches = image_patches(images, 2).double().numpy()
    distance = ((patches[:, :, None] - tokenizer.codebook.double().numpy()) ** 2).sum(-1)
    np.testing.assert_array_equal(tokenizer.encode(images), distance.argmin(-1))


def test_the_lowest_index_wins_a_tie() -> None:
    tokenizer = PatchTokenizer(vocab_size=30, patch_size=2, image_size=6)
    codes = torch.rand(15, 4, generator=torch.Generator().manual_seed(2))
    tokenizer.codebook.copy_(torch.cat([codes, codes]))
    assert (tokenizer.encode(random_images(20, 6)) < 15).all()


def test_decode_puts_every_code_where_it_was_found(tokenizer: PatchTokenizer) -> None:
    tokens = torch.randint(0, 40, (5, 9), generator=torch.Generator().manual_seed(3))
    images = tokenizer.decode(tokens)
    assert images.shape == (5, 1, 6, 6)
    assert torch.equal(image_patches(images, 2), tokenizer.codebook[tokens])
    assert torch.equal(tokenizer.encode(images), tokens)


def test_masks_are_shown_as_mid_grey(tokenizer: PatchTokenizer) -> None:
    tokens = torch.tensor([[40, 3, 40, 3, 3, 3, 3, 3, 40]])
    patches = image_patches(tokenizer.decode(tokens), 2)[0]
    assert (patches[[0, 2, 8]] == 0.5).all()
    assert (patches[1] == tokenizer.codebook[3]).all()


def test_the_shipped_tokenizer_loses_little_of_real_digits(digits_generator: MaskedTokenGenerator, digits) -> None:
    tokenizer = digits_generator.tokenizer
    rebuilt = tokenizer.decode(tokenizer.encode(digits.images))
    assert ((rebuilt - digits.images) ** 2).mean() < 0.05 * digits.images.var()


def test_decoded_images_stay_between_black_and_white(digits_generator: MaskedTokenGenerator) -> None:
    every_code = torch.arange(129)[:, None].expand(-1, 16)
    images = digits_generator.decode(every_code)
    assert images.min() >= 0
    assert images.max() <= 1


def test_an_image_size_that_is_no_multiple_of_the_patch_size_is_refused() -> None:
    with pytest.raises(ValueError, match="patch_size"):
        PatchTokenizer(vocab_size=4, patch_size=3, image_size=8)
