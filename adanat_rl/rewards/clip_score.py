"""CLIPScore as a reward: how well an image fits the caption it was drawn for, in the eyes of a CLIP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.generation.build import load_captions
from adanat_rl.metrics.clip_score import ClipScorer
from adanat_rl.rewards.base import Requirement, RewardBatch, RewardModel, RewardOutput


class ClipScoreReward(RewardModel):
    """100 times the cosine of image and caption, one pair at a time; not cut off at 0, as that of a set is.

    Args:
        score: `(images [B, C, H, W], B captions) -> [B]`, such as a `ClipScorer`.
        captions: row number → caption; a table's captions, or a function.
    """

    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.CAPTIONS})

    def __init__(
        self,
        score: Callable[[Tensor, Sequence[str]], Tensor],
        captions: Sequence[str] | Callable[[int], str],
    ) -> None:
        self._score = score
        self._caption = captions if callable(captions) else captions.__getitem__

    @torch.no_grad()
    def score(self, batch: RewardBatch) -> RewardOutput:
        """Scores `[B]` in [-100, 100]."""
        return RewardOutput(self._score(batch.images, [self._caption(row) for row in batch.labels.tolist()]))


def from_config(config: ExperimentConfig, device: str) -> RewardModel:
    """The reward of a configuration.

    Raises:
        UserError: no CLIP is there, transformers is missing, or there are no captions.
    """
    settings = config.reward.clip_score
    scorer = ClipScorer(Path(str(settings.encoder)).expanduser(), batch_size=settings.block_rows, device=device)
    return ClipScoreReward(scorer, load_captions(config.generator).captions)
