"""The projected discriminator at work: DINO, heads, conditions, crops and micro-batches behind one small interface."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from adanat_rl.config.errors import UserError
from adanat_rl.config.paths import resolve_path
from adanat_rl.config.reward_settings import AdversarialConfig
from adanat_rl.generation.blocks import run_in_blocks
from adanat_rl.generation.seeding import Purpose, seeded
from adanat_rl.generation.weights import load_network
from adanat_rl.rewards.base import RewardBatch
from adanat_rl.rewards.projected.dino import DinoFeatures, Window, dino_pixels, draw_window, load_dino
from adanat_rl.rewards.projected.discriminator import DISCRIMINATOR_KIND, ProjectedDiscriminator
from adanat_rl.rewards.projected.head import Groups, local_groups, packed_groups

Condition = Callable[[Tensor], Tensor]


class ProjectedLogits:
    """Logits of images for training and scoring.

    Args:
        eyes: the frozen feature network. network: the heads that are trained. Both are on one device.
        scoring: independent: the score of an image is a function of the image alone (see `head`), and it is never
            cropped. official: groups of batch mates, and a coin per batch that decides on a crop. The coin is thrown
            by the images themselves, so that the same batch has the same scores.
        micro_batch_size: images that pass through the networks at once, at least 8; None: a whole batch.
        block_rows: images of a scoring block where `micro_batch_size` is None.
        condition: labels `[B]` → embeddings `[B, K]`, brought to length 1 here; None: the labels are classes.
    """

    def __init__(
        self,
        eyes: DinoFeatures,
        network: ProjectedDiscriminator,
        *,
        scoring: str = "independent",
        micro_batch_size: int | None = None,
        block_rows: int = 8,
        condition: Condition | None = None,
    ) -> None:
        self.network = network
        self._eyes = eyes.eval().requires_grad_(False)
        self._scoring = scoring
        self._micro_batch_size = micro_batch_size
        self._block_rows = micro_batch_size or block_rows
        self._condition = condition

    def draw(self, generator: np.random.Generator) -> int:
        """The seed of a batch's crop."""
        return int(generator.integers(2**63))

    def passes(self, batch: RewardBatch, seed: int) -> list[Callable[[], Tensor]]:
        """The forward passes of a training batch, in order; each gives the logits `[M, P]` of some images.

        All of them see the crop of the batch, and no group of the batch norm is cut.
        """
        draws = torch.Generator().manual_seed(seed)
        return self._grouped(batch, self._draw_window(batch, draws))

    def mean_logits(self, batch: RewardBatch) -> Tensor:
        """Mean logit of each image for its score, `[B]`."""
        if self._scoring == "official":
            draws = torch.Generator().manual_seed(_digest(batch))
            return torch.cat([run().mean(dim=1) for run in self._grouped(batch, self._draw_window(batch, draws))])

        def block(images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
            return (self._logits(RewardBatch(images, labels), None, None).mean(dim=1),)

        return run_in_blocks(block, self._block_rows, batch.images, batch.labels)[0]

    def after_update(self, generated: RewardBatch) -> None:
        """Takes the average batch mates from generated images."""
        if self._scoring == "independent":
            self.network.set_mates(
                (self._features(part.images, None), self._embedded(part.labels), groups)
                for part, groups in self._parts(generated)
            )

    def _grouped(self, batch: RewardBatch, window: Window | None) -> list[Callable[[], Tensor]]:
        return [partial(self._logits, part, window, groups) for part, groups in self._parts(batch)]

    def _parts(self, batch: RewardBatch) -> list[tuple[RewardBatch, list[int]]]:
        parts, start = [], 0
        for groups in packed_groups(local_groups(len(batch)), self._micro_batch_size):
            rows = slice(start, start + sum(groups))
            parts.append((RewardBatch(batch.images[rows], batch.labels[rows]), groups))
            start = rows.stop
        return parts

    def _logits(self, batch: RewardBatch, window: Window | None, groups: Groups) -> Tensor:
        logits: Tensor = self.network(self._features(batch.images, window), self._embedded(batch.labels), groups)
        return logits

    @torch.no_grad()
    def _features(self, images: Tensor, window: Window | None) -> list[Tensor]:
        pixels = dino_pixels(images, self._eyes.image_size, window)
        return [feature.float() for feature in self._eyes(pixels)]

    def _embedded(self, labels: Tensor) -> Tensor:
        if self._condition is None:
            return labels
        return functional.normalize(self._condition(labels).float(), dim=1)

    def _draw_window(self, batch: RewardBatch, draws: torch.Generator) -> Window | None:
        height, width = batch.images.shape[-2:]
        return draw_window(draws, height, width, self._eyes.image_size)


def build_projected(
    config: AdversarialConfig, num_classes: int, seed: int, device: str, condition: Condition | None
) -> ProjectedLogits:
    """The projected discriminator of a configuration: DINO from its file, heads from theirs or from the seed.

    Raises:
        UserError: a file is missing or does not fit.
    """
    eyes = load_dino(resolve_path(cast(str, config.features), "reward.adversarial.features"), device)
    if condition is None:
        classes, width = num_classes, config.condition_width
    else:
        classes, width = None, condition(torch.zeros(1, dtype=torch.int64, device=device)).shape[1]
    arguments: dict[str, Any] = {
        "condition_width": width,
        "num_classes": classes,
        "channels": eyes.width,
        "num_features": eyes.num_features,
    }
    if config.weights is None:
        with seeded(Purpose.DISCRIMINATOR_WEIGHTS, seed):
            network = ProjectedDiscriminator(**arguments)
    else:
        network = _load_heads(resolve_path(config.weights, "reward.adversarial.weights"), arguments)
    return ProjectedLogits(
        eyes,
        network.eval().to(device),
        scoring=config.scoring,
        micro_batch_size=config.micro_batch_size,
        block_rows=config.batch_size,
        condition=condition,
    )


def _load_heads(path: Path, wanted: dict[str, Any]) -> ProjectedDiscriminator:
    classes: dict[str, type[nn.Module]] = {DISCRIMINATOR_KIND: ProjectedDiscriminator}
    network = cast(ProjectedDiscriminator, load_network(path, classes))
    found = {name: getattr(network, name) for name in wanted}
    other = [f"{name} {found[name]}, needed is {value}" for name, value in wanted.items() if found[name] != value]
    if other:
        raise UserError(f"reward.adversarial.weights: {path} has {'; '.join(other)}")
    return network


def _digest(batch: RewardBatch) -> int:
    """32 bits that a batch alone decides."""
    sums = batch.images.double().sum(dim=(1, 2, 3)).cpu().numpy()
    return zlib.crc32(batch.labels.cpu().numpy().tobytes(), zlib.crc32(sums.tobytes()))
