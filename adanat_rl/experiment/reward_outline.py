"""The reward model of a configuration without its weights: what it is made of, and the calls that a run makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.experiment.measuring import num_parameters
from adanat_rl.experiment.outline import META, Outline, network_of, on_meta
from adanat_rl.generation.text.table import MANIFEST, table_info
from adanat_rl.rewards.adversarial import PatchLogits
from adanat_rl.rewards.adversarial_losses import image_losses
from adanat_rl.rewards.base import RewardBatch
from adanat_rl.rewards.discriminator import PatchDiscriminator

if TYPE_CHECKING:
    from adanat_rl.rewards.projected.logits import ProjectedLogits

_PROMPT_LENGTH = 35  # ImageReward fills prompts up to so many tokens
_IN_MEMORY = {"digits", "mnist"}  # whose real images are encoded once


@dataclass(frozen=True)
class RewardOutline:
    """A reward model on the meta device.

    Args:
        name: for tables. trained, frozen: networks with and without gradients.
        score: scores so many images. update: one gradient step, None for a model that is not trained.
        score_rows: images of a call of `score`. num_updates: in each iteration. num_warmup_updates: before the first.
        decoded_per_update, reconstructed_per_update: images that an update decodes, and encodes and decodes.
    """

    name: str
    trained: nn.Module | None
    frozen: nn.Module | None
    score: Callable[[int], object]
    update: Callable[[], None] | None
    score_rows: int
    num_updates: int = 0
    num_warmup_updates: int = 0
    decoded_per_update: int = 0
    reconstructed_per_update: int = 0

    @property
    def num_parameters(self) -> int:
        """Of both parts."""
        return sum(num_parameters(part) for part in (self.trained, self.frozen) if part is not None)

    @property
    def num_trained_parameters(self) -> int:
        """Of the part with gradients."""
        return 0 if self.trained is None else num_parameters(self.trained)


def reward_outline(config: ExperimentConfig, outline: Outline) -> RewardOutline | None:
    """The reward model; None for one of the user's own, of which nothing is known.

    Raises:
        UserError: a weight file is damaged, or a package is missing.
    """
    if config.reward.kind == "adversarial":
        return _adversarial(config, outline)
    if config.reward.kind == "image_reward":
        return _image_reward(config)
    return None


def _adversarial(config: ExperimentConfig, outline: Outline) -> RewardOutline:
    settings = config.reward.adversarial
    source: PatchLogits | ProjectedLogits
    frozen: nn.Module | None = None
    if settings.discriminator == "projected":
        source, frozen = _projected(config, outline)
    else:
        source = _patch(config, outline)

    def batch(rows: int) -> RewardBatch:
        images = torch.empty(rows, *outline.image_shape, device=META)
        return RewardBatch(images, torch.empty(rows, dtype=torch.long, device=META))

    def update() -> None:
        """Gradients of each micro-batch, or of the whole step at once."""
        whole: list[Tensor] = []
        for real in (True, False):
            for run in source.passes(batch(settings.batch_size), 0):
                loss = image_losses(run(), real, settings.loss).mean()
                if settings.micro_batch_size is None:
                    whole.append(loss)
                else:
                    loss.backward()
        if whole:
            torch.stack(whole).sum().backward()

    tokens, streamed = config.data.tokens is not None, config.data.name not in _IN_MEMORY
    reconstructed = streamed and not tokens and config.reward.reconstruct_real
    return RewardOutline(
        name="discriminator",
        trained=source.network,
        frozen=frozen,
        score=lambda rows: source.mean_logits(batch(rows)),
        update=update,
        score_rows=config.training.shard_size,
        num_updates=settings.num_updates,
        num_warmup_updates=settings.num_warmup_updates,
        decoded_per_update=settings.batch_size * (2 if tokens else 1),
        reconstructed_per_update=settings.batch_size if reconstructed else 0,
    )


def _patch(config: ExperimentConfig, outline: Outline) -> PatchLogits:
    settings = config.reward.adversarial
    network = on_meta(
        PatchDiscriminator,
        outline.num_contexts or 1,
        settings.channels,
        settings.first_stride,
        outline.image_shape[0],
        frozen=False,
    )
    return PatchLogits(network, settings.micro_batch_size)


def _projected(config: ExperimentConfig, outline: Outline) -> tuple[ProjectedLogits, nn.Module]:
    """Heads and DINO; an image costs the same in both ways of scoring."""
    from adanat_rl.rewards.projected.dino import DINO_KIND, DinoFeatures  # an extra
    from adanat_rl.rewards.projected.discriminator import ProjectedDiscriminator
    from adanat_rl.rewards.projected.logits import ProjectedLogits

    settings = config.reward.adversarial
    eyes, _ = network_of(settings.features or "", "reward.adversarial.features", {DINO_KIND: DinoFeatures})
    text_width = _pooled_width(config, outline)
    network = on_meta(
        ProjectedDiscriminator,
        text_width or settings.condition_width,
        None if text_width else outline.num_contexts,
        eyes.width,
        eyes.num_features,
        frozen=False,
    )

    def condition(labels: Tensor) -> Tensor:
        return torch.empty(len(labels), text_width or 0, device=META)

    source = ProjectedLogits(
        eyes,
        network,
        micro_batch_size=settings.micro_batch_size,
        block_rows=settings.batch_size,
        condition=condition if text_width else None,
    )
    return source, eyes


def _pooled_width(config: ExperimentConfig, outline: Outline) -> int | None:
    """Width of a caption's pooled embedding: the table's, or that of the hidden states; None for class labels."""
    if outline.text_shape is None:
        return None
    folder = Path(config.generator.captions or "").expanduser()
    if config.generator.captions is not None and (folder / MANIFEST).is_file():
        return table_info(folder).pooled_width
    return outline.text_shape[1]


def _image_reward(config: ExperimentConfig) -> RewardOutline:
    from adanat_rl.rewards.image_reward_network import ImageRewardNetwork  # an extra

    network = on_meta(ImageRewardNetwork)

    def score(rows: int) -> Tensor:
        pixels = torch.empty(rows, 3, network.image_size, network.image_size, device=META)
        scores: Tensor = network(pixels, torch.ones(rows, _PROMPT_LENGTH, dtype=torch.long, device=META))
        return scores

    rows = config.reward.image_reward.block_rows
    return RewardOutline("ImageReward", None, network, score, None, score_rows=rows)
