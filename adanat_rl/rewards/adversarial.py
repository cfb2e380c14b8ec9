"""The adversarial reward: how real a discriminator that is trained along with the policy finds an image (paper,
section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from adanat_rl.config.schema import AdversarialConfig
from adanat_rl.generation.seeding import Purpose, seeded
from adanat_rl.rewards.base import ImageSet, Requirement, RewardBatch, RewardModel, RewardOutput
from adanat_rl.rewards.discriminator import PatchDiscriminator


class AdversarialReward(RewardModel):
    """`sigmoid(mean of the patch logits)`; binary cross-entropy with smoothed real labels.

    Args:
        config: sizes and rates.
        num_classes: number of labels.
        seed: of the discriminator's first weights. device: where it lives.
    """

    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.LABELS, Requirement.REAL_IMAGES})

    def __init__(self, config: AdversarialConfig, num_classes: int, seed: int, device: str = "cpu") -> None:
        self._config = config
        self.num_warmup_updates = config.num_warmup_updates
        self.num_updates = config.num_updates
        with seeded(Purpose.DISCRIMINATOR_WEIGHTS, seed):
            self.discriminator = PatchDiscriminator(num_classes, config.channels, config.first_stride).eval()
        self.discriminator.to(device)
        self._optimizer = torch.optim.Adam(self.discriminator.parameters(), config.lr, betas=config.adam_betas)

    @torch.no_grad()
    def score(self, batch: RewardBatch) -> RewardOutput:
        """How real each image looks, in (0, 1)."""
        return RewardOutput(torch.sigmoid(self.discriminator(batch.images, batch.labels).mean(dim=1)))

    def update(
        self, generated: ImageSet, real: ImageSet, generator: np.random.Generator, num_updates: int
    ) -> dict[str, float]:
        """Gradient steps on minibatches drawn with replacement; metrics are means over the steps."""
        size = self._config.batch_size
        totals = np.zeros(3)
        self.discriminator.train()
        try:
            for _ in range(num_updates):
                fake_rows = torch.from_numpy(generator.integers(0, len(generated), size))
                real_rows = torch.from_numpy(generator.integers(0, len(real), size))
                totals += self._step(generated.rows(fake_rows), real.rows(real_rows))
        finally:
            self.discriminator.eval()
        loss, real_score, fake_score = totals / max(1, num_updates)
        return {"loss": loss, "real_score": real_score, "generated_score": fake_score}

    def _step(self, generated: RewardBatch, real: RewardBatch) -> np.ndarray:
        real_logit = self.discriminator(real.images, real.labels).mean(dim=1)
        fake_logit = self.discriminator(generated.images, generated.labels).mean(dim=1)
        real_loss = functional.binary_cross_entropy_with_logits(
            real_logit, torch.full_like(real_logit, self._config.real_target)
        )
        fake_loss = functional.binary_cross_entropy_with_logits(fake_logit, torch.zeros_like(fake_logit))
        self._optimizer.zero_grad()
        (real_loss + fake_loss).backward()
        self._optimizer.step()
        values = ((real_loss + fake_loss) / 2, torch.sigmoid(real_logit).mean(), torch.sigmoid(fake_logit).mean())
        return np.array([value.item() for value in values])

    def state_dict(self) -> dict[str, Tensor]:
        """Discriminator and optimizer."""
        state = {f"discriminator.{name}": value.clone() for name, value in self.discriminator.state_dict().items()}
        names = [name for name, _ in self.discriminator.named_parameters()]
        for index, slots in self._optimizer.state_dict()["state"].items():
            for slot, value in slots.items():
                state[f"optimizer.{slot}.{names[index]}"] = value.clone()
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes both over."""
        self.discriminator.load_state_dict(_part(state, "discriminator."))
        names = [name for name, _ in self.discriminator.named_parameters()]
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in _part(state, "optimizer.").items():
            slot, _, name = key.partition(".")
            slots.setdefault(names.index(name), {})[slot] = value.clone()
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": slots})


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
