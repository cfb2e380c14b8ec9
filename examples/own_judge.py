"""A judge of one's own: does the mean ink of the images fit the real ones?

adanat-rl check-judge own_judge:InkJudge          # which rules it keeps, and which planted defects it sees
adanat-rl evaluate evaluation.judges=[own_judge:InkJudge]
"""

from __future__ import annotations

from torch import Tensor

from adanat_rl.evaluation.panel.contract import Value
from adanat_rl.evaluation.panel.own import JudgeData


class MeanInk:
    """What is kept of an image: its mean grey."""

    name = "ink"

    def __call__(self, images: Tensor) -> Tensor:
        """`[B, 1]` of images `[B, C, H, W]` in [0, 1]."""
        return images.mean(dim=(1, 2, 3))[:, None]


class InkJudge:
    """How far the mean ink is from that of the test images."""

    name = "ink"
    kind = "mean grey"
    blind_to = "everything but the amount of ink"
    values = (Value("ink_gap", "ink gap", minimises=True, margin=0.002),)
    set_size = None  # any number of images at once

    def __init__(self, data: JudgeData) -> None:
        self.space = MeanInk()
        self.expected = float(data.test.images.mean())

    def __call__(self, features: Tensor, context: Tensor) -> dict[str, float]:
        """From features `[N, 1]` of images that were drawn for classes `[N]`."""
        return {"ink_gap": abs(float(features.mean()) - self.expected)}
