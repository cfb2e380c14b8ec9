"""The confidence of a classifier as a reward: the embedded stand-in for a pre-trained reward model.

Classifier C of a small data set is trained on its real images, apart from judges A and B, and judges nothing. Like
every fixed reward model it can be pleased by what pleases nobody else: a few clear-cut shapes score best, and variety
counts for nothing.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from adanat_rl.config.errors import UserError
from adanat_rl.config.paths import resolve_path
from adanat_rl.config.reward_settings import ClassifierRewardConfig
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.data.dataset import RealImages
from adanat_rl.data.loading import load_images
from adanat_rl.generation.blocks import run_in_blocks
from adanat_rl.generation.weights import share_network
from adanat_rl.metrics.features import ConvClassifier
from adanat_rl.rewards.base import Requirement, RewardBatch, RewardModel, RewardOutput

CONV_CLASSIFIER_KIND = "conv_classifier"
BLOCK_ROWS = 64  # images of one pass; shorter batches are filled up


class ClassifierReward(RewardModel):
    """How sure a classifier is that an image shows the class it was drawn for.

    Args:
        config: what of its confidence is the score. network: on `device`, frozen.
    """

    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.LABELS})

    def __init__(self, config: ClassifierRewardConfig, network: ConvClassifier, device: torch.device | str = "cpu"):
        self._logarithm = config.score == "log_probability"
        self._network = network
        self._device = torch.device(device)

    @torch.no_grad()
    def score(self, batch: RewardBatch) -> RewardOutput:
        """Softmax probability of the class, or its logarithm; `classifier_right` is 1 where no class is likelier."""
        if not len(batch):
            return RewardOutput(torch.zeros(0))
        (logits,) = run_in_blocks(self._logits, BLOCK_ROWS, batch.images.to(self._device))
        labels = batch.labels.to(self._device)
        scores = functional.log_softmax(logits.double(), dim=1).gather(1, labels[:, None])[:, 0]
        right = (logits.argmax(dim=1) == labels).float()
        return RewardOutput((scores if self._logarithm else scores.exp()).float(), {"classifier_right": right})

    def _logits(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self._network.logits(images),)


def from_config(config: ExperimentConfig, device: str) -> RewardModel:
    """The reward of a configuration.

    Raises:
        UserError: contexts are no classes, or the classifier is missing or one of other images.
    """
    if config.generator.captions is not None or config.data.name == "captions":
        raise UserError(
            "reward.kind: classifier is not accepted with captions: it needs class labels; use clip_score or "
            "image_reward"
        )
    settings, key = config.reward.classifier, "reward.classifier.weights"
    path = resolve_path(settings.weights or _shipped(config, key), key)
    network = share_network(path, {CONV_CLASSIFIER_KIND: ConvClassifier}, device)
    assert isinstance(network, ConvClassifier)
    data = load_images(config.data)
    check_classifier(network, path, data, key)
    if network.head.out_features != data.num_classes:
        raise UserError(
            f"{key}: {path} knows {network.head.out_features} classes, data {data.name} has {data.num_classes}"
        )
    return ClassifierReward(settings, network, device)


def _shipped(config: ExperimentConfig, key: str) -> str:
    if config.data.path is not None:
        raise UserError(
            f"{key}: null is not accepted with data.name={config.data.name}: none ships for it; give a file"
        )
    return f"asset:{config.data.name}/classifier_c.safetensors"


def check_classifier(network: nn.Module, path: Path, data: RealImages, key: str) -> None:
    """Refuses a classifier of images of another shape.

    Args:
        path: of its weights, key: the setting that names them, for the message.

    Raises:
        UserError: naming both shapes.
    """
    assert isinstance(network, ConvClassifier)
    taken = classifier_shape(network)
    if data.image_shape != taken:
        ours, theirs = ("×".join(map(str, shape)) for shape in (data.image_shape, taken))
        raise UserError(f"{key}: {path} takes images of {theirs}, those of data {data.name} are {ours}")


def classifier_shape(network: ConvClassifier) -> tuple[int, int, int]:
    """C, H, W of the images that a classifier takes, by the size of its weights."""
    side = 4 * math.isqrt(network.fc.in_features // network.conv3.out_channels)
    return network.conv1.in_channels, side, side
