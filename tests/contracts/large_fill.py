"""The fill rule for tensors of many millions of values: the same numbers as `fill.filled`, in cache-sized blocks."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np

from tests.contracts.fill import Overrides, centre_and_scale

_BLOCK = 1 << 16


def filled_in_blocks(name: str, shape: Sequence[int], seed: int, overrides: Overrides = ()) -> np.ndarray:
    """The tensor of a name, float32."""
    centre, scale = (np.float32(value) for value in centre_and_scale(name, shape, overrides))
    key = np.uint64((zlib.crc32(name.encode()) ^ seed) << 32)
    values = np.empty(math.prod(shape), np.float32)
    index = np.arange(1, _BLOCK + 1, dtype=np.uint64)
    shifted = np.empty_like(index)
    with np.errstate(over="ignore"):
        for start in range(0, len(values), _BLOCK):
            z = index + (key + np.uint64(start))
            z *= np.uint64(0x9E3779B97F4A7C15)
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
                np.right_shift(z, np.uint64(shift), out=shifted)
                z ^= shifted
                z *= np.uint64(factor)
            np.right_shift(z, np.uint64(31), out=shifted)
            z ^= shifted
            z >>= np.uint64(40)
            block = z[: len(values) - start].astype(np.float32)  # 24 bits: exact
            block -= np.float32(2**23 - 0.5)  # exact too
            block *= np.float32(math.sqrt(3) / 2**23)
            block *= scale
            block += centre
            values[start : start + _BLOCK] = block
    return values.reshape(tuple(shape))
