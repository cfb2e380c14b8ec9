"""A panel as a whole: features once for all judges, pieces in any cut, and what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adanat_rl.config.errors import UserError
from adanat_rl.data.dataset import ImageDataset
from adanat_rl.evaluation.panel.contract import Value
from adanat_rl.evaluation.panel.judges import FrechetJudge, ManifoldJudge
from adanat_rl.evaluation.panel.panel import Panel
from adanat_rl.generation.seeding import Purpose, philox


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

    set_size: int | None = None

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


def test_a_state_of_other_weights_is_refused(panel: Panel, digits: ImageDataset) -> None:
    gathered = panel.begin()
    gathered.add(digits.images[:5], digits.labels[:5])
    changed = copy.deepcopy(panel)
    network = next(space for space in changed.spaces.values() if isinstance(space, nn.Module))
    with torch.no_grad():
        next(network.parameters()).add_(1e-3)
    with pytest.raises(UserError, match="another panel"):
        Panel(changed.judges).begin().restore(gathered.state())


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


class Moments(Constant):
    """Gives the mean and the variance of the first pixel, of sets of any number or of a fixed one."""

    def __init__(self, set_size: int | None) -> None:
        super().__init__({}, Counting(), ("mean", "variance"))
        self.set_size = set_size
        self.sizes: list[int] = []

    def __call__(self, features: Tensor, context: Tensor) -> Mapping[str, float]:
        assert len(features) == len(context)
        self.sizes.append(len(features))
        pixel = features[:, 0].double()
        return {"mean": float(pixel.mean()), "variance": float(pixel.var())}


def _drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
    images = torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(seed))
    return images, torch.arange(count) % 3


@pytest.mark.parametrize(
    ("count", "sizes"), [(30, [30]), (50, [50]), (99, [50]), (120, [50, 50]), (1000, [50, 50, 50, 50])]
)
def test_a_judge_of_sets_gets_disjoint_sets_of_its_size(count: int, sizes: list[int]) -> None:
    judge = Moments(50)
    Panel([judge])(*_drawn(count, 0))
    assert judge.sizes == sizes


def test_sets_do_not_overlap_and_are_the_same_whatever_was_drawn() -> None:
    judge = Moments(50)
    images = torch.arange(200.0).view(200, 1, 1, 1).expand(200, 1, 2, 2)
    gathered = Panel([judge]).begin()
    gathered.add(images, torch.zeros(200, dtype=torch.int64))
    parts = gathered.replicates()
    assert sum(parts["mean"]) / 4 == pytest.approx(99.5)
    assert sum(parts["mean"]) / 4 == pytest.approx(gathered.result()["mean"])


def test_pseudo_values_of_a_mean_are_the_means_of_the_groups() -> None:
    gathered = Panel([Moments(None)]).begin()
    images, _ = _drawn(400, 1)
    gathered.add(images, torch.zeros(400, dtype=torch.int64))
    found = sorted(gathered.replicates()["mean"])
    pixel = images[:, 0, 0, 0].double()
    order = torch.from_numpy(philox(Purpose.JUDGE, 400).permutation(400))
    assert found == pytest.approx(sorted(float(pixel[rows].mean()) for rows in order.tensor_split(4)))


@pytest.mark.parametrize("set_size", [None, 100])
def test_parts_hold_the_same_classes(set_size: int | None) -> None:
    """The first pixel is the class: parts that are alike in classes then have the same mean."""
    context = (torch.arange(400) ** 2) % 10
    gathered = Panel([Moments(set_size)]).begin()
    gathered.add(context[:, None, None, None].float().expand(400, 1, 2, 2) / 10, context)
    parts = gathered.replicates()["mean"]
    assert len(parts) == 4
    assert max(parts) - min(parts) < 0.02


@pytest.mark.parametrize("set_size", [None, 100])
@pytest.mark.parametrize("key", ["mean", "variance"])
def test_replicates_spread_as_values_do_from_seed_to_seed(set_size: int | None, key: str) -> None:
    """The variance of a value over seeds is that of its replicates, over their number."""
    values, within = [], []
    for seed in range(150):
        gathered = Panel([Moments(set_size)]).begin()
        gathered.add(*_drawn(400, seed))
        parts = gathered.replicates()[key]
        assert np.mean(parts) == pytest.approx(gathered.result()[key])
        values.append(np.mean(parts))
        within.append(np.var(parts, ddof=1) / len(parts))
    assert np.var(values, ddof=1) == pytest.approx(np.mean(within), rel=0.35)


def test_few_images_have_one_replicate_each() -> None:
    gathered = Panel([Moments(None)]).begin()
    gathered.add(*_drawn(120, 1))
    assert {key: len(parts) for key, parts in gathered.replicates().items()} == {"mean": 1, "variance": 1}
