from __future__ import annotations

import pytest
import torch

from adanat_rl.evaluation.clip_judge import ClipJudge
from tests.fakes import CostJudge


def brightness_of_the_right_caption(images: torch.Tensor, captions: list[str]) -> torch.Tensor:
    """A score that tells which caption it was given for which image."""
    return images.mean(dim=(1, 2, 3)) + torch.tensor([float(len(caption)) for caption in captions])


def test_every_image_is_scored_with_its_caption_in_any_batches() -> None:
    judge = ClipJudge(CostJudge(), brightness_of_the_right_caption, ["", "a", "bb"])
    images = torch.rand(7, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, 0, 1, 1, 2, 0, 2])
    judgement = judge.begin(7)
    for rows in (slice(0, 3), slice(3, 7)):
        judgement.add(images[rows], labels[rows])
    result = judgement.result()
    assert result["clip_score"] == pytest.approx(float(images.mean() + labels.float().mean()))
    assert result["fd_a"] == pytest.approx(CostJudge().distance([images]))
    assert judge.names == CostJudge.names
    assert judge.distance([images]) == CostJudge().distance([images])
