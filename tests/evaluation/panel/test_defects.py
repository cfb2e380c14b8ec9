"""Who sees what: real images with planted defects, judged against the same images without them."""

from __future__ import annotations

import pytest

from adanat_rl.data.dataset import ImageDataset
from adanat_rl.evaluation.panel.defects import DEFECTS
from adanat_rl.evaluation.panel.panel import Panel
from adanat_rl.evaluation.panel.verdict import PanelVerdict
from adanat_rl.evaluation.verdicts import Finding
from benchmarks.panel import COPIES, NONE, judge_defects, kinds


@pytest.fixture(scope="module")
def verdicts(panel: Panel, digits: ImageDataset) -> dict[str, PanelVerdict]:
    return judge_defects(panel, digits)


@pytest.mark.parametrize("name", DEFECTS)
def test_every_defect_is_seen_by_two_kinds(panel: Panel, verdicts: dict[str, PanelVerdict], name: str) -> None:
    assert len(kinds(panel, verdicts[name])) >= 2


def test_copies_of_training_images_are_seen_by_two_kinds(panel: Panel, verdicts: dict[str, PanelVerdict]) -> None:
    near = {"nearest training image by pixels", "nearest training image by gradients"}
    assert near <= kinds(panel, verdicts[COPIES])


def test_other_sound_images_are_neither_better_nor_worse(verdicts: dict[str, PanelVerdict]) -> None:
    assert not verdicts[NONE].keys(Finding.WORSE) + verdicts[NONE].keys(Finding.BETTER)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a dropped mode", "class_accuracy"),
        ("few images", "class_accuracy"),
        ("blur", "precision_pixels"),
        ("blur", "density_gradients"),
        ("shifted by a pixel", "copies_pixels"),
    ],
)
def test_a_judge_does_not_see_what_it_is_said_to_be_blind_to(
    verdicts: dict[str, PanelVerdict], name: str, key: str
) -> None:
    assert key not in verdicts[name].keys(Finding.WORSE)


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
def test_a_judge_sees_what_it_is_there_for(verdicts: dict[str, PanelVerdict], name: str, key: str) -> None:
    assert key in verdicts[name].keys(Finding.WORSE)
