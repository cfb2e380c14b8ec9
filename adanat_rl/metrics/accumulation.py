"""Sets of images that come in batches: moments, kept features and a hash, each of them resumable.

Every accumulator gives its state as arrays and goes on from such a state to the same bits. What is kept of a set
depends on the images' indices, never on their order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.metrics.checks import checked_rows
from adanat_rl.metrics.resize import to_bytes
from adanat_rl.metrics.statistics import FeatureStatistics

State = dict[str, np.ndarray]

_CHUNK = 512  # rows whose moments are taken at once
_SHUFFLE_SEED = 2020  # of the Inception score's usual implementation; the official one has it too


def ranks(num_images: int) -> np.ndarray:
    """The place `[N]` int64 of each image in the fixed shuffle by which splits and subsets are made."""
    shuffle = np.random.RandomState(_SHUFFLE_SEED).permutation(num_images)
    place = np.empty(num_images, np.int64)
    place[shuffle] = np.arange(num_images)
    return place


class Moments:
    """Mean and covariance of features in float64, joined from chunks around their own means (Chan et al., 1979).

    Chunks have a fixed number of rows, whatever the batches are, so equal features in equal order give equal bits.

    Args:
        width: D. device: where the sums are; a GPU with fast float64 or the CPU.
        name: what the rows are, for messages.
    """

    def __init__(self, width: int, device: torch.device | str = "cpu", name: str = "features") -> None:
        self._name = name
        self._joined = 0
        self._mean = torch.zeros(width, dtype=torch.float64, device=device)
        self._scatter = torch.zeros(width, width, dtype=torch.float64, device=device)
        self._waiting = torch.zeros(0, width, dtype=torch.float64, device=device)

    @property
    def count(self) -> int:
        """Number of rows so far."""
        return self._joined + len(self._waiting)

    def add(self, features: Tensor) -> None:
        """Takes in features `[B, D]`; on an error nothing of them counts.

        Raises:
            UserError: another width. NonFiniteError: NaN or infinite numbers.
        """
        checked = checked_rows(features, self._name, width=len(self._mean))
        rows = torch.cat([self._waiting, checked.to(self._waiting)])
        while len(rows) >= _CHUNK:
            self._join(*_moments(rows[:_CHUNK]))
            rows = rows[_CHUNK:]
        self._waiting = rows.clone()

    def merge(self, other: Moments) -> None:
        """Takes in what another one gathered; it is left as it is.

        Raises:
            UserError: its rows have another width.
        """
        if len(other._mean) != len(self._mean):
            raise UserError(f"{self._name} of {len(other._mean)} numbers do not join those of {len(self._mean)}")
        for part in (self, other):
            if len(part._waiting):
                self._join(*_moments(part._waiting.to(self._mean)))
        self._waiting = self._waiting[:0]
        if other._joined:
            self._join(other._joined, other._mean.to(self._mean), other._scatter.to(self._mean))

    def statistics(
        self, convention: str, extractor_hash: str = "", data_hash: str = "", features: Tensor | None = None
    ) -> FeatureStatistics:
        """Mean and covariance of all rows so far, on the CPU.

        Raises:
            UserError: there are fewer than 2.
        """
        if self.count < 2:
            raise UserError(
                f"a Fréchet distance needs 2 images or more on either side; {self._name} are of {self.count}"
            )
        whole = Moments(len(self._mean), self._mean.device)
        whole.merge(self)
        covariance = whole._scatter.cpu() / (self.count - 1)
        return FeatureStatistics(
            whole._mean.cpu(),
            (covariance + covariance.T) / 2,
            convention,
            self.count,
            extractor_hash,
            data_hash,
            features,
        )

    def state(self) -> State:
        """Everything to go on from."""
        return {
            "joined": np.array(self._joined),
            "mean": self._mean.cpu().numpy(),
            "scatter": self._scatter.cpu().numpy(),
            "waiting": self._waiting.cpu().numpy(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray], device: torch.device | str = "cpu") -> Self:
        """One that goes on from a state."""
        self = cls(len(state["mean"]), device)
        self._joined = int(state["joined"])
        self._mean, self._scatter, self._waiting = (
            torch.tensor(state[name], device=device) for name in ("mean", "scatter", "waiting")
        )
        return self

    def _join(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total = self._joined + count
        shift = mean - self._mean
        self._scatter += scatter
        self._scatter.addr_(shift, shift, alpha=self._joined * count / total)
        self._mean += shift * (count / total)
        self._joined = total


def _moments(rows: Tensor) -> tuple[int, Tensor, Tensor]:
    mean = rows.mean(dim=0)
    centred = rows - mean
    return len(rows), mean, centred.T @ centred


class FeatureSet:
    """Features of the images 0…N-1, in any order: their moments, and the features of those that the shuffle puts first.

    Args:
        num_images: N. width: D. num_kept: how many images' features are kept, all if N is smaller.
        device: where the moments are.
    """

    def __init__(self, num_images: int, width: int, num_kept: int = 0, device: torch.device | str = "cpu") -> None:
        self.num_images = num_images
        self.moments = Moments(width, device)
        self.seen = np.zeros(num_images, bool)
        self._ranks = ranks(num_images)
        self._kept = torch.zeros(min(num_kept, num_images), width)

    def claim(self, count: int, index: np.ndarray | None = None) -> np.ndarray:
        """Which images `[B]` a batch of B is: `index`, or the first ones that are still missing.

        Raises:
            ValueError: too many, out of range, twice, or there already.
        """
        taken = self.missing()[:count] if index is None else np.asarray(index, np.int64)
        if len(taken) != count or (count and not 0 <= taken.min() <= taken.max() < self.num_images):
            raise ValueError(f"{count} images for the places {taken.tolist()} of {self.num_images}")
        if len(np.unique(taken)) < count or self.seen[taken].any():
            raise ValueError("an image came twice")
        return taken

    def add(self, features: Tensor, index: np.ndarray) -> None:
        """Takes in features `[B, D]` of the images `index` `[B]`, which `claim` gave."""
        self.moments.add(features)
        place = self._ranks[index]
        chosen = place < len(self._kept)
        self._kept[torch.from_numpy(place[chosen])] = features.detach().float().cpu()[torch.from_numpy(chosen)]
        self.seen[index] = True

    def missing(self) -> np.ndarray:
        """Indices `[K]` int64 of the images that are still to come, rising."""
        return np.flatnonzero(~self.seen)

    def kept(self) -> Tensor:
        """The kept features `[M, D]` float32 in the order of the shuffle."""
        place = np.sort(self._ranks[self.seen])
        return self._kept[torch.from_numpy(place[place < len(self._kept)])]

    def state(self) -> State:
        """Everything to go on from."""
        return {"seen": self.seen, "kept": self._kept.numpy(), **under("moments", self.moments.state())}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray], device: torch.device | str = "cpu") -> Self:
        """One that goes on from a state."""
        self = cls(len(state["seen"]), state["kept"].shape[1], len(state["kept"]), device)
        self.seen, self._kept = np.array(state["seen"]), torch.tensor(state["kept"])
        self.moments = Moments.from_state(part(state, "moments"), device)
        return self


def under(prefix: str, state: Mapping[str, np.ndarray]) -> State:
    """A state as a part of a larger one."""
    return {f"{prefix}.{name}": value for name, value in state.items()}


def part(state: Mapping[str, np.ndarray], prefix: str) -> State:
    """The part of a larger state that `under` put there."""
    return {name[len(prefix) + 1 :]: value for name, value in state.items() if name.startswith(f"{prefix}.")}


class ImageSetHash:
    """A hash of a set of images that does not depend on their order: the sum of one SHA-256 per 8-bit image."""

    def __init__(self, total: int = 0) -> None:
        self._total = total

    def add(self, images: Tensor) -> None:
        """Takes in images `[B, C, H, W]`, float in [0, 1] or uint8."""
        for image in to_bytes(images).cpu().contiguous():
            digest = hashlib.sha256(str(list(image.shape)).encode())
            digest.update(image.numpy())
            self._total = (self._total + int.from_bytes(digest.digest())) % 2**256

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        return f"{self._total:064x}"

    @classmethod
    def from_hexdigest(cls, text: str) -> Self:
        """One that goes on from there."""
        return cls(int(text, 16))
