"""What one reward actor holds: the frozen tokenizer, the reward model and the real images it compares with.

The same class runs in the driver when there are no actors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.generation.seeding import Purpose, philox
from adanat_rl.generation.threads import settle_process
from adanat_rl.rewards.base import (
    ImageSet,
    RewardBatch,
    RewardError,
    RewardModel,
    check_metrics,
    check_scores,
    check_state,
)
from adanat_rl.rewards.damage import DAMAGED_IMAGES, DamageReport, damage_state, take_damage
from adanat_rl.rewards.guard import told

_MOST_UPDATES = 1_000_000  # of a reward model in an iteration, or before the first

Decoder = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RewardParts:
    """What a worker is made of; a factory builds it where it lives.

    Args:
        name: of the reward, for messages. model: the reward model.
        decode: finished samples to images. real: real images and labels, None if the model needs none.
        device: where decoder and model expect their tensors. decode_rows: samples that are decoded at once.
        damage: the real images again, if they are files that may be damaged.
    """

    name: str
    model: RewardModel
    decode: Decoder
    real: ImageSet | None
    device: str = "cpu"
    decode_rows: int = 256
    damage: DamageReport | None = None

    @torch.no_grad()
    def images(self, samples: np.ndarray) -> Tensor:
        """Finished samples `[B, …]` in storage dtype as images."""
        finished = torch.tensor(samples.astype(np.int64) if samples.dtype.kind in "iu" else samples)
        return torch.cat([self.decode(part.to(self.device)) for part in finished.split(self.decode_rows)])


@dataclass(frozen=True)
class DecodedLater:
    """Finished samples as an `ImageSet`: those that are asked for are decoded."""

    parts: RewardParts
    samples: np.ndarray
    label_values: np.ndarray
    pass_counts: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def images(self) -> Tensor:
        """All images."""
        return self.parts.images(self.samples)

    @property
    def labels(self) -> Tensor:
        """All labels."""
        return torch.tensor(self.label_values, dtype=torch.int64, device=self.parts.device)

    @property
    def num_passes(self) -> Tensor | None:
        """NAT passes of all images, where they were counted."""
        if self.pass_counts is None:
            return None
        return torch.tensor(self.pass_counts, dtype=torch.int64, device=self.parts.device)

    def rows(self, index: Tensor) -> RewardBatch:
        """Some of them."""
        chosen = index.cpu().numpy()
        counts = None if self.pass_counts is None else self.pass_counts[chosen]
        return DecodedLater(self.parts, self.samples[chosen], self.label_values[chosen], counts).batch()

    def batch(self) -> RewardBatch:
        """All of them; without pixels for a model that looks at none."""
        images = self.images if self.parts.model.sees_images else torch.zeros(len(self), 0, 0, 0)
        return RewardBatch(images.to(self.parts.device), self.labels, self.num_passes)

    def batches(self, rows: Sequence[Tensor]) -> Iterator[RewardBatch]:
        """Several in turn."""
        return map(self.rows, rows)


@dataclass(frozen=True)
class Scores:
    """Scores of one shard: `[B]` float32, further numbers `[B]` by name, and the version that gave them."""

    scores: np.ndarray
    info: dict[str, np.ndarray]
    version: int


class RewardWorker:
    """Scores and trains; every method is a pure function of its arguments and the loaded state.

    Args:
        factory: builds the parts. torch_threads: threads of torch in this process; None leaves them as they are.
    """

    def __init__(self, factory: Callable[[], RewardParts], torch_threads: int | None = None) -> None:
        if torch_threads is not None:
            torch.set_num_threads(torch_threads)
        settle_process()
        self._parts = factory()
        self._version = 0

    @property
    def name(self) -> str:
        """Of the reward."""
        return self._parts.name

    def settings(self) -> dict[str, int]:
        """How often the model wants to be updated.

        Raises:
            UserError: a number of updates is no whole number from 0 up.
        """
        found = {}
        for name in ("num_updates", "num_warmup_updates"):
            value: object = getattr(self._parts.model, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST_UPDATES:
                raise UserError(
                    f"reward.kind: {self._parts.name}: {name} is {value!r}, expected a whole number from 0 to "
                    f"{_MOST_UPDATES:,}"
                )
            found[name] = value
        return found

    def score(
        self, version: int, samples: np.ndarray, labels: np.ndarray, num_passes: np.ndarray | None = None
    ) -> Scores:
        """Scores of finished samples by the given version of the model.

        Raises:
            RewardError: another version is loaded, or the model gave something that is no score.
        """
        self._expect(version)
        batch = DecodedLater(self._parts, samples, labels, num_passes).batch()
        with told(self._parts.name):
            output = self._parts.model.score(batch)
        scores, info = check_scores(self._parts.name, output, len(batch))
        return Scores(scores, info, version)

    def update(
        self,
        version: int,
        samples: np.ndarray,
        labels: np.ndarray,
        key: tuple[int, ...],
        num_updates: int,
        num_passes: np.ndarray | None = None,
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Trains the given version into the next one; returns metrics and the new state.

        Args:
            key: integers that seed everything the update draws.

        Raises:
            RewardError: another version is loaded, or the update failed.
            RunError: more real images are damaged than the settings accept; trying again is of no use.
        """
        self._expect(version)
        generator = philox(Purpose.REWARD_UPDATE, *key)
        generated = DecodedLater(self._parts, samples, labels, num_passes)
        real = self._parts.real
        if real is None:
            real = DecodedLater(self._parts, samples[:0], labels[:0])
        with told(self._parts.name, "failed to update"):
            metrics = self._parts.model.update(generated, real, generator, num_updates)
        metrics = check_metrics(self._parts.name, metrics)
        if self._parts.damage is not None and self._parts.damage.damaged:
            metrics[DAMAGED_IMAGES] = float(len(self._parts.damage.damaged))
        self._version = version + 1
        return metrics, self.state()

    def state(self) -> dict[str, Tensor]:
        """The model's state, tensors on the CPU, and the damaged real images.

        Raises:
            RewardError: the model gave no flat dict of tensors.
        """
        with told(self._parts.name, "failed to give its state"):
            given = self._parts.model.state_dict()
        state = check_state(self._parts.name, given)
        return {**state, **damage_state(self._parts.damage)}

    def load_state(self, state: Mapping[str, Tensor], version: int) -> None:
        """Takes over a state and its version.

        Raises:
            RewardError: the model does not take it.
        """
        own = take_damage(state, self._parts.damage)
        with told(self._parts.name, "failed to take over a state"):
            self._parts.model.load_state_dict(own)
        self._version = version

    def process_id(self) -> int:
        """Id of the operating-system process, for tests that break things."""
        return os.getpid()

    def _expect(self, version: int) -> None:
        if version != self._version:
            raise RewardError(f"reward {self._parts.name} has version {self._version} loaded, expected {version}")
