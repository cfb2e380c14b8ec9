"""CLIPScore beside another judge's numbers: how well images fit the captions they were drawn for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.evaluation.jackknife import num_groups, pseudo_values
from adanat_rl.evaluation.joined_judge import JoinedJudge
from adanat_rl.evaluation.judge import CLIP_SCORE, Judge
from adanat_rl.evaluation.panel.contract import Value
from adanat_rl.metrics.accumulation import State
from adanat_rl.metrics.clip_score import clip_score

MARGIN_OF_SCORE = 0.01  # as a part of the score compared with

PairScorer = Callable[[Tensor, Sequence[str]], Tensor]
"""`(images [B, 3, H, W], B captions) -> [B]`."""


class ClipJudge(JoinedJudge):
    """Adds CLIPScore to a judge's numbers.

    Args:
        judge: gives the rest. score: of pairs. captions: row of the caption table → caption.
    """

    def __init__(self, judge: Judge, score: PairScorer, captions: Sequence[str]) -> None:
        super().__init__(judge, _CaptionScore(score, captions), CLIP_SCORE)


class _CaptionScore:
    values = (Value(CLIP_SCORE, "CLIPScore", False, MARGIN_OF_SCORE, is_relative=True),)

    def __init__(self, score: PairScorer, captions: Sequence[str]) -> None:
        self._score, self._captions = score, captions

    def begin(self) -> _Scored:
        """An empty set."""
        return _Scored(self._score, self._captions)


class _Scored:
    """Scores of the images so far."""

    def __init__(self, score: PairScorer, captions: Sequence[str]) -> None:
        self._score, self._captions = score, captions
        self._scores: list[Tensor] = []

    @property
    def count(self) -> int:
        return sum(map(len, self._scores))

    def add(self, images: Tensor, labels: Tensor) -> None:
        self._scores.append(self._score(images, [self._captions[row] for row in labels.tolist()]).cpu())

    def result(self) -> dict[str, float]:
        return {CLIP_SCORE: clip_score(torch.cat(self._scores))}

    def replicates(self) -> dict[str, list[float]]:
        """Of groups that each image in turn is dealt to: the scores of all but one group."""
        scores = torch.cat(self._scores)
        count = num_groups(len(scores))
        if count == 1:
            return {key: [value] for key, value in self.result().items()}
        group = torch.arange(len(scores)) % count
        without = [clip_score(scores[group != number]) for number in range(count)]
        return {CLIP_SCORE: pseudo_values(clip_score(scores), without)}

    def state(self) -> State:
        return {"scores": torch.cat(self._scores).numpy()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        if set(state) != {"scores"}:
            raise UserError("images so far were judged without CLIPScore")
        self._scores = [torch.from_numpy(state["scores"])]
