"""A finished tiny run that tests of the folder may look at, and what it came to."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.resume import outcome
from tests import tiny


@dataclass(frozen=True)
class FinishedRun:
    """run_dir: its folder. output: what it printed with --log-json. outcome: metric rows and hashes of weights."""

    run_dir: Path
    output: str
    outcome: tuple[list[dict], dict[str, str]]


@pytest.fixture(scope="package")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """In one process, never interrupted."""
    run_dir = tmp_path_factory.mktemp("uninterrupted") / "run"
    result: subprocess.CompletedProcess[str] = tiny.train(run_dir, *tiny.IN_PROCESS, "--log-json")
    assert result.returncode == 0, result.stderr
    return FinishedRun(run_dir, result.stdout, outcome(run_dir))


@pytest.fixture(scope="package")
def uninterrupted(finished: FinishedRun) -> tuple[list[dict], dict[str, str]]:
    """What a run comes to that is never killed."""
    return finished.outcome
