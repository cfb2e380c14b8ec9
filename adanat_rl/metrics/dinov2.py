"""DINOv2's features of images, in which Stein et al. ("Exposing flaws of generative model evaluation metrics and their
unfair treatment of diffusion models", NeurIPS 2023) find that distances agree with people better than in Inception's.

As in their code: the image is resized to 224 × 224 by Pillow's bicubic filter, with ImageNet's mean and standard
deviation; the feature is the class token of the last layer behind the final norm. The network is transformers'.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.config.json_files import read_json
from adanat_rl.generation.text.local import load_config, require_model_type, require_transformers
from adanat_rl.metrics.clip_pixels import IMAGENET_MEAN, IMAGENET_STD
from adanat_rl.metrics.encoders import ImageEncoder

IMAGE_SIZE = 224
_MOST_LAYERS = 1000


class Dinov2Encoder(ImageEncoder):
    """DINOv2 of any size, such as ViT-L/14 (D = 1024) of the paper.

    Args:
        folder: of a `Dinov2Model`. batch_size: images of one pass. device: where the network runs.

    Raises:
        UserError: transformers is missing, or the folder holds another network.
    """

    name = "DINOv2"

    def __init__(self, folder: Path | str, *, batch_size: int = 32, device: torch.device | str = "cpu") -> None:
        place = Path(folder)
        transformers = require_transformers("evaluation.dinov2")
        require_model_type(place, "dinov2")
        _check_depth(place / "config.json")
        config = load_config(transformers.Dinov2Config, place)
        super().__init__(
            place,
            config,
            IMAGE_SIZE,
            IMAGENET_MEAN,
            IMAGENET_STD,
            int(config.hidden_size),
            batch_size=batch_size,
            device=device,
        )

    def _network_class(self) -> Any:
        return require_transformers().Dinov2Model

    def _embedding(self, output: Any) -> Tensor:
        return output.last_hidden_state[:, 0]


def _check_depth(path: Path) -> None:
    """The library names every layer as soon as it reads the configuration, so their number is looked at before."""
    depth = read_json(path).get("num_hidden_layers", 12)
    if not isinstance(depth, int) or not 1 <= depth <= _MOST_LAYERS:
        raise UserError(f"{path}: num_hidden_layers is {depth!r}; accepted: 1 to {_MOST_LAYERS}")
