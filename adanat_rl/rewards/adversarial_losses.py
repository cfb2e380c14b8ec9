"""What a discriminator is trained on: losses of its logits, as pure functions.

Layout: logits `[B, P]`, one per patch (of every head), positive where an image looks real; losses `[B]`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Loss = Literal["cross_entropy", "logistic", "hinge"]


def image_losses(
    logits: Tensor, real: bool, loss: Loss, real_target: float = 1.0, *, reduction: Literal["none", "mean"] = "none"
) -> Tensor:
    """The loss of each image, or their mean `[]`.

    Args:
        logits: `[B, P]` of images that are all real, or all generated.
        loss: cross_entropy of the mean logit; logistic (`softplus`) or hinge of every logit, the official ones.
        real_target: label of real images, for cross_entropy alone (one-sided smoothing).
    """
    if loss == "cross_entropy":
        mean = logits.mean(dim=1)
        target = torch.full_like(mean, real_target) if real else torch.zeros_like(mean)
        return functional.binary_cross_entropy_with_logits(mean, target, reduction=reduction)
    signed = logits if real else -logits
    losses = functional.softplus(-signed) if loss == "logistic" else functional.relu(1 - signed)
    return losses.mean() if reduction == "mean" else losses.mean(dim=1)


def accuracy(real_logits: Tensor, generated_logits: Tensor) -> Tensor:
    """The part of all logits that is on the right side of 0, `[]`; real and generated count the same."""
    return ((real_logits > 0).float().mean() + (generated_logits < 0).float().mean()) / 2
