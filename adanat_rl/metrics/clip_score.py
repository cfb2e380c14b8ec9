"""CLIPScore: how well images fit their captions, 100 times the cosine of CLIP's two embeddings (Hessel et al., 2021).

The factor is that of torchmetrics, whose own metric asks a server for its weights; ours come from a local folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from adanat_rl.config.errors import UserError
from adanat_rl.generation.text.encoder import ClipTextEncoder
from adanat_rl.metrics.checks import checked_finite
from adanat_rl.metrics.clip_images import ClipImageEncoder


class ClipScorer:
    """Scores images against captions by a CLIP of transformers; weights are read when first used.

    Args:
        folder: of a whole CLIPModel with its tokenizer; mean and standard deviation come from its
            `preprocessor_config.json` if it has one.
        batch_size: images of one pass; shorter batches are filled up, so that a score does not depend on batch mates.
        device: where CLIP runs.

    Raises:
        UserError: transformers is missing, or the folder holds no CLIPModel.
    """

    def __init__(self, folder: Path | str, *, batch_size: int = 32, device: torch.device | str = "cpu") -> None:
        self.folder = Path(folder)
        self._images = ClipImageEncoder(folder, batch_size=batch_size, device=device)
        self._text = ClipTextEncoder(self.folder, pad_token_id=None, batch_size=batch_size, device=device)

    def __call__(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """100 cos per pair.

        Args:
            images: `[B, 3, H, W]` in [0, 1]. captions: B of them.

        Returns:
            Float32 `[B]` in [-100, 100], on the CPU.

        Raises:
            NonFiniteError: CLIP gave NaN or infinite numbers.
        """
        if len(images) != len(captions):
            raise ValueError(f"{len(images)} images and {len(captions)} captions")
        if not len(images):
            return torch.zeros(0)
        seen = functional.normalize(self.embed_images(images), dim=-1)
        read = functional.normalize(self._text(captions).pooled, dim=-1)
        return checked_finite(100 * (seen * read).sum(dim=-1).cpu(), "CLIP's scores of images and captions")

    def embed_images(self, images: Tensor) -> Tensor:
        """Projected image embeddings `[B, P]` float32, not normalised."""
        return self._images.embed(images)


def clip_score(scores: Tensor) -> float:
    """The CLIPScore of a set: the mean over pairs `[B]`, not below 0.

    Raises:
        UserError: there is no pair. NonFiniteError: NaN or infinite scores.
    """
    if not scores.numel():
        raise UserError("CLIPScore: no image has come yet")
    checked_finite(scores, "CLIP's scores of images and captions")
    return max(float(scores.double().mean()), 0.0)
