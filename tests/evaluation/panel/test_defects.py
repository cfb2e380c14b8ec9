"""Who sees what: real images with planted defects, judged against the same images without them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adanat_rl.data.dataset import ImageDataset
from adanat_rl.data.splits import Split, split_of
from adanat_rl.evaluation.panel.panel import Panel
from adanat_rl.evaluation.panel.verdict import PanelVerdict, panel_verdict
from adanat_rl.evaluation.verdicts import Finding
from tests.evaluation.panel.defects import DEFECTS

_SETS, _SET_SIZE = 4, 200


class Judged:
    """What the panel says of images with and without a defect, over four sets of validation images."""

    def __init__(self, panel: Panel, dataset: ImageDataset) -> None:
        self._panel, self._training = panel, split_of(dataset, Split.TRAIN)
        validation = split_of(dataset, Split.VALIDATION)
        rows = [
            torch.randperm(len(validation), generator=torch.Generator().manual_seed(number))[:_SET_SIZE]
            for number in range(_SETS)
        ]
        self._sets = [(validation.images[row], validation.labels[row]) for row in rows]
        self._sound = self._numbers(self._sets)

    def with_defect(self, name: str) -> PanelVerdict:
        """The verdict on a defect, or on "none"."""
        sets = self._sets if name == "none" else [DEFECTS[name](*images) for images in self._sets]
        return self._against_sound(sets)

    def copies(self) -> PanelVerdict:
        """The verdict on training images, handed in as generated ones."""
        return self._against_sound([(self._training_images(context), context) for _, context in self._sets])

    def kinds(self, verdict: PanelVerdict) -> set[str]:
        """Kinds of judges with a value that got worse."""
        worse = verdict.keys(Finding.WORSE)
        return {judge.kind for judge in self._panel.judges if any(value.key in worse for value in judge.values)}

    def _against_sound(self, sets: list[tuple[Tensor, Tensor]]) -> PanelVerdict:
        return panel_verdict(self._panel.values, self._numbers(sets), self._sound)

    def _numbers(self, sets: list[tuple[Tensor, Tensor]]) -> dict[str, list[float]]:
        rows = [self._panel(*images) for images in sets]
        return {key: [row[key] for row in rows] for key in rows[0]}

    def _training_images(self, context: Tensor) -> Tensor:
        """One training image after the other, each of the class that was asked for."""
        images = torch.empty(len(context), *self._training.image_shape)
        for label in context.unique():
            of_class = self._training.images[self._training.labels == label]
            images[context == label] = of_class[: int((context == label).sum())]
        return images


@pytest.fixture(scope="module")
def judged(panel: Panel, digits: ImageDataset) -> Judged:
    return Judged(panel, digits)


@pytest.mark.parametrize("name", DEFECTS)
def test_every_defect_is_seen_by_two_kinds(judged: Judged, name: str) -> None:
    assert len(judged.kinds(judged.with_defect(name))) >= 2


def test_copies_of_training_images_are_seen_by_two_kinds(judged: Judged) -> None:
    near = {"nearest training image by pixels", "nearest training image by gradients"}
    assert near <= judged.kinds(judged.copies())


def test_sound_images_are_as_good_as_themselves(judged: Judged) -> None:
    assert judged.with_defect("none").count(Finding.LEVEL) == len(judged.with_defect("none").rows)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("swapped classes", "fd_pixels"),
        ("swapped classes", "recall_gradients"),
        ("swapped classes", "fd_convolutions"),
        ("a dropped mode", "class_accuracy"),
        ("few images", "class_accuracy"),
        ("blur", "precision_pixels"),
        ("blur", "density_gradients"),
        ("shifted by a pixel", "copies_pixels"),
    ],
)
def test_a_judge_does_not_see_what_it_is_said_to_be_blind_to(judged: Judged, name: str, key: str) -> None:
    assert key not in judged.with_defect(name).keys(Finding.WORSE)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("blur", "recall_pixels"),
        ("noise", "precision_gradients"),
        ("a dropped class", "class_accuracy"),
        ("swapped classes", "usefulness"),
        ("a dropped mode", "recall_gradients"),
        ("a dropped mode", "fd_pixels"),
        ("few images", "coverage_pixels"),
    ],
)
def test_a_judge_sees_what_it_is_there_for(judged: Judged, name: str, key: str) -> None:
    assert key in judged.with_defect(name).keys(Finding.WORSE)
