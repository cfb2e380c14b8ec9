from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from adanat_rl.config.errors import UserError
from adanat_rl.generation.masked.vq_layers import VectorQuantizer
from adanat_rl.generation.masked.vq_tokenizer import VQTokenizer
from adanat_rl.generation.weights import load_network, save_network

SMALL = {"vocab_size": 30, "image_size": 24, "code_width": 12, "base_width": 32, "width_multipliers": [1, 2, 1]}
OFFICIAL_PARAMETERS = 54_515_587


def build(**changes: Any) -> VQTokenizer:
    generator = torch.Generator().manual_seed(0)
    tokenizer = VQTokenizer(**{**SMALL, **changes}).eval().requires_grad_(False)
    for name, parameter in tokenizer.named_parameters():
        fan_in = max(parameter[0].numel(), 1)
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(noise if "embedding" in name else (parameter.dim() == 1) + 1.5 * noise / fan_in**0.5)
    tokenizer.decoder.conv_out.weight.mul_(0.1)
    tokenizer.decoder.conv_out.bias.fill_(0.5)
    return tokenizer


def images_of(tokenizer: VQTokenizer, batch_size: int = 3) -> Tensor:
    size = tokenizer.image_size
    return torch.rand(batch_size, 3, size, size, generator=torch.Generator().manual_seed(1))


def tokens_of(tokenizer: VQTokenizer, batch_size: int = 3) -> Tensor:
    shape = (batch_size, tokenizer.grid_size**2)
    return torch.randint(0, tokenizer.vocab_size, shape, generator=torch.Generator().manual_seed(2))


def random_latents(batch_size: int, width: int, height: int, length: int) -> Tensor:
    return torch.randn(batch_size, width, height, length, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("levels", "image_size", "grid_size"),
    [([1] * 5, 16, 1), ([1] * 5, 48, 3), ([1] * 5, 80, 5), ([1, 2, 1], 20, 5), ([1, 1, 2, 1], 56, 7), ([2], 6, 6)],
)
def test_any_size_that_the_factor_divides_goes_there_and_back(levels, image_size: int, grid_size: int) -> None:
    tokenizer = build(image_size=image_size, width_multipliers=levels)
    tokens = tokenizer.encode(images_of(tokenizer))
    assert tokenizer.grid_size == grid_size
    assert tokens.shape == (3, grid_size**2)
    assert tokens.dtype == torch.int64
    images = tokenizer.decode(tokens)
    assert images.shape == (3, 3, image_size, image_size)
    assert images.dtype == torch.float32


def test_weights_do_not_depend_on_the_image_size() -> None:
    with torch.device("meta"):
        states = [VQTokenizer(image_size=size).state_dict() for size in (256, 512)]
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    assert shapes[0] == shapes[1]
    assert sum(shape.numel() for shape in shapes[0].values()) == OFFICIAL_PARAMETERS


def test_images_of_512_pixels_have_32_by_32_tokens() -> None:
    with torch.device("meta"):
        tokenizer = VQTokenizer(image_size=512)
    assert (tokenizer.factor, tokenizer.grid_size) == (16, 32)


def test_nearest_finds_the_nearest_code_row_by_row() -> None:
    quantizer = VectorQuantizer(40, 6).requires_grad_(False)
    quantizer.embedding.weight.copy_(torch.randn(40, 6, generator=torch.Generator().manual_seed(4)))
    latents = random_latents(3, 6, 2, 5)  # not square: rows and columns cannot be mixed up
    rows = latents.double().numpy().transpose(0, 2, 3, 1).reshape(3, 10, 1, 6)
    distances = ((rows - quantizer.embedding.weight.double().numpy()) ** 2).sum(-1)
    indices = quantizer.nearest(latents)
    np.testing.assert_array_equal(indices, distances.argmin(-1))
    codes = quantizer.lookup(indices.view(3, 2, 5))
    assert torch.equal(codes[1, :, 1, 3], quantizer.embedding.weight[indices[1, 8]])


def test_the_lowest_index_wins_a_tie() -> None:
    quantizer = VectorQuantizer(40, 6).requires_grad_(False)
    half = torch.randn(20, 6, generator=torch.Generator().manual_seed(5))
    quantizer.embedding.weight.copy_(torch.cat([half, half]))
    assert (quantizer.nearest(random_latents(3, 6, 4, 4)) < 20).all()


def test_codes_of_an_image_do_not_depend_on_its_batch_mates_nor_on_autocast() -> None:
    quantizer = VectorQuantizer(500, 16).requires_grad_(False)
    quantizer.embedding.weight.normal_(generator=torch.Generator().manual_seed(6))
    latents = random_latents(7, 16, 8, 8)
    indices = quantizer.nearest(latents)
    assert all(torch.equal(quantizer.nearest(latents[row : row + 1])[0], indices[row]) for row in range(7))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer.nearest(latents), indices)


