"""A panel as a whole: features once for all judges, pieces in any cut, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.data.dataset import ImageDataset
from adanat_rl.evaluation.panel.contract import Value
from adanat_rl.evaluation.panel.judges import FrechetJudge, ManifoldJudge
from adanat_rl.evaluation.panel.panel import Panel


class Counting:
    """A space that counts the images it is asked for."""

    name = "counting"

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.count += len(images)
        return images.flatten(1)[:, :4]


class Constant:
    """A judge that gives what it is told to."""

    kind, blind_to, name = "constant", "everything", "constant"

    def __init__(self, numbers: Mapping[str, float], space: Any, keys: tuple[str, ...] = ("a",)) -> None:
        self.space = space
        self.values = tuple(Value(key, key, True, 0.1) for key in keys)
        self._numbers = numbers

    def __call__(self, features: Tensor, context: Tensor) -> Mapping[str, float]:
        return self._numbers


def test_images_pass_a_space_once_for_all_its_judges(digits: ImageDataset) -> None:
    space = Counting()
    real = digits.images[:100].flatten(1)[:, 20:24]
    panel = Panel([FrechetJudge(space, real, "", ""), ManifoldJudge(space, real, "", "")])
    numbers = panel(digits.images[:50], digits.labels[:50])
    assert space.count == 50
    assert list(numbers) == [value.key for value in panel.values]


def test_numbers_do_not_depend_on_batches_or_on_an_interruption(panel: Panel, digits: ImageDataset) -> None:
    images, labels = digits.images[:300], digits.labels[:300]
    gathered = panel.begin()
    for part in torch.arange(300).split(130)[:2]:
        gathered.add(images[part], labels[part])
    resumed = panel.begin()
    resumed.restore(gathered.state())
    resumed.add(images[260:], labels[260:])
    assert resumed.count == 300
    assert resumed.result() == pytest.approx(panel(images, labels), rel=1e-5)


def test_a_state_of_another_panel_is_refused(panel: Panel, digits: ImageDataset) -> None:
    other = Panel([Constant({"a": 0.0}, Counting())]).begin()
    other.add(digits.images[:5], digits.labels[:5])
    with pytest.raises(UserError, match="another panel"):
        panel.begin().restore(other.state())


@pytest.mark.parametrize(
    ("judges", "message"),
    [
        (list, "needs one judge"),
        (lambda: [Constant({}, Counting()), Constant({}, Counting())], "another judge has a feature space"),
        (lambda: [Constant({}, space := Counting()), Constant({}, space)], "two judges of a panel have the name const"),
        (lambda: [Constant({}, Counting(), ("a", "a"))], "two values of a panel have the name a"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(judges: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Panel(judges())


def test_a_judge_gives_what_it_has_announced(digits: ImageDataset) -> None:
    panel = Panel([Constant({"b": 1.0}, Counting())])
    with pytest.raises(UserError, match=r"judge constant gave \['b'\], expected \['a'\]"):
        panel(digits.images[:5], digits.labels[:5])


def test_a_space_gives_a_row_for_each_image(digits: ImageDataset) -> None:
    space = Counting()
    space.__class__ = type("Flat", (Counting,), {"__call__": lambda self, images: images.flatten()})
    with pytest.raises(UserError, match=r"feature space counting gave \[320\] for 5 images, expected \[5, D\]"):
        Panel([Constant({"a": 1.0}, space)])(digits.images[:5], digits.labels[:5])


def test_every_judge_says_what_it_is_blind_to(panel: Panel) -> None:
    assert all(judge.blind_to and judge.kind and judge.name for judge in panel.judges)
    assert len({judge.kind for judge in panel.judges}) >= 5
    assert len(panel.values) >= 9
