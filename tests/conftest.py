"""Fixtures that several folders share: the shipped digits generator, its data set, a finished run, one thread for
torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from adanat_rl.config.schema import DecisionsConfig, GeneratorConfig
from adanat_rl.data.digits import ImageDataset, load_digits_dataset
from adanat_rl.generation.build import assemble_generator
from adanat_rl.generation.masked.sampler import MaskedTokenGenerator
from benchmarks.resume import outcome
from tests import tiny


@dataclass(frozen=True)
class FinishedRun:
    """run_dir: its folder. output: what it printed with --log-json. outcome: metric rows and hashes of weights."""

    run_dir: Path
    output: str
    outcome: tuple[list[dict], dict[str, str]]


@pytest.fixture(scope="session", autouse=True)
def _one_thread_in_fixtures() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Made before any test: while a private cluster runs, temporary files lie in its folder and go along with it."""
    tmp_path_factory.getbasetemp()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Commands set the threads of their process; another number would give later tests other last bits."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _gradients_on() -> Iterator[None]:
    """Whoever switches gradients off switches them on again; otherwise tests that come later fail, and not this one."""
    yield
    left_off = not torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert not left_off, "gradients were left switched off"


@pytest.fixture(scope="session")
def digits_generator() -> MaskedTokenGenerator:
    """The shipped generator, T = 4, all decisions learned; frozen, so one serves all tests."""
    return assemble_generator(GeneratorConfig(), DecisionsConfig())


@pytest.fixture(scope="session")
def digits() -> ImageDataset:
    """The real digits."""
    return load_digits_dataset()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A tiny run that has everything, made in one process, never interrupted; tests look at it or change a copy."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    result = tiny.train(run_dir, *tiny.IN_PROCESS, "--log-json")
    assert result.returncode == 0, result.stderr
    return FinishedRun(run_dir, result.stdout, outcome(run_dir))


@pytest.fixture(scope="session")
def finished_run(finished: FinishedRun) -> Path:
    """Its folder."""
    return finished.run_dir


@pytest.fixture(scope="session")
def uninterrupted(finished: FinishedRun) -> tuple[list[dict], dict[str, str]]:
    """What a run comes to that is never killed."""
    return finished.outcome
