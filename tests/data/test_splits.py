"""The parts of a data set: nothing in two of them, nothing left out, each with its share of every class."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from adanat_rl.data.digits import load_digits_dataset
from adanat_rl.data.splits import Split, split_of, split_rows


def test_every_image_is_in_one_part() -> None:
    labels = load_digits_dataset().labels.numpy()
    parts = [split_rows(labels, 10, split) for split in Split]
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))


@pytest.mark.parametrize(("split", "share"), zip(Split, (0.60, 0.15, 0.25), strict=True))
def test_a_part_has_its_share_of_every_class(split: Split, share: float) -> None:
    labels = load_digits_dataset().labels.numpy()
    rows = split_rows(labels, 10, split)
    for label in range(10):
        assert abs((labels[rows] == label).sum() - share * (labels == label).sum()) <= 1


def test_a_class_without_images_is_no_trouble() -> None:
    labels = np.array([0, 2, 2, 0, 2, 2, 0, 0, 2])
    assert sorted(np.concatenate([split_rows(labels, 4, split) for split in Split])) == list(range(9))


def test_parts_do_not_depend_on_pixels_and_hold_images_with_their_labels() -> None:
    digits = load_digits_dataset()
    test = split_of(digits, Split.TEST)
    rows = torch.from_numpy(split_rows(digits.labels.numpy(), 10, Split.TEST))
    assert torch.equal(test.images, digits.images[rows])
    assert torch.equal(test.labels, digits.labels[rows])


def test_the_rule_stays() -> None:
    """Shipped networks have been trained by it: with another rule judges would look at images that a NAT has seen."""
    rows = np.concatenate([split_rows(load_digits_dataset().labels.numpy(), 10, split) for split in Split])
    assert hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:16] == "ac17d38f5fe3c5ba"
