"""Fixtures that several folders share: the shipped digits generator, its data set, one thread for torch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from adanat_rl.config.schema import DecisionsConfig, GeneratorConfig
from adanat_rl.data.digits import ImageDataset, load_digits_dataset
from adanat_rl.generation.build import assemble_generator
from adanat_rl.generation.masked.sampler import MaskedTokenGenerator


@pytest.fixture(scope="session", autouse=True)
def _one_thread_in_fixtures() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Commands set the threads of their process; another number would give later tests other last bits."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits_generator() -> MaskedTokenGenerator:
    """The shipped generator, T = 4, all decisions learned; frozen, so one serves all tests."""
    return assemble_generator(GeneratorConfig(), DecisionsConfig())


@pytest.fixture(scope="session")
def digits() -> ImageDataset:
    """The real digits."""
    return load_digits_dataset()
