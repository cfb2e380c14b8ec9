"""CLIPScore beside another judge's numbers: how well images fit the captions they were drawn for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from adanat_rl.evaluation.judge import CLIP_SCORE, Judge, Judgement, JudgeNames
from adanat_rl.evaluation.panel.contract import Value
from adanat_rl.metrics.accumulation import State, part, under
from adanat_rl.metrics.clip_score import clip_score

MARGIN_OF_SCORE = 0.01  # as a part of the score compared with

PairScorer = Callable[[Tensor, Sequence[str]], Tensor]
"""`(images [B, 3, H, W], B captions) -> [B]`."""


class ClipJudge:
    """Adds CLIPScore to a judge's numbers.

    Args:
        judge: gives the rest. score: of pairs. captions: row of the caption table → caption.
    """

    def __init__(self, judge: Judge, score: PairScorer, captions: Sequence[str]) -> None:
        self._judge = judge
        self._score = score
        self._captions = captions

    @property
    def names(self) -> JudgeNames:
        """Those of the judge."""
        return self._judge.names

    @property
    def values(self) -> tuple[Value, ...]:
        """Those of the judge, and CLIPScore."""
        return (*self._judge.values, Value(CLIP_SCORE, "CLIPScore", False, MARGIN_OF_SCORE, is_relative=True))

    def begin(self, num_images: int) -> Judgement:
        """An empty set."""
        return _Scored(self._judge.begin(num_images), self._score, self._captions)

    def distance(self, batches: Iterable[Tensor]) -> float:
        """That of the judge."""
        return self._judge.distance(batches)


class _Scored:
    def __init__(self, judgement: Judgement, score: PairScorer, captions: Sequence[str]) -> None:
        self._judgement = judgement
        self._score = score
        self._captions = captions
        self._scores: list[Tensor] = []

    @property
    def count(self) -> int:
        return self._judgement.count

    def add(self, images: Tensor, labels: Tensor) -> None:
        self._judgement.add(images, labels)
        self._scores.append(self._score(images, [self._captions[row] for row in labels.tolist()]).cpu())

    def result(self) -> dict[str, float]:
        return {**self._judgement.result(), CLIP_SCORE: clip_score(torch.cat(self._scores))}

    def replicates(self) -> dict[str, list[float]]:
        return self._judgement.replicates()

    def state(self) -> State:
        return {"scores": torch.cat(self._scores).numpy(), **under("judge", self._judgement.state())}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._judgement.restore(part(state, "judge"))
        self._scores = [torch.from_numpy(state["scores"])]
