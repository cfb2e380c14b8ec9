"""The Fréchet distance as a reward, shared out to the images of a batch (paper, section 3: a reward that fails).

It compares sets, so no image has a distance of its own. Either all images of a group get the distance of the group, or
each gets what the distance would rise by without it. The extractor whose features are compared is no independent judge
of such a run any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.config.paths import resolve_path
from adanat_rl.config.reward_settings import FrechetRewardConfig
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.data.dataset import RealImages
from adanat_rl.data.loading import load_images
from adanat_rl.generation.blocks import run_in_blocks
from adanat_rl.generation.weights import share_network
from adanat_rl.metrics.accumulation import Moments
from adanat_rl.metrics.features import ConvClassifier
from adanat_rl.metrics.inception import InceptionExtractor, InceptionV3, network_hash
from adanat_rl.metrics.influence import FrechetInfluence, RunningMoments
from adanat_rl.metrics.reference_set import Extractor
from adanat_rl.metrics.statistics import FeatureStatistics, check_comparable, load_statistics
from adanat_rl.rewards.base import ImageSet, RewardBatch, RewardModel, RewardOutput
from adanat_rl.rewards.classifier import BLOCK_ROWS, CONV_CLASSIFIER_KIND, check_classifier

_KEY = "reward.fid.weights"
_MIN_GROUP = 4
_MEAN, _COVARIANCE = "running.mean", "running.covariance"


class FrechetReward(RewardModel):
    """Minus the Fréchet distance of a group to the real images, or the influence of each image on it.

    Args:
        config: how the distance is shared, size of the groups, weight of running moments.
        extractor: on `device`. real: statistics of the real images in its features.

    Raises:
        UserError: statistics and extractor do not fit together.
    """

    set_valued: ClassVar[bool] = True

    def __init__(
        self,
        config: FrechetRewardConfig,
        extractor: Extractor,
        real: FeatureStatistics,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_updates = 1 if config.running_decay > 0 else 0
        self._config = config
        self._extractor = extractor
        self._hash = extractor.content_hash()
        self._device = torch.device(device)
        nothing = torch.zeros(extractor.num_features, dtype=torch.float64)
        check_comparable(
            real, FeatureStatistics(nothing, torch.diag(nothing), extractor.convention, extractor_hash=self._hash)
        )
        self._frechet = FrechetInfluence(real)
        self._running: RunningMoments | None = None

    @torch.no_grad()
    def score(self, batch: RewardBatch) -> RewardOutput:
        """Scores of consecutive groups; `fid_group_distance` is the distance of an image's group.

        Raises:
            UserError: the batch is smaller than a group, or not made of whole groups.
        """
        if not len(batch):
            return RewardOutput(torch.zeros(0))
        groups = self._features(batch.images).split(self._group_size(len(batch)))
        distances = torch.cat(
            [torch.full((len(group),), self._frechet.distance_of(group, self._running)) for group in groups]
        )
        if self._config.credit == "group":
            return RewardOutput(-distances)
        influence = torch.cat([self._frechet.influence(group, self._running) for group in groups])
        return RewardOutput(influence.float(), {"fid_group_distance": distances})

    def update(
        self, generated: ImageSet, real: ImageSet, generator: np.random.Generator, num_updates: int
    ) -> dict[str, float]:
        """Folds the images of this iteration into the running moments: once, however many updates are asked for.

        Returns:
            `batch_distance` of these images and `running_distance` of the running moments.
        """
        moments = Moments(self._extractor.num_features)
        for rows in generated.batches(torch.arange(len(generated)).split(BLOCK_ROWS)):
            moments.add(self._features(rows.images))
        batch = self._statistics(moments)
        whole = batch if self._running is None else self._running.blended(batch)
        self._running = RunningMoments(whole, self._config.running_decay)
        return {
            "batch_distance": self._frechet.distance(batch),
            "running_distance": self._frechet.distance(whole),
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Running mean `[D]` and covariance `[D, D]`, float64; empty before the first update."""
        if self._running is None:
            return {}
        statistics = self._running.statistics
        return {
            _MEAN: statistics.mean.clone(),
            _COVARIANCE: statistics.covariance.clone(),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes both over."""
        if not state:
            self._running = None
            return
        mean, covariance = state[_MEAN].cpu().double(), state[_COVARIANCE].cpu().double()
        statistics = FeatureStatistics(
            mean.clone(), covariance.clone(), self._extractor.convention, extractor_hash=self._hash
        )
        check_comparable(self._frechet.reference, statistics)
        self._running = RunningMoments(statistics, self._config.running_decay)

    @torch.no_grad()
    def _features(self, images: Tensor) -> Tensor:
        (features,) = run_in_blocks(lambda block: (self._extractor(block),), BLOCK_ROWS, images.to(self._device))
        return features.cpu()

    def _statistics(self, moments: Moments) -> FeatureStatistics:
        return moments.statistics(self._extractor.convention, self._hash)

    def _group_size(self, batch_size: int) -> int:
        size = self._config.group_size or batch_size
        if size < _MIN_GROUP or batch_size % size:
            needed = f"{_MIN_GROUP} or more" if self._config.group_size is None else f"whole groups of {size}"
            raise UserError(f"reward.fid.group_size: {batch_size} images came in a batch; {needed} are needed")
        return size


class ClassifierExtractor:
    """A classifier of a small data set as an `Extractor`.

    Args:
        network: frozen.
    """

    name = "a classifier"
    convention = ""

    def __init__(self, network: ConvClassifier) -> None:
        self._network = network
        self.num_features = network.num_features

    def __call__(self, images: Tensor) -> Tensor:
        """Features `[B, D]`."""
        features: Tensor = self._network(images)
        return features

    def content_hash(self) -> str:
        """Hash of the weights."""
        return network_hash(self._network)


def from_config(config: ExperimentConfig, device: str) -> RewardModel:
    """The reward of a configuration.

    The file of `reward.fid.weights` says itself whether it is a classifier or Inception. A classifier's reference are
    the real images of the data set; Inception's is `data.statistics`.

    Raises:
        UserError: weights or statistics are missing or of other images.
    """
    path = resolve_path(config.reward.fid.weights or _default_weights(config), _KEY)
    network = share_network(path, {CONV_CLASSIFIER_KIND: ConvClassifier, "inception": InceptionV3}, device)
    if isinstance(network, ConvClassifier):
        data = load_images(config.data)
        check_classifier(network, path, data, _KEY)
        extractor: Extractor = ClassifierExtractor(network)
        return FrechetReward(config.reward.fid, extractor, real_statistics(extractor, data, device), device)
    assert isinstance(network, InceptionV3)
    if config.data.path is None:
        raise UserError(
            f"{_KEY}: {path} is Inception, which takes images in colour; those of {config.data.name} are grey"
        )
    if config.data.statistics is None:
        raise UserError(
            "data.statistics: null is not accepted: reward.kind=fid with Inception needs those of the real images; "
            "make them: adanat-rl prepare --statistics"
        )
    resize = config.evaluation.resize
    statistics = load_statistics(resolve_path(config.data.statistics, "data.statistics"), resize)
    return FrechetReward(config.reward.fid, InceptionExtractor(network, resize), statistics, device)


def _default_weights(config: ExperimentConfig) -> str:
    if config.data.path is None:
        return f"asset:{config.data.name}/judge_a.safetensors"
    if config.evaluation.inception is None:
        raise UserError(
            f"{_KEY}: null is not accepted with data.name={config.data.name} and without evaluation.inception; "
            "give Inception-v3 of `import-checkpoint`"
        )
    return config.evaluation.inception


@torch.no_grad()
def real_statistics(extractor: Extractor, data: RealImages, device: torch.device | str) -> FeatureStatistics:
    """Moments of all real images of a data set, as they are: not through the tokenizer and back."""
    moments = Moments(extractor.num_features)
    for rows in np.array_split(np.arange(len(data)), range(256, len(data), 256)):
        moments.add(extractor(data.images_at(rows).to(device)))
    return moments.statistics(extractor.convention, extractor.content_hash())
