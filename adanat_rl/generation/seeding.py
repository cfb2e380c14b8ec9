"""Where all randomness starts: generators keyed by a purpose and integers, and a frame for layers that know none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What a key is for: the same integers give other numbers for another purpose."""

    SHARD = 0  # seed, iteration, shard, step, stream
    SHUFFLE = 1  # seed, iteration, epoch
    REWARD_UPDATE = 2  # seed, iteration
    EVALUATION = 3  # evaluation seed
    POLICY_WEIGHTS = 4  # seed
    DISCRIMINATOR_WEIGHTS = 5  # seed
    CODEBOOK = 6  # seed
    JUDGE = 7  # seed, name
    NAT = 8  # seed
    SEARCH = 9  # search seed; and generation; and index of a candidate
    SWEEP = 10  # seed of a sweep's draws, number of the draw
    SHARD_SEEDS = 20  # seed, iteration, shard


def philox(purpose: Purpose, *key: int) -> np.random.Generator:
    """A counter-based NumPy generator (Philox-4x64) for a purpose and non-negative integers below 2³².

    torch's CPU generator keeps only 32 bits of a seed, so it cannot hold such a key.
    """
    return np.random.Generator(np.random.Philox(key=_words(purpose, key).generate_state(2, np.uint64)))


def derive_seed(purpose: Purpose, *key: int) -> int:
    """One 32-bit seed for a purpose and integers, for libraries that take no generator."""
    return int(_words(purpose, key).generate_state(1)[0])


@contextmanager
def seeded(purpose: Purpose, *key: int) -> Iterator[None]:
    """Runs a block with torch's global generator seeded, and puts the generator back afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derive_seed(purpose, *key))
        yield


def _words(purpose: Purpose, key: tuple[int, ...]) -> np.random.SeedSequence:
    """Purpose and length go first: NumPy takes trailing zeros for absent words."""
    return np.random.SeedSequence((int(purpose), len(key), *key))
