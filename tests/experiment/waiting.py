"""Waiting for the moment to break a run."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from adanat_rl.config.files import read_json_lines
from tests.forking import ForkedCommand

DEADLINE_S = 240.0


def wait_for(condition: Callable[[], bool], process: ForkedCommand) -> None:
    """Until the condition holds; a process that ends before is an error."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the moment to break things never came"
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.005)
            pytest.fail(f"the process ended before: {process.communicate()}")


def rows_of(run_dir: Path) -> int:
    return len(read_json_lines(run_dir / "metrics.jsonl"))
