from __future__ import annotations

import zlib

import numpy as np
import pytest

from tests.contracts.fill import centre_and_scale, digest, noise
from tests.contracts.parity import ParityModule


def splitmix64(state: int) -> int:
    mask = 2**64 - 1
    z = state & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_noise_is_splitmix64_of_a_counter_in_exact_integer_arithmetic() -> None:
    key = zlib.crc32(b"a.name") ^ 77
    for index, value in enumerate(noise("a.name", (5,), seed=77)):
        z = splitmix64(((key << 32) + index + 1) * 0x9E3779B97F4A7C15)
        assert value == np.float32((z >> 40) - 2**23 + 0.5) * np.float32(np.sqrt(3) / 2**23)


@pytest.mark.parametrize("width", [512, 768, 1152])
def test_noise_reproduces_the_fingerprint_of_the_stored_inputs(width: int) -> None:
    np.testing.assert_array_equal(
        digest(noise("policy.feat", (4, 256, width))), ParityModule("policy")[f"feat{width}_digest"]
    )


def test_centre_and_scale_are_those_that_the_data_lists() -> None:
    policy = ParityModule("policy").description
    for network, rows in policy["state"].items():
        overrides = [tuple(row) for row in policy["overrides"][network]]
        for row in rows:
            found = centre_and_scale(row["name"], row["shape"], overrides)
            assert np.float32(found).tolist() == np.float32((row["centre"], row["scale"])).tolist()
