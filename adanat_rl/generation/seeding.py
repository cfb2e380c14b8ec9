"""Building and training networks from an explicit seed, although torch's layers draw from its global generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Runs a block with torch's global generator seeded by integers, and puts the generator back afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derive_seed(*key))
        yield


def derive_seed(*key: int) -> int:
    """One 32-bit seed of several integers (torch's CPU generator keeps no more bits)."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])
