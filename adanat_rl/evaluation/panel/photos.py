"""Judges of photos over networks that the user has: DINOv2 and CLIP, beside Inception and unlike it.

Real photos are too many to be kept: `prepare --statistics` writes their statistics and the features of some of them, in
a file of each network beside that of Inception.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.config.paths import ASSET_PREFIX, resolve_path
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.evaluation.panel.contract import PanelJudge
from adanat_rl.evaluation.panel.judges import CMMD, FrechetJudge, KernelJudge, ManifoldJudge
from adanat_rl.metrics.clip_images import ClipImageEncoder
from adanat_rl.metrics.dinov2 import Dinov2Encoder
from adanat_rl.metrics.encoders import ImageEncoder
from adanat_rl.metrics.statistics import FeatureStatistics, load_statistics, sister_file

CMMD_KEY = "cmmd_clip"

_OF_DINOV2 = (
    "which class or caption an image was drawn for; slight blur and changed colours, which its training overlooks"
)
_OF_MANIFOLDS = "what an image was drawn for; recall and coverage: how often each kind of image is drawn"
_OF_CMMD = (
    "what an image was drawn for; lost diversity around the same mean: its wide kernel sees little but the distance "
    "between the mean embeddings"
)
_FEWEST_FOR_MANIFOLDS, _FEWEST_FOR_KERNELS = 6, 4  # features of real images


@dataclass(frozen=True)
class PhotoNetwork:
    """A network of the panel.

    Args:
        name: of its setting, and of its file of statistics. load: the network of a folder, on a device.
        judges: over its space, with the real images' statistics.
    """

    name: str
    load: Callable[[Path, str], ImageEncoder]
    judges: Callable[[ImageEncoder, FeatureStatistics], list[PanelJudge]]

    @property
    def setting(self) -> str:
        """Dotted key of its folder."""
        return f"evaluation.{self.name}"

    def folder(self, config: ExperimentConfig) -> str | None:
        """What the setting has."""
        found: str | None = getattr(config.evaluation, self.name)
        return found

    def outline(self, config: ExperimentConfig) -> ImageEncoder | None:
        """The network of a configuration before its weights are read; None if it has none, or the folder is not there.

        Raises:
            UserError: transformers is missing, or the folder holds another network.
        """
        folder = self.folder(config)
        if folder is None:
            return None
        place = Path(folder).expanduser()
        is_there = (place / "config.json").exists() and any(place.glob("*.safetensors"))
        return self.load(place, "cpu") if is_there else None

    def load_whole(self, config: ExperimentConfig, device: str) -> ImageEncoder:
        """The network of a configuration that has one, its weights read: what is wrong with them is told at once.

        Raises:
            UserError: transformers is missing, or the folder is, is damaged, or holds another network.
        """
        folder = self.folder(config)
        if folder is None:
            raise UserError(f"{self.setting}: null is not accepted: the folder of a network is needed")
        encoder = self.load(Path(folder).expanduser(), device)
        encoder.content_hash()
        return encoder


def _dinov2_judges(space: ImageEncoder, real: FeatureStatistics) -> list[PanelJudge]:
    judges: list[PanelJudge] = [FrechetJudge(space, real, "DINOv2", _OF_DINOV2)]
    if real.features is not None and len(real.features) >= _FEWEST_FOR_MANIFOLDS:
        judges.append(ManifoldJudge(space, real.features, "DINOv2", _OF_MANIFOLDS))
    return judges


def _clip_judges(space: ImageEncoder, real: FeatureStatistics) -> list[PanelJudge]:
    if real.features is None or len(real.features) < _FEWEST_FOR_KERNELS:
        return []
    lost = one_half(real.features)
    return [KernelJudge(space, real.features, "CLIP", _OF_CMMD, lost, CMMD)]


PHOTO_NETWORKS = (
    PhotoNetwork("dinov2", lambda folder, device: Dinov2Encoder(folder, device=device), _dinov2_judges),
    PhotoNetwork("clip", lambda folder, device: ClipImageEncoder(folder, device=device), _clip_judges),
)


def photo_statistics(config: ExperimentConfig) -> list[tuple[str, Path]]:
    """The files of statistics that a configuration's networks compare with, by the network's name; there or not."""
    statistics = config.data.statistics
    if statistics is None or config.evaluation.judge != "inception":
        return []
    place = Path(statistics).expanduser()
    if statistics.startswith(ASSET_PREFIX):
        place = resolve_path(statistics, "data.statistics")
    return [(one.name, sister_file(place, one.name)) for one in PHOTO_NETWORKS if one.folder(config) is not None]


def refuse_photo_networks(config: ExperimentConfig) -> None:
    """For a judge of small images.

    Raises:
        UserError: the configuration names a network for photos.
    """
    for network in PHOTO_NETWORKS:
        if network.folder(config) is not None:
            raise UserError(
                f"{network.setting}: {network.folder(config)} is not accepted with evaluation.judge="
                f"{config.evaluation.judge}, whose panel is for small images; use evaluation.judge=inception"
            )


def photo_judges(config: ExperimentConfig, device: str = "cpu") -> list[PanelJudge]:
    """Judges over each network that a configuration names.

    Raises:
        UserError: weights or statistics are missing, damaged, or do not belong together.
    """
    found: list[PanelJudge] = []
    networks = {network.name: network for network in PHOTO_NETWORKS}
    for name, file in photo_statistics(config):
        network = networks[name]
        space = network.load_whole(config, device)
        judges = network.judges(space, load_features(file, space, network.setting))
        if not judges:
            raise UserError(
                f"{file} holds features of fewer than {_FEWEST_FOR_KERNELS} images; {network.setting} compares with "
                "more: adanat-rl prepare --statistics --keep-features N"
            )
        found += judges
    return found


def load_features(file: Path, space: ImageEncoder, setting: str) -> FeatureStatistics:
    """Statistics of the real images in a space.

    Raises:
        UserError: the file is missing, damaged, or of another network.
    """
    statistics = load_statistics(file)
    ours, theirs = space.content_hash()[:12], statistics.extractor_hash[:12] or "unknown weights"
    if ours != theirs:
        raise UserError(
            f"{file} was made with another network than {setting} names: {theirs}, not {ours}; name that one, or make "
            "the statistics anew: adanat-rl prepare --statistics"
        )
    return statistics


def one_half(features: Tensor) -> Tensor:
    """A known defect, made of features `[M, D]` alone: the half of them that lies on one side along their first
    principal component.
    """
    centred = features.double() - features.double().mean(dim=0)
    place = centred @ torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
    return features[place.argsort()[len(place) // 2 :]]
