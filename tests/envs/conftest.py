"""What an environment is made of, on the shipped digits and on a generator of another kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from adanat_rl.envs import GenerationEnv, GenerationVectorEnv
from adanat_rl.generation.noise import ImageNoise
from tests.fakes import PointGenerator

DIGIT_CONTEXTS = np.arange(10)


def token_sum(sample: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """A reward that depends on every token and on the label."""
    return sample.float().mean(dim=1) + 1000 * context


def low_cost(sample: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """The reward of a point."""
    return -sample[:, 1]


def parts(generator: Any) -> dict[str, Any]:
    """The collaborators of an environment around a generator."""
    if isinstance(generator, PointGenerator):
        return {"generator": generator, "scorer": low_cost, "noise_factory": ImageNoise, "contexts": np.arange(4)}
    return {"generator": generator, "scorer": token_sum, "noise_factory": ImageNoise, "contexts": DIGIT_CONTEXTS}


@pytest.fixture(params=["digits", "points"])
def generator(request, digits_generator) -> Any:
    return digits_generator if request.param == "digits" else PointGenerator()


@pytest.fixture
def make_env(generator) -> Callable[..., GenerationEnv]:
    return lambda **changes: GenerationEnv(**{**parts(generator), **changes})


@pytest.fixture
def digits_env(digits_generator) -> Callable[..., GenerationEnv]:
    """For what does not depend on the generator."""
    return lambda **changes: GenerationEnv(**{**parts(digits_generator), **changes})


@pytest.fixture
def make_envs(generator) -> Callable[..., GenerationVectorEnv]:
    return lambda num_envs, **changes: GenerationVectorEnv(**{**parts(generator), "num_envs": num_envs, **changes})
