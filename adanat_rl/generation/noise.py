"""Where the sampler's randomness comes from: keyed generators, one per shard in training, one per image in evaluation.

Both kinds are pure functions of their key, the step and the stream; nothing is carried from call to call, so a draw can
be repeated alone. All draws are float32 on the generator's device.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from adanat_rl.generation.seeding import Purpose, philox


class Stream(IntEnum):
    """What a draw is for; each purpose has its own numbers."""

    TOKENS = 0
    CONFIDENCE = 1
    ACTIONS = 2
    CONTEXTS = 3


class Noise(Protocol):
    """Source of standard exponential draws for a batch of B images."""

    def exponential(self, step: int, stream: Stream, shape: tuple[int, ...]) -> Tensor:
        """Standard exponential draws, float32 `[B, *shape]`, all positive."""
        ...


def gumbel(noise: Noise, step: int, stream: Stream, shape: tuple[int, ...]) -> Tensor:
    """Standard Gumbel draws `[B, *shape]`: minus the logarithm of a standard exponential."""
    return noise.exponential(step, stream, shape).log_().neg_()


class ShardNoise:
    """Generators keyed by (run seed, iteration, shard), step and stream: the noise of training on a CPU."""

    def __init__(self, key: tuple[int, int, int], batch_size: int) -> None:
        self.key = key
        self.batch_size = batch_size

    def _generator(self, step: int, stream: Stream) -> np.random.Generator:
        return philox(Purpose.SHARD, *self.key, step, int(stream))

    def exponential(self, step: int, stream: Stream, shape: tuple[int, ...]) -> Tensor:
        """Standard exponential draws, float32 `[B, *shape]`; the rare zero is lifted to 2⁻²⁴."""
        draws = self._generator(step, stream).standard_exponential((self.batch_size, *shape), np.float32)
        return torch.from_numpy(draws).clamp_min_(2.0**-24)

    def normal(self, step: int, stream: Stream, shape: tuple[int, ...]) -> Tensor:
        """Standard normal draws, float32 `[B, *shape]`."""
        return torch.from_numpy(self._generator(step, stream).standard_normal((self.batch_size, *shape), np.float32))

    def choice(self, stream: Stream, options: np.ndarray) -> np.ndarray:
        """B entries of `options`, drawn with replacement, each equally likely."""
        return options[self._generator(0, stream).integers(0, len(options), self.batch_size)]


class ImageNoise:
    """Counter-based noise, one key per image: an image's draws depend on its seed alone, not on its batch mates.

    Philox-4x32 with 10 rounds (Salmon et al., SC 2011) on int64 tensors, so CPU and GPU give the same bits.
    """

    def __init__(self, seeds: Tensor) -> None:
        """Args:
        seeds: `[B]` int64, one per image, any value.
        """
        self.seeds = seeds
        self.batch_size = len(seeds)

    def uniform(self, step: int, stream: Stream, shape: tuple[int, ...]) -> Tensor:
        """Uniform draws on the open interval (0, 1) with 23 bits, float32 `[B, *shape]`."""
        count = math.prod(shape)
        blocks = -(-count // 4)
        device = self.seeds.device
        index = torch.arange(blocks, dtype=torch.int64, device=device)[None, :]
        zero = torch.zeros_like(index)
        counter = (index, zero + step, zero + int(stream), zero)
        key = ((self.seeds & _MASK32)[:, None], ((self.seeds >> 32) & _MASK32)[:, None])
        words = torch.stack(philox4x32(counter, key), dim=-1).reshape(self.batch_size, blocks * 4)[:, :count]
        return ((words >> 9).to(torch.float32) + 0.5).mul_(2.0**-23).reshape(self.batch_size, *shape)

    def exponential(self, step: int, stream: Stream, shape: tuple[int, ...]) -> Tensor:
        """Standard exponential draws, float32 `[B, *shape]`."""
        return self.uniform(step, stream, shape).log_().neg_()


class DeviceShardNoise(ImageNoise):
    """The noise of training on a GPU: counter-based there, so that nothing is copied in a step.

    Keyed like `ShardNoise`, with other numbers; what is needed on the host only (contexts) comes from that.
    """

    def __init__(self, key: tuple[int, int, int], batch_size: int, device: torch.device) -> None:
        self._host = ShardNoise(key, batch_size)
        seeds = philox(Purpose.SHARD_SEEDS, *key).integers(0, 2**63, batch_size)
        super().__init__(torch.from_numpy(seeds).to(device))

    def normal(self, step: int, stream: Stream, shape: tuple[int, ...]) -> Tensor:
        """Standard normal draws, float32 `[B, *shape]`, by Box and Muller's transform of pairs of uniform ones."""
        pairs = self.uniform(step, stream, (2, *shape))
        radius, angle = (-2 * pairs[:, 0].log()).sqrt(), 2 * math.pi * pairs[:, 1]
        return radius * angle.cos()

    def choice(self, stream: Stream, options: np.ndarray) -> np.ndarray:
        """B entries of `options`, as on a CPU."""
        return self._host.choice(stream, options)


def shard_noise(key: tuple[int, int, int], batch_size: int, device: torch.device) -> ShardNoise | DeviceShardNoise:
    """The noise of a shard that is drawn on a device."""
    return ShardNoise(key, batch_size) if device.type == "cpu" else DeviceShardNoise(key, batch_size, device)


_MASK32 = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox4x32(counter: _Words, key: tuple[Tensor, Tensor], rounds: int = 10) -> _Words:
    """Four 32-bit words per counter; int64 tensors that hold unsigned 32-bit values and broadcast together."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK32, (k1 + _WEYL[1]) & _MASK32
    return c0, c1, c2, c3


def _multiply(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """High and low half of the 64-bit product; int64 wraps around, the bits are those of the unsigned product."""
    product = word * multiplier
    return (product >> 32) & _MASK32, product & _MASK32
