"""Every way in which a run ends or does not begin: signals, a second driver, a full disk, nothing left to do."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from adanat_rl.experiment.run_folder import RunFolder
from benchmarks.resume import outcome
from tests import tiny
from tests.conftest import FinishedRun
from tests.experiment.waiting import DEADLINE_S, rows_of, wait_for

ITERATIONS = 4


@pytest.mark.parametrize(
    ("number", "status", "workers"),
    [(signal.SIGINT, 130, ["resources.num_env_runners=1"]), (signal.SIGTERM, 143, tiny.IN_PROCESS)],
)
def test_signals_checkpoint_and_name_the_command_to_go_on(
    tmp_path: Path, uninterrupted, number: int, status: int, workers: Sequence[str]
) -> None:
    run_dir = tmp_path / "run"
    arguments = (*tiny.OVERRIDES, *workers, "--run-dir", str(run_dir))
    process = tiny.start("train", *arguments, "training.num_iterations=1000", "checkpoints.interval_iterations=1000")
    wait_for(lambda: rows_of(run_dir) >= 2, process)
    process.send_signal(number)
    output, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == status, errors
    stopped = re.search(r"stopped after iteration (\d+), checkpoint written; go on with: adanat-rl train (.*)", output)
    assert stopped is not None, output
    done = int(stopped[1])
    assert str(run_dir) in stopped[2]
    assert (run_dir / "checkpoints" / f"iteration_{done:06d}").is_dir()
    assert rows_of(run_dir) == done + 1
    if done <= ITERATIONS:
        assert tiny.run("train", *arguments).returncode == 0
        assert outcome(run_dir) == uninterrupted


def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    arguments = (*tiny.OVERRIDES, *tiny.IN_PROCESS, "training.num_iterations=1000", "--run-dir", str(run_dir))
    process = tiny.start("train", *arguments)
    try:
        wait_for(lambda: rows_of(run_dir) >= 1, process)
        second = tiny.run("train", *arguments)
        assert second.returncode == 2
        assert f"in use by process {process.pid}" in second.stderr
        assert len(second.stderr.strip().splitlines()) == 1
    finally:
        process.kill()
        process.wait()


def test_a_finished_run_given_again_says_so_and_changes_nothing(tmp_path: Path, finished: FinishedRun) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(finished.run_dir, run_dir)
    before = {path: path.stat().st_mtime_ns for path in (run_dir / "checkpoints").rglob("*")}
    result = tiny.train(run_dir, *tiny.IN_PROCESS)
    assert result.returncode == 0, result.stderr
    assert "is complete" in result.stdout
    smaller = tiny.train(run_dir, "resources.num_env_runners=1000")
    assert smaller.returncode == 0, "a finished run needs no workers"
    assert "is complete" in smaller.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (run_dir / "checkpoints").rglob("*")}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount a small file system: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_stops_the_run_in_one_line_with_what_is_safe(small_disk: Path, uninterrupted) -> None:
    run_dir = small_disk / "run"
    arguments = (*tiny.OVERRIDES, *tiny.IN_PROCESS, "--run-dir", str(run_dir))
    process = tiny.start("train", *arguments)
    wait_for(lambda: (run_dir / "checkpoints" / "iteration_000001").exists(), process)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (shutil.disk_usage(small_disk).free))
    _, errors = process.communicate(timeout=DEADLINE_S)
    lines = errors.strip().splitlines()
    assert process.returncode == 1, errors
    assert lines[0] == f"adanat-rl train: cannot write in {run_dir}: No space left on device"
    assert re.fullmatch(r"  safe: .*checkpoints.*", lines[1])
    assert lines[2].startswith("  go on with: adanat-rl train ")
    ballast.unlink()
    result = tiny.run("train", *arguments)
    assert result.returncode == 0, result.stderr
    assert outcome(run_dir) == uninterrupted


def test_the_rollout_table_accounts_for_every_trajectory(tmp_path: Path, finished: FinishedRun) -> None:
    import pyarrow.parquet as pq

    run_dir = tmp_path / "run"
    shutil.copytree(finished.run_dir, run_dir)
    config = RunFolder(run_dir).saved_config()
    seen = set()
    for iteration in range(1, ITERATIONS + 1):
        table = pq.read_table(run_dir / "rollouts" / f"iteration_{iteration:06d}.parquet").to_pandas()
        assert len(table) == config.training.trajectories_per_iteration
        assert (table["reward_model_version"] == iteration).all()
        assert table["reward"].between(0, 1).all()
        assert {len(row) for row in table["decisions"]} == {4 * 4}
        assert {len(row) for row in table["advantages"]} == {4}
        seen |= set(table["id"])
    assert len(seen) == ITERATIONS * config.training.trajectories_per_iteration
    (run_dir / "rollouts" / "iteration_000002.parquet").unlink()
    result = tiny.run("audit", "--run-dir", str(run_dir))
    assert result.returncode == 1
    assert "no table of iteration 2" in result.stdout


def test_json_lines_are_json(finished: FinishedRun) -> None:
    lines = [json.loads(line) for line in finished.output.splitlines()]
    assert [line["iteration"] for line in lines if "iteration" in line] == list(range(ITERATIONS + 1))
