"""Runs that are killed and damaged for real, and what the same command makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from benchmarks.resume import outcome
from tests import tiny
from tests.experiment.waiting import rows_of, wait_for

MOMENTS: dict[str, Callable[[Path], bool]] = {
    "before_the_first_checkpoint": lambda run_dir: (run_dir / "metrics.jsonl").exists(),
    "while_a_checkpoint_is_written": lambda run_dir: any((run_dir / "checkpoints").glob(".iteration_*.tmp")),
    "in_an_iteration": lambda run_dir: rows_of(run_dir) >= 3,
    "in_the_comparison": lambda run_dir: (run_dir / "policy" / "policy.json").exists(),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_the_same_command_gives_the_same_run(tmp_path: Path, uninterrupted, moment: str) -> None:
    run_dir = tmp_path / "run"
    workers = ["resources.num_env_runners=1"] if moment == "in_an_iteration" else tiny.IN_PROCESS
    arguments = (*tiny.OVERRIDES, *workers, "--run-dir", str(run_dir))
    process = tiny.start("train", *arguments)
    wait_for(lambda: MOMENTS[moment](run_dir), process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert [child.name() for child in alive] == [], "nothing outlives its driver"
    result = tiny.run("train", *arguments)
    assert result.returncode == 0, result.stderr
    assert outcome(run_dir) == uninterrupted
    audit = tiny.run("audit", "--run-dir", str(run_dir))
    assert audit.returncode == 0, audit.stdout


def test_killed_while_a_checkpoint_is_read_nothing_is_lost(tmp_path: Path, uninterrupted) -> None:
    run_dir = tmp_path / "run"
    arguments = (*tiny.OVERRIDES, *tiny.IN_PROCESS, "--run-dir", str(run_dir))
    assert tiny.run("train", *arguments, "training.num_iterations=2").returncode == 0
    process = tiny.start("train", *arguments)
    opened = f"iteration_{2:06d}"

    def reading() -> bool:
        try:
            return any(opened in file.path for file in psutil.Process(process.pid).open_files()) or rows_of(run_dir) < 3
        except psutil.Error:
            return False

    wait_for(lambda: reading() or rows_of(run_dir) > 3, process)
    process.kill()
    process.wait()
    result = tiny.run("train", *arguments)
    assert result.returncode == 0, result.stderr
    assert outcome(run_dir) == uninterrupted


def test_a_damaged_newest_checkpoint_costs_one_checkpoint(tmp_path: Path, uninterrupted) -> None:
    run_dir = tmp_path / "run"
    arguments = (*tiny.OVERRIDES, *tiny.IN_PROCESS, "--run-dir", str(run_dir))
    assert tiny.run("train", *arguments, "training.num_iterations=3").returncode == 0
    file = run_dir / "checkpoints" / "iteration_000003" / "learner.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)
    result = tiny.run("train", *arguments)
    assert result.returncode == 0, result.stderr
    assert "iteration_000003/learner.safetensors differs" in result.stdout
    assert "going on after iteration 2 of 4" in result.stdout
    assert outcome(run_dir) == uninterrupted
