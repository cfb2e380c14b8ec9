"""CLIPScore: how well images fit their captions, 100 times the cosine of CLIP's two embeddings (Hessel et al., 2021).

The factor is that of torchmetrics, whose own metric asks a server for its weights; ours come from a local folder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from adanat_rl.config.errors import UserError
from adanat_rl.config.json_files import read_json
from adanat_rl.generation.blocks import run_in_blocks
from adanat_rl.generation.text.encoder import ClipTextEncoder
from adanat_rl.generation.text.local import load_config, require_transformers, shared_model
from adanat_rl.metrics.checks import checked_finite
from adanat_rl.metrics.clip_pixels import CLIP_MEAN, CLIP_STD, clip_pixels


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
        config = load_config(require_transformers().CLIPConfig, self.folder)
        self._image_size = int(config.vision_config.image_size)
        self._mean, self._std = _normalisation(self.folder / "preprocessor_config.json")
        self._batch_size = batch_size
        self._device = torch.device(device)
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

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """Projected image embeddings `[B, P]` float32, not normalised."""
        (embeddings,) = run_in_blocks(self._embed_block, self._batch_size, images.to(self._device))
        return embeddings

    def _embed_block(self, images: Tensor) -> tuple[Tensor, ...]:
        pixels = clip_pixels(images, self._image_size, self._mean, self._std)
        return (self._network(pixel_values=pixels).image_embeds,)

    @cached_property
    def _network(self) -> nn.Module:
        return shared_model(require_transformers().CLIPVisionModelWithProjection, self.folder, self._device)


def clip_score(scores: Tensor) -> float:
    """The CLIPScore of a set: the mean over pairs `[B]`, not below 0.

    Raises:
        UserError: there is no pair. NonFiniteError: NaN or infinite scores.
    """
    if not scores.numel():
        raise UserError("CLIPScore: no image has come yet")
    checked_finite(scores, "CLIP's scores of images and captions")
    return max(float(scores.double().mean()), 0.0)


def _normalisation(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if not path.is_file():
        return CLIP_MEAN, CLIP_STD
    settings = read_json(path)
    try:
        mean, std = (
            tuple(map(float, settings.get(name, default)))
            for name, default in (("image_mean", CLIP_MEAN), ("image_std", CLIP_STD))
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not len(mean) == len(std) == 3:
        raise UserError(f"{path}: image_mean and image_std have {len(mean)} and {len(std)} numbers, expected 3")
    if not all(map(math.isfinite, mean + std)) or min(std) <= 0:
        raise UserError(f"{path}: image_mean is {mean} and image_std {std}, expected finite numbers, std above 0")
    return mean, std
