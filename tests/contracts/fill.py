"""The public rule that fills weights and inputs of the parity data, written from its description alone.

A value is a function of its tensor's name, its C-order index and a seed: SplitMix64 of a counter, the upper 24 bits as
a uniform number of mean 0 and variance 1, moved and scaled in float32.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))

Overrides = Sequence[tuple[str, float, float]]


def noise(name: str, shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Uniform on (-√3, √3), float32, variance 1."""
    key = zlib.crc32(name.encode()) ^ seed
    counter = np.arange(1, math.prod(shape) + 1, dtype=np.uint64) + np.uint64(key << 32)
    with np.errstate(over="ignore"):
        z = counter * _GOLDEN
        for shift, factor in _MIX:
            z = (z ^ (z >> shift)) * factor
        z ^= z >> np.uint64(31)
    centred = (z >> np.uint64(40)).astype(np.float64) - 2.0**23 + 0.5
    return (centred.astype(np.float32) * np.float32(math.sqrt(3) / 2**23)).reshape(tuple(shape))


def centre_and_scale(name: str, shape: Sequence[int], overrides: Overrides = ()) -> tuple[float, float]:
    """Centre and scale of a tensor: the first override whose pattern matches, else by its name and rank."""
    for pattern, centre, scale in overrides:
        if re.search(pattern, name):
            return centre, scale
    if name.endswith("bias"):
        return 0.0, 0.05
    if name.endswith("running_mean"):
        return 0.0, 0.1
    if name.endswith("running_var") or len(shape) <= 1:
        return 1.0, 0.1
    return 0.0, 1 / math.sqrt(math.prod(shape[1:]))


def filled(name: str, shape: Sequence[int], seed: int, overrides: Overrides = ()) -> np.ndarray:
    """The tensor of a name, float32."""
    centre, scale = centre_and_scale(name, shape, overrides)
    return np.float32(centre) + np.float32(scale) * noise(name, shape, seed)


def digest(values: np.ndarray) -> np.ndarray:
    """Mean, population sd, largest magnitude, first and last value, in float64: the fingerprint of an input."""
    x = values.astype(np.float64)
    return np.array([x.mean(), x.std(), np.abs(x).max(), x.flat[0], x.flat[-1]])
