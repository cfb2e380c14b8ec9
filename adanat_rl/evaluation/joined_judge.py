"""Values beside a judge's own: what a panel or CLIPScore finds in the images that the judge is given anyway."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
from torch import Tensor

from adanat_rl.evaluation.judge import Judge, Judgement, JudgeNames
from adanat_rl.evaluation.panel.contract import Value
from adanat_rl.metrics.accumulation import State, part, under


class Addition(Protocol):
    """What gives further values of a set of images."""

    @property
    def values(self) -> tuple[Value, ...]:
        """What it gives."""
        ...

    def begin(self) -> Judgement:
        """An empty set of images."""
        ...


class JoinedJudge:
    """A judge with an addition; one may be joined to another.

    Args:
        judge: gives names and distance. addition: gives further values. key: of its part of a state.
    """

    def __init__(self, judge: Judge, addition: Addition, key: str) -> None:
        self._judge, self._addition, self._key = judge, addition, key

    @property
    def names(self) -> JudgeNames:
        """Those of the judge."""
        return self._judge.names

    @property
    def values(self) -> tuple[Value, ...]:
        """Those of the judge, and those of the addition."""
        return (*self._judge.values, *self._addition.values)

    def begin(self, num_images: int) -> Judgement:
        """An empty set."""
        return _Joined(self._judge.begin(num_images), self._addition.begin(), self._key)

    def distance(self, batches: Iterable[Tensor]) -> float:
        """That of the judge."""
        return self._judge.distance(batches)


class _Joined:
    """Both judgements of a set; the order of a state's parts is no matter."""

    def __init__(self, judgement: Judgement, added: Judgement, key: str) -> None:
        self._judgement, self._added, self._key = judgement, added, key

    @property
    def count(self) -> int:
        return self._judgement.count

    def add(self, images: Tensor, labels: Tensor) -> None:
        self._judgement.add(images, labels)
        self._added.add(images, labels)

    def result(self) -> dict[str, float]:
        return {**self._judgement.result(), **self._added.result()}

    def replicates(self) -> dict[str, list[float]]:
        return {**self._judgement.replicates(), **self._added.replicates()}

    def state(self) -> State:
        return {**under("judge", self._judgement.state()), **under(self._key, self._added.state())}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._added.restore(part(state, self._key))  # first: it refuses what is of another evaluation
        self._judgement.restore(part(state, "judge"))
