from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from adanat_rl.config.loading import resolve
from adanat_rl.config.schema import PretrainingConfig
from adanat_rl.data.dataset import ImageDataset
from adanat_rl.experiment.pretraining_conv import MovingCodebook, fit_conv_tokenizer
from adanat_rl.generation.build import load_tokenizer
from adanat_rl.generation.masked.conv_tokenizer import ConvVQTokenizer
from adanat_rl.generation.weights import load_network, save_network


@pytest.fixture
def tokenizer() -> ConvVQTokenizer:
    torch.manual_seed(0)
    tokenizer = ConvVQTokenizer(vocab_size=20, image_size=12, channels=8, code_width=4)
    tokenizer.codebook.copy_(0.2 * torch.randn(20, 4))
    return tokenizer.eval()


def random_images(count: int, size: int = 12) -> torch.Tensor:
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(1))


def test_encode_finds_the_nearest_code_of_each_latent(tokenizer: ConvVQTokenizer) -> None:
    images = random_images(70)
    with torch.no_grad():
        grid = tokenizer.encoder(2 * images - 1).double().numpy()  # [70, 4, 3, 3]
    expected = np.empty((70, 9), np.int64)
    codes = tokenizer.codebook.double().numpy()
    for row in range(3):
        for column in range(3):
            distance = ((grid[:, None, :, row, column] - codes) ** 2).sum(-1)
            expected[:, 3 * row + column] = distance.argmin(-1)
    np.testing.assert_array_equal(tokenizer.encode(images), expected)


def test_decode_sees_each_code_where_its_token_stands(tokenizer: ConvVQTokenizer) -> None:
    tokens = torch.randint(0, 20, (3, 9), generator=torch.Generator().manual_seed(2))
    grid = torch.empty(3, 4, 3, 3)
    for position in range(9):
        grid[:, :, position // 3, position % 3] = tokenizer.codebook[tokens[:, position]]
    with torch.no_grad():
        expected = ((tokenizer.decoder(grid) + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(tokenizer.decode(tokens), expected, rtol=0, atol=1e-6)


def test_an_image_does_not_depend_on_its_batch(tokenizer: ConvVQTokenizer) -> None:
    images = random_images(130)
    tokens = tokenizer.encode(images)
    decoded = tokenizer.decode(tokens)
    for rows in (slice(0, 1), slice(60, 70), slice(129, 130)):
        assert torch.equal(tokenizer.encode(images[rows]), tokens[rows])
        assert torch.equal(tokenizer.decode(tokens[rows]), decoded[rows])


def test_masks_are_shown_as_mid_grey(tokenizer: ConvVQTokenizer) -> None:
    tokens = torch.tensor([[20, 3, 3, 3, 20, 3, 3, 3, 3]])
    image = tokenizer.decode(tokens)[0, 0]
    assert (image[:4, :4] == 0.5).all()
    assert (image[4:8, 4:8] == 0.5).all()
    assert not (image[8:, 8:] == 0.5).any()


def test_an_image_size_that_is_no_multiple_of_four_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        ConvVQTokenizer(vocab_size=4, image_size=10)


def test_half_precision_comes_back_as_rounded_float32(tokenizer: ConvVQTokenizer, tmp_path: Path) -> None:
    path, full = tmp_path / "half.safetensors", tmp_path / "full.safetensors"
    arguments = {"vocab_size": 20, "image_size": 12, "channels": 8, "code_width": 4}
    save_network(path, "conv_vq", arguments, tokenizer, half=True)
    save_network(full, "conv_vq", arguments, tokenizer)
    loaded = load_network(path, {"conv_vq": ConvVQTokenizer}).state_dict()
    for name, tensor in tokenizer.state_dict().items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], tensor.half().float())
    assert path.stat().st_size < 0.75 * full.stat().st_size


def test_codes_move_to_the_mean_of_those_who_chose_them() -> None:
    codes = torch.tensor([[0.0, 0.0], [10.0, 10.0]])
    book = MovingCodebook(codes)
    torch.manual_seed(0)
    latents = torch.tensor([[1.0, 1.0], [1.0, 3.0], [10.0, 12.0], [10.0, 12.0]])
    for _ in range(400):
        book.update(latents, torch.tensor([0, 0, 1, 1]))
    torch.testing.assert_close(book.codes, torch.tensor([[1.0, 2.0], [10.0, 12.0]]), rtol=0, atol=1e-3)


def test_one_update_weighs_the_start_against_the_batch() -> None:
    book = MovingCodebook(torch.tensor([[2.0]]))
    book.update(torch.tensor([[5.0]] * 10), torch.zeros(10, dtype=torch.int64))
    expected = (0.97 * 20 * 2.0 + 0.03 * 10 * 5.0) / (0.97 * 20 + 0.03 * 10)
    assert book.codes.item() == pytest.approx(expected)


def test_a_code_that_nobody_chooses_is_put_onto_a_latent() -> None:
    book = MovingCodebook(torch.tensor([[0.0], [100.0]]))
    torch.manual_seed(0)
    for _ in range(200):
        book.update(torch.tensor([[0.5], [0.7]]), torch.tensor([0, 0]))
        if book.codes[1] < 1:
            break
    assert any(abs(book.codes[1].item() - value) < 1e-6 for value in (0.5, 0.7))


def test_training_makes_codes_that_tell_images_apart() -> None:
    torch.manual_seed(0)
    squares = functional.interpolate((torch.rand(64, 1, 4, 4) > 0.5).float(), scale_factor=4)
    dataset = ImageDataset(squares, torch.zeros(64, dtype=torch.int64), 1, "squares")
    config = PretrainingConfig(
        tokenizer="conv", vocab_size=16, tokenizer_channels=16, num_tokenizer_steps=150, batch_size=32
    )
    rows: list[dict] = []
    tokenizer, arguments = fit_conv_tokenizer(dataset, config, 0, rows.append)
    again, _ = fit_conv_tokenizer(dataset, config, 0, lambda row: None)
    assert arguments == {"vocab_size": 16, "image_size": 16, "channels": 16, "code_width": 16}
    error = functional.mse_loss(tokenizer.decode(tokenizer.encode(squares)), squares)
    assert error < 0.2 * squares.var()
    assert [row["step"] for row in rows] == list(range(15, 151, 15))
    assert all(
        torch.equal(a, b) for a, b in zip(tokenizer.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_the_shipped_tokenizer_loses_little_of_real_images() -> None:
    from adanat_rl.data.mnist import load_mnist_dataset

    images = load_mnist_dataset().images[:500]
    tokenizer = load_tokenizer(resolve("mnist").generator)
    assert (tokenizer.vocab_size, tokenizer.grid_size, tokenizer.image_size) == (128, 7, 28)
    tokens = tokenizer.encode(images)
    assert len(tokens.unique()) > 100
    assert ((tokenizer.decode(tokens) - images) ** 2).mean() < 0.06 * images.var()
