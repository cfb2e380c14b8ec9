"""The adversarial reward: how real a discriminator that is trained along with the policy finds an image (paper,
section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from adanat_rl.config.reward_settings import AdversarialConfig
from adanat_rl.generation.optimizers import restore_training, training_tensors
from adanat_rl.generation.precision import autocast, matmul_precision
from adanat_rl.generation.seeding import Purpose, seeded
from adanat_rl.rewards.adversarial_losses import accuracy, image_losses
from adanat_rl.rewards.base import ImageSet, Requirement, RewardBatch, RewardModel, RewardOutput
from adanat_rl.rewards.discriminator import PatchDiscriminator


class Discriminator(Protocol):
    """What gives the logits. In training mode of `network` a pass renews its spectral norms."""

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        ...

    def draw(self, generator: np.random.Generator) -> int:
        """Draws the seed of what is random in the passes of a batch; a network without chance draws nothing."""
        ...

    def passes(self, batch: RewardBatch, seed: int) -> list[Callable[[], Tensor]]:
        """The forward passes of a training batch, in order; each gives the logits `[M, P]` of some images."""
        ...

    def mean_logits(self, batch: RewardBatch) -> Tensor:
        """Mean logit of each image for its score, `[B]`."""
        ...

    def after_update(self, generated: RewardBatch) -> None:
        """Called once after the gradient steps of an update with the generated images of the last one."""
        ...


class PatchLogits:
    """The discriminator of small images."""

    def __init__(self, network: PatchDiscriminator, micro_batch_size: int | None) -> None:
        self.network = network
        self._micro_batch_size = micro_batch_size

    def draw(self, generator: np.random.Generator) -> int:
        """Nothing is random."""
        return 0

    def passes(self, batch: RewardBatch, seed: int) -> list[Callable[[], Tensor]]:
        """One for each micro-batch."""
        size = self._micro_batch_size or max(1, len(batch))
        parts = zip(batch.images.split(size), batch.labels.split(size), strict=True)
        return [lambda part=part: self.network(*part) for part in parts]  # type: ignore[misc]

    def mean_logits(self, batch: RewardBatch) -> Tensor:
        """Mean patch logit."""
        size = self._micro_batch_size or max(1, len(batch))
        parts = zip(batch.images.split(size), batch.labels.split(size), strict=True)
        return torch.cat([self.network(*part).mean(dim=1) for part in parts])

    def after_update(self, generated: RewardBatch) -> None:
        """Nothing to do."""


@dataclass(frozen=True)
class _Plan:
    """What a gradient step draws, known before the first one, so that real images can be read ahead."""

    generated: Tensor
    real: Tensor
    real_seed: int
    generated_seed: int


class AdversarialReward(RewardModel):
    """`sigmoid(mean of all logits)` of a discriminator that is trained on real and generated images.

    Args:
        config: sizes, rates, and which discriminator.
        num_classes: number of labels.
        seed: of the discriminator's first weights. device: where it lives.
        condition: what the labels `[B]` stand for, embeddings `[B, K]` of captions (projected discriminator alone);
            None: they are classes.
        image_channels: of the images, 1 or 3; the projected discriminator takes both.

    Raises:
        UserError: weights of the projected discriminator are missing or do not fit.
    """

    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.LABELS, Requirement.REAL_IMAGES})

    def __init__(
        self,
        config: AdversarialConfig,
        num_classes: int,
        seed: int,
        device: str = "cpu",
        condition: Callable[[Tensor], Tensor] | None = None,
        image_channels: int = 1,
    ) -> None:
        self._config = config
        self.num_warmup_updates = config.num_warmup_updates
        self.num_updates = config.num_updates
        self._source = _build(config, num_classes, seed, device, condition, image_channels)
        self.discriminator = self._source.network
        self._device = torch.device(device)
        self._optimizer = torch.optim.Adam(self.discriminator.parameters(), config.lr, betas=config.adam_betas)

    @torch.no_grad()
    def score(self, batch: RewardBatch) -> RewardOutput:
        """How real each image looks, in (0, 1)."""
        with self._arithmetic():
            logits = self._source.mean_logits(batch)
        return RewardOutput(torch.sigmoid(logits.float()))

    def update(
        self, generated: ImageSet, real: ImageSet, generator: np.random.Generator, num_updates: int
    ) -> dict[str, float]:
        """Gradient steps on minibatches drawn with replacement; metrics are means over the steps.

        `loss` is the mean of the losses of real and of generated images; the gradient is that of their sum.
        """
        plans = [self._plan(len(generated), len(real), generator) for _ in range(num_updates)]
        steps: list[dict[str, Tensor]] = []
        fake: RewardBatch | None = None
        try:
            for plan, shown in zip(plans, real.batches([plan.real for plan in plans]), strict=True):
                fake = generated.rows(plan.generated)
                steps.append(self._step(fake, shown, plan))
        finally:
            self.discriminator.eval()
        if fake is not None:
            self._source.after_update(fake)
        names = steps[0] if steps else ("loss", "real_score", "generated_score")
        return {name: sum(step[name].item() for step in steps) / max(1, len(steps)) for name in names}

    def _plan(self, num_generated: int, num_real: int, generator: np.random.Generator) -> _Plan:
        size = self._config.batch_size
        return _Plan(
            generated=torch.from_numpy(generator.integers(0, num_generated, size)),
            real=torch.from_numpy(generator.integers(0, num_real, size)),
            real_seed=self._source.draw(generator),
            generated_seed=self._source.draw(generator),
        )

    def _step(self, generated: RewardBatch, real: RewardBatch, plan: _Plan) -> dict[str, Tensor]:
        self._optimizer.zero_grad()
        real_loss, real_logits = self._half(real, True, plan.real_seed)
        fake_loss, fake_logits = self._half(generated, False, plan.generated_seed)
        if self._config.micro_batch_size is None:
            (real_loss + fake_loss).backward()
        self._optimizer.step()
        metrics = {
            "loss": (real_loss + fake_loss).detach() / 2,
            "real_score": torch.sigmoid(real_logits.mean(dim=1)).mean(),
            "generated_score": torch.sigmoid(fake_logits.mean(dim=1)).mean(),
        }
        if self._config.discriminator == "projected":
            metrics["accuracy"] = accuracy(real_logits, fake_logits)
            metrics["real_logit"] = real_logits.mean()
            metrics["generated_logit"] = fake_logits.mean()
        return metrics

    def _half(self, batch: RewardBatch, real: bool, seed: int) -> tuple[Tensor, Tensor]:
        """Loss and logits of the real or the generated images; with micro-batches the gradients are already added up.

        The first pass renews the spectral norms, and all passes use them.
        """
        losses, logits = [], []
        for number, run in enumerate(self._source.passes(batch, seed)):
            self.discriminator.train(number == 0)
            with self._arithmetic():
                part = run().float()
            loss = image_losses(part, real, self._config.loss, self._config.real_target, reduction="mean")
            loss = loss * (len(part) / len(batch))
            if self._config.micro_batch_size is not None:
                loss.backward()
                loss = loss.detach()
            losses.append(loss)
            logits.append(part.detach())
        return torch.stack(losses).sum() if len(losses) > 1 else losses[0], torch.cat(logits)

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        precision = self._config.precision
        with matmul_precision(precision), autocast(precision, self._device.type):
            yield

    def state_dict(self) -> dict[str, Tensor]:
        """Discriminator and optimizer."""
        return training_tensors("discriminator", self.discriminator, self._optimizer)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes both over."""
        restore_training("discriminator", self.discriminator, self._optimizer, state)


def _build(
    config: AdversarialConfig,
    num_classes: int,
    seed: int,
    device: str,
    condition: Callable[[Tensor], Tensor] | None,
    image_channels: int,
) -> Discriminator:
    if config.discriminator == "projected":
        from adanat_rl.rewards.projected.logits import build_projected  # an extra

        return build_projected(config, num_classes, seed, device, condition)
    with seeded(Purpose.DISCRIMINATOR_WEIGHTS, seed):
        network = PatchDiscriminator(num_classes, config.channels, config.first_stride, image_channels).eval()
    return PatchLogits(network.to(device), config.micro_batch_size)