class LargestTensor(TorchDispatchMode):
    """Notes how many values the largest result of any operation has."""

    num_values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.num_values = max(self.num_values, result.numel())
        return result


def test_distances_of_one_image_at_a_time_are_in_memory() -> None:
    quantizer, latents = VectorQuantizer(1000, 4).requires_grad_(False), random_latents(9, 4, 8, 8)
    with LargestTensor() as largest:
        quantizer.nearest(latents)
    assert largest.num_values == 64 * 1000


def test_quantised_latents_pass_their_gradient_straight_through() -> None:
    quantizer = VectorQuantizer(30, 6)
    latents = random_latents(2, 6, 3, 3).requires_grad_()
    quantised, loss = quantizer(latents)
    codes = quantizer.lookup(quantizer.nearest(latents).view(2, 3, 3))
    torch.testing.assert_close(quantised, codes)
    weights = random_latents(2, 6, 3, 3)
    (gradient,) = torch.autograd.grad((quantised * weights).sum(), latents)
    assert torch.equal(gradient, weights)
    (pull,) = torch.autograd.grad(loss, latents, retain_graph=True)
    torch.testing.assert_close(pull, 2 * (latents - codes).detach() / latents.numel())
    (code_pull,) = torch.autograd.grad(loss, quantizer.embedding.weight)
    torch.testing.assert_close(code_pull.sum(0), -0.25 * pull.sum((0, 2, 3)))


def test_decode_is_the_decoder_of_the_codes_clamped() -> None:
    tokenizer = build()
    tokens = tokens_of(tokenizer)
    raw = tokenizer.decode_latents(tokenizer.quantize.lookup(tokens.view(3, 6, 6)))
    assert raw.min() < 0  # so that clamping is tested
    assert raw.max() > 1
    assert torch.equal(tokenizer.decode(tokens), raw.clamp(0, 1))


def test_masks_are_shown_as_mid_grey_and_stand_for_the_mean_code() -> None:
    tokenizer = build()
    tokens = tokens_of(tokenizer)
    tokens[0, [0, 7, 35]] = tokenizer.mask_token_id
    tokens[1] = tokenizer.mask_token_id
    images = tokenizer.decode(tokens)

    codes = tokenizer.quantize.embedding.weight
    with_mean = torch.cat([codes, codes.mean(0, keepdim=True)])[tokens].view(3, 6, 6, 12).permute(0, 3, 1, 2)
    expected = tokenizer.decode_latents(with_mean).clamp(0, 1)
    shown = torch.ones(3, 24, 24, dtype=torch.bool)
    for row, column in ((0, 0), (1, 1), (5, 5)):
        shown[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = False
    shown[1] = False
    shown = shown[:, None].expand_as(images)
    torch.testing.assert_close(images[shown], expected[shown])
    assert (images[~shown] == 0.5).all()


def test_bfloat16_weights_decode_to_float32_images_near_those_of_float32() -> None:
    tokenizer = build()
    images, tokens = images_of(tokenizer), tokens_of(tokenizer)
    exact = tokenizer.decode(tokens)
    tokenizer.to(torch.bfloat16)
    found = tokenizer.decode(tokens)
    assert found.dtype == torch.float32
    assert (found - exact).abs().mean() < 0.1 * exact.std()
    assert tokenizer.encode(images).dtype == torch.int64


def test_a_saved_tokenizer_comes_back_with_the_same_bits(tmp_path: Path) -> None:
    tokenizer, path = build(), tmp_path / "tokenizer.safetensors"
    save_network(path, "vqgan", SMALL, tokenizer)
    loaded = load_network(path, {"vqgan": VQTokenizer})
    assert not loaded.training
    images = images_of(tokenizer)
    tokens = tokenizer.encode(images)
    assert len(tokens.unique()) > 2
    assert torch.equal(loaded.encode(images), tokens)
    assert torch.equal(loaded.decode(tokens), tokenizer.decode(tokens))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 26}, "image_size is 26; accepted: multiples of 4"),
        ({"image_size": 0}, "image_size is 0"),
        ({"base_width": 48}, r"base_width × width_multipliers is \[48, 96, 48\]; accepted: multiples of 32"),
        ({"width_multipliers": []}, r"width_multipliers is \[\]"),
    ],
)
def test_arguments_that_make_no_tokenizer_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        VQTokenizer(**{**SMALL, **change})
    path = tmp_path / "tokenizer.safetensors"
    save_network(path, "vqgan", {**SMALL, **change}, build())
    with pytest.raises(UserError, match=message):
        load_network(path, {"vqgan": VQTokenizer})


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 24, 24), (3, 24, 24), (2, 3, 24, 28)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"takes images \[B, 3, 24, 24\], found \["):
        build().encode(torch.zeros(shape))
