"""Preparation of a data set: the same result after a kill, nothing done twice, damaged images told apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from adanat_rl.config.errors import UserError
from adanat_rl.data.crop import read_square
from adanat_rl.data.digits import ImageDataset
from adanat_rl.data.image_tree import ImageTree
from adanat_rl.data.streaming import StreamedImages
from adanat_rl.experiment.preparing import encode_tokens, images_hash, reference_statistics, token_recipe
from tests.data.files import png, write_tree

SIZE = 8


class MeanTokenizer:
    """Tokens are the levels of the mean of each quarter of the red channel, of 16."""

    vocab_size, grid_size, image_size, image_channels = 16, 2, SIZE, 3

    def __init__(self, fail_after: int = 10**9) -> None:
        self.calls = 0
        self.fail_after = fail_after

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls > self.fail_after:
            raise KeyboardInterrupt
        return (torch.nn.functional.avg_pool2d(images[:, :1], SIZE // 2).flatten(1) * 15.99).long()

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        return (tokens / 15.99).view(-1, 1, 2, 2)


class Corners:
    """Features: the four corner pixels of the green channel."""

    name, convention, num_features = "corners", "", 4

    def __init__(self, fail_after: int = 10**9) -> None:
        self.calls = 0
        self.fail_after = fail_after

    def content_hash(self) -> str:
        return "c" * 64

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls > self.fail_after:
            raise KeyboardInterrupt
        assert images.shape[1] == 3
        images = images.float() / (255 if images.dtype == torch.uint8 else 1)
        return images[:, 1][:, [0, 0, -1, -1], [0, -1, 0, -1]]


def pictures(number: int) -> np.ndarray:
    return read_square(png(number), SIZE)


@pytest.fixture
def images(tmp_path: Path) -> StreamedImages:
    return StreamedImages(ImageTree(write_tree(tmp_path / "tree", {"a": 6, "b": 5})), SIZE, num_workers=2)


def expected_tokens(mirrored: bool) -> list[list[int]]:
    rows = []
    for number in range(11):
        red = pictures(number)[0].astype(np.float32) / 255
        red = red[:, ::-1] if mirrored else red
        rows.append([int(red[y : y + 4, x : x + 4].mean() * 15.99) for y in (0, 4) for x in (0, 4)])
    return rows


def test_tokens_are_those_of_the_crops(images: StreamedImages, tmp_path: Path) -> None:
    recipe = token_recipe(images, MeanTokenizer(), "hash", horizontal_flip=True)
    seen: list[tuple[int, int]] = []
    tokens = encode_tokens(
        images, MeanTokenizer(), recipe, tmp_path / "set", batch_size=4, progress=lambda *at: seen.append(at)
    )
    assert tokens.tokens_at(np.arange(11)).tolist() == expected_tokens(False)
    assert tokens.tokens_at(np.arange(11), np.ones(11, bool)).tolist() == expected_tokens(True)
    assert tokens.labels.tolist() == images.labels.tolist()
    assert seen == [(0, 11), (4, 11), (8, 11), (11, 11)]


def test_encoding_that_was_interrupted_goes_on_and_a_finished_set_is_only_opened(
    images: StreamedImages, tmp_path: Path
) -> None:
    recipe = token_recipe(images, MeanTokenizer(), "hash")
    with pytest.raises(KeyboardInterrupt):
        encode_tokens(images, MeanTokenizer(fail_after=2), recipe, tmp_path / "set", batch_size=4)
    second = MeanTokenizer()
    tokens = encode_tokens(images, second, recipe, tmp_path / "set", batch_size=4)
    assert second.calls == 1
    assert tokens.tokens_at(np.arange(11)).tolist() == expected_tokens(False)
    third = MeanTokenizer()
    assert len(encode_tokens(images, third, recipe, tmp_path / "set")) == 11
    assert third.calls == 0


@pytest.mark.filterwarnings("ignore:damaged image")
def test_a_damaged_image_has_the_tokens_of_its_replacement_and_is_named(images: StreamedImages, tmp_path: Path) -> None:
    (tmp_path / "tree" / "b" / "1.png").write_bytes(b"")
    recipe = token_recipe(images, MeanTokenizer(), "hash")
    tokens = encode_tokens(images, MeanTokenizer(), recipe, tmp_path / "set", batch_size=4)
    expected = expected_tokens(False)
    assert tokens.tokens_at(np.array([7, 8])).tolist() == [expected[8], expected[8]]
    named = json.loads((tmp_path / "set" / "manifest.json").read_text())["damaged"]
    assert list(named) == ["7"]
    assert "b/1.png" in named["7"]


def test_a_tokenizer_of_another_size_is_refused() -> None:
    dataset = ImageDataset(torch.rand(3, 1, 8, 8), torch.arange(3), 3, "toy")
    with pytest.raises(UserError, match=r"images are 8×8 with 1 channels, but generator.tokenizer takes 8×8 with 3"):
        token_recipe(dataset, MeanTokenizer(), "hash")


def test_the_hash_of_images_in_memory_is_that_of_their_pixels() -> None:
    pixels = torch.rand(3, 1, 4, 4)
    first = ImageDataset(pixels, torch.arange(3), 3, "toy")
    assert images_hash(first) == images_hash(ImageDataset(pixels.clone(), torch.arange(3), 3, "toy"))
    assert images_hash(first) != images_hash(ImageDataset(pixels.flip(0), torch.arange(3), 3, "toy"))
    assert images_hash(first) != images_hash(ImageDataset(pixels, torch.arange(3).flip(0), 3, "toy"))


def corners(numbers: list[int]) -> np.ndarray:
    return np.stack([pictures(n)[1][[0, 0, -1, -1], [0, -1, 0, -1]] for n in numbers]).astype(np.float64) / 255


def check_statistics(statistics, features: np.ndarray) -> None:
    assert statistics.count == len(features)
    assert np.allclose(statistics.mean, features.mean(0), atol=1e-7)
    assert np.allclose(statistics.covariance, np.cov(features.T), atol=1e-7)


def test_statistics_are_those_of_all_images_and_are_taken_once(images: StreamedImages, tmp_path: Path) -> None:
    statistics = reference_statistics(images, Corners(), tmp_path / "out", batch_size=4, num_kept=5)
    check_statistics(statistics, corners(list(range(11))))
    assert statistics.features is not None
    assert len(statistics.features) == 5
    facts = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert facts["listing_hash"] == images.source.listing_hash
    assert facts["count"] == 11
    again = Corners()
    check_statistics(reference_statistics(images, again, tmp_path / "out", num_kept=5), corners(list(range(11))))
    assert again.calls == 0
    with pytest.raises(UserError, match=r"statistics.npz was made with num_kept 5, now it is 0; remove it"):
        reference_statistics(images, Corners(), tmp_path / "out")


def test_statistics_that_were_interrupted_go_on(images: StreamedImages, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("adanat_rl.experiment.preparing._SAVED_EVERY", 2)
    whole = reference_statistics(images, Corners(), tmp_path / "whole", batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        reference_statistics(images, Corners(fail_after=3), tmp_path / "out", batch_size=2)
    second = Corners()
    statistics = reference_statistics(images, second, tmp_path / "out", batch_size=2)
    assert second.calls == 3
    assert torch.equal(statistics.covariance, whole.covariance)
    assert statistics.data_hash == whole.data_hash
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"statistics.npz", "statistics.json"}


@pytest.mark.filterwarnings("ignore:damaged image")
def test_a_damaged_image_is_left_out_of_statistics(images: StreamedImages, tmp_path: Path) -> None:
    (tmp_path / "tree" / "b" / "1.png").write_bytes(b"")
    statistics = reference_statistics(images, Corners(), tmp_path / "out", batch_size=4)
    check_statistics(statistics, corners([0, 1, 2, 3, 4, 5, 6, 8, 9, 10]))
    assert "b/1.png" in json.loads((tmp_path / "out" / "statistics.json").read_text())["damaged"][0]


def test_statistics_of_grey_images_in_memory(tmp_path: Path) -> None:
    dataset = ImageDataset(torch.rand(9, 1, 4, 4), torch.arange(9), 9, "toy")
    statistics = reference_statistics(dataset, Corners(), tmp_path, batch_size=4)
    check_statistics(statistics, dataset.images[:, 0][:, [0, 0, -1, -1], [0, -1, 0, -1]].double().numpy())
