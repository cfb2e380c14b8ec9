from __future__ import annotations

import pytest
import torch

from adanat_rl.generation.seeding import seeded


def test_the_global_generator_is_put_back() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with seeded(1, 2):
        torch.rand(100)
    assert torch.equal(torch.rand(4), expected)


def test_the_global_generator_is_put_back_after_an_error() -> None:
    before = torch.random.get_rng_state()
    with pytest.raises(RuntimeError), seeded(1):
        torch.rand(-3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_same_key_gives_the_same_draws_and_another_key_others() -> None:
    draws = []
    for key in ((1, 2), (1, 2), (1, 3), (2, 2), (1, 2 + 2**32)):
        with seeded(*key):
            draws.append(torch.rand(8))
    assert torch.equal(draws[0], draws[1])
    assert all(not torch.equal(draws[0], other) for other in draws[2:])
