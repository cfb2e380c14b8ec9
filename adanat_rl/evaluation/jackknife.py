"""Several numbers for a value of one set of images, from parts of the set: more to go by than one number a seed.

The numbers are the pseudo-values of a jackknife (Tukey 1958) over groups of images: n times the value, less n - 1 times
that of all but one group, moved so that their mean is the value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from adanat_rl.metrics.accumulation import Moments, State, part, under

NUM_GROUPS = 4
_SMALLEST_GROUP = 50  # images


def num_groups(count: int) -> int:
    """In how many groups so many images are dealt: a single one where they would be small."""
    return NUM_GROUPS if count >= NUM_GROUPS * _SMALLEST_GROUP else 1


def pseudo_values(value: float, without: Sequence[float]) -> list[float]:
    """A number of each group.

    Args:
        value: of all images. without: of all but one group, by the group that is left out.
    """
    left = np.array(without)
    spread: np.ndarray = -(len(left) - 1) * (left - left.mean())
    return (value + spread).tolist()


class GroupedMoments:
    """Moments of the features of images that come in a stream, by group: all but one group are a sum of the others.

    The images of each class are dealt in turn, so that groups differ in images and not in classes; which images are
    together depends on their classes and order alone.

    Args:
        width: D. device: where the sums are.
    """

    def __init__(self, width: int, device: torch.device | str = "cpu") -> None:
        self._width, self._device = width, device
        self._moments = [Moments(width, device) for _ in range(NUM_GROUPS)]
        self._labels: list[int] = []
        self._next: dict[int, int] = {}  # by class

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Takes in features `[B, D]` of images that were drawn for labels `[B]`."""
        group = self._deal(labels.tolist())
        for number, moments in enumerate(self._moments):
            rows = torch.from_numpy(group == number).to(features.device)
            moments.add(features[rows])

    def without(self, number: int) -> Moments:
        """Those of all groups but one."""
        rest = Moments(self._width, self._device)
        for other, moments in enumerate(self._moments):
            if other != number:
                rest.merge(moments)
        return rest

    def state(self) -> State:
        """Everything to go on from."""
        arrays: State = {"labels": np.array(self._labels, np.int64)}
        for number, moments in enumerate(self._moments):
            arrays |= under(str(number), moments.state())
        return arrays

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray], device: torch.device | str = "cpu") -> Self:
        """One that goes on from a state."""
        self = cls(len(state["0.mean"]), device)
        self._deal(state["labels"].tolist())
        self._moments = [Moments.from_state(part(state, str(number)), device) for number in range(NUM_GROUPS)]
        return self

    def _deal(self, labels: Sequence[int]) -> np.ndarray:
        """The group `[B]` of each image; classes begin with different groups."""
        groups = np.empty(len(labels), np.int64)
        for row, label in enumerate(labels):
            turn = self._next.setdefault(label, len(self._next))
            groups[row] = turn % NUM_GROUPS
            self._next[label] = turn + 1
        self._labels += labels
        return groups
