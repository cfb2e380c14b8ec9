"""What weight files say of their networks without being read whole, and what is expected of those that are missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adanat_rl.config.catalogue import published_file
from adanat_rl.config.errors import UserError
from adanat_rl.config.json_files import read_json
from adanat_rl.config.paths import ASSET_PREFIX, resolve_path
from adanat_rl.generation import weight_header
from adanat_rl.generation.build import amused_folder
from adanat_rl.generation.weight_header import WeightHeader

Source = Literal["its file", "expected"]


@dataclass(frozen=True)
class Header:
    """Which class a network is of, and what its constructor takes."""

    kind: str
    arguments: Mapping[str, Any]


def read_header(name: str, key: str) -> WeightHeader | None:
    """What the header of a weight file says; None if there is no such file.

    Raises:
        UserError: it is damaged, of an unknown format, or an asset that does not exist.
    """
    if not name.startswith(ASSET_PREFIX) and not Path(name).expanduser().is_file():
        return None
    path = resolve_path(name, key)
    return weight_header.read_header(path)


def expected_network(name: str) -> Header | None:
    """What the catalogue expects of a file by the end of its path; None if it knows none of that name."""
    entry = published_file(name)
    return None if entry is None or entry.kind is None else Header(entry.kind, entry.arguments)


# Settings of the published aMUSEd networks; what is not here is the default of diffusers' classes.
_AMUSED_VQVAE = {
    "block_out_channels": (128, 256, 256, 512, 768),
    "down_block_types": ("DownEncoderBlock2D",) * 5,
    "up_block_types": ("UpDecoderBlock2D",) * 5,
    "latent_channels": 64,
    "layers_per_block": 2,
    "num_vq_embeddings": 8192,
    "mid_block_add_attention": False,
    "lookup_from_codebook": True,
}


def amused_settings(
    weights: str, part: Literal["transformer", "vqvae"], image_size: int
) -> tuple[dict[str, Any], Source]:
    """What diffusers' class of a part takes: its `config.json`, or the published settings for a size of images.

    Raises:
        UserError: the file is damaged.
    """
    path = amused_folder(Path(weights).expanduser()) / part / "config.json"
    if path.is_file():
        settings = read_json(path)
        if not isinstance(settings, dict):
            raise UserError(f"{path} holds no settings")
        return {name: value for name, value in settings.items() if not name.startswith("_")}, "its file"
    if part == "vqvae":
        return dict(_AMUSED_VQVAE), "expected"
    grid_size = image_size // 16
    is_large = grid_size > 16  # its transformer layers run on a grid of half the side
    return {"sample_size": grid_size, "downsample": is_large, "upsample": is_large}, "expected"
