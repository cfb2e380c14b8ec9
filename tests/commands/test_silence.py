"""What a log gets: nothing from `--quiet`, only JSON from `--log-json`; and runs that end well whoever reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny

SHORT = (
    *tiny.IN_PROCESS,
    "training.num_iterations=1",
    "evaluation.num_seeds=1",
    "tracking.enabled=true",
    "tracking.system_metrics=false",
)


def test_quiet_is_quiet_and_the_run_is_whole(tmp_path: Path) -> None:
    done = tiny.train(tmp_path / "run", *SHORT, "--quiet", "--lr=1e-4")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "run" / "report.html").exists()


def test_log_json_is_json_and_nothing_else(tmp_path: Path) -> None:
    done = tiny.train(tmp_path / "run", *SHORT, "--log-json", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"iteration", "comparison"} <= {key for row in rows for key in row}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_training_ends_well_although_nobody_reads_and_the_terminal_lacks_letters(
    tmp_path: Path, encoding: str
) -> None:
    script = '"$0" -m adanat_rl.train "$@" | head -1; exit ${PIPESTATUS[0]}'
    settings = [*tiny.OVERRIDES, *SHORT, "tracking.enabled=false", "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(
        ["bash", "-c", script, sys.executable, *settings],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "run" / "summary.json").exists()
