"""CLIP's image side: projected embeddings of images, and the same at length 1 as a feature space."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional

from adanat_rl.config.errors import UserError
from adanat_rl.config.json_files import read_json
from adanat_rl.generation.text.local import load_config, require_model_type, require_transformers
from adanat_rl.generation.weight_header import read_header
from adanat_rl.metrics.clip_pixels import CLIP_MEAN, CLIP_STD
from adanat_rl.metrics.encoders import ImageEncoder

_PROJECTION = "visual_projection.weight"


class ClipImageEncoder(ImageEncoder):
    """The vision tower of any CLIP of transformers, with its projection; features have length 1.

    Args:
        folder: of a whole CLIPModel or its vision tower with projection; mean and standard deviation come from its
            `preprocessor_config.json` if it has one.
        batch_size: images of one pass. device: where the network runs.

    Raises:
        UserError: transformers is missing, or the folder holds another network.
    """

    name = "CLIP"

    def __init__(self, folder: Path | str, *, batch_size: int = 32, device: torch.device | str = "cpu") -> None:
        place = Path(folder)
        transformers = require_transformers()
        require_model_type(place, "clip", "clip_vision_model")
        config = load_config(transformers.CLIPVisionConfig, place)
        if not isinstance(config.image_size, int):
            raise UserError(f"{place}/config.json: image_size is {config.image_size!r}, expected a number")
        mean, std = _normalisation(place / "preprocessor_config.json")
        super().__init__(
            place,
            config,
            config.image_size,
            mean,
            std,
            int(config.projection_dim),
            batch_size=batch_size,
            device=device,
        )

    def _network_class(self) -> Any:
        return require_transformers().CLIPVisionModelWithProjection

    def _embedding(self, output: Any) -> Tensor:
        return output.image_embeds

    def _features(self, embeddings: Tensor) -> Tensor:
        return functional.normalize(embeddings, dim=-1)


def clip_projection(folder: Path) -> str | None:
    """Hash of the projection of a CLIP's images, in half precision: it tells CLIPs apart, however they are stored. None
    where the folder holds none that can be read.
    """
    try:
        for path in sorted(folder.glob("*.safetensors")):
            if _PROJECTION in read_header(path).tensors:
                with safe_open(path, framework="pt") as file:
                    return hashlib.sha256(file.get_tensor(_PROJECTION).half().numpy()).hexdigest()
    except (UserError, SafetensorError, OSError):
        pass
    return None


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
