"""Sweeps: two trials at once against one after the other, killed three times against never, and what Tune adds.

python -m benchmarks.sweeps      # about 12 minutes on two quiet cores
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import yaml

from adanat_rl.plots.ablation.tables import MEASURED
from benchmarks.common import print_rows, write_result
from benchmarks.resume import outcome

SETTINGS = {
    "training.num_iterations": 60,
    "evaluation.interval_iterations": 20,
    "evaluation.num_images": 512,
    "evaluation.num_seeds": 2,
    "evaluation.reference": None,
    "resources.num_env_runners": 0,
    "resources.num_reward_actors": 0,
    "resources.driver_threads": 1,
}
# What a sweep adds is mostly its start, so it is measured on a trial as long as those of reward_ablation.yaml.
LONGER = {"training.num_iterations": 150}
# A training by itself, without the tracking and the checkpoints that every trial has.
BARE = ("tracking.enabled=false", "checkpoints.interval_iterations=100000")
KILLS = 3
EARLIEST_S, LATEST_S = 12.0, 40.0
CONCURRENT_LIMIT = 1.5
ADDED_LIMIT = 0.10


def write_sweep(folder: Path, seeds: int, at_once: int, **settings: object) -> Path:
    settings = {**SETTINGS, **settings}
    content = {"preset": "digits", "seeds": seeds, "settings": settings, "resources": {"max_concurrent": at_once}}
    file = folder / f"of_{seeds}_{at_once}.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def sweep_command(file: Path, run_dir: Path) -> list[str]:
    return [sys.executable, "-m", "adanat_rl.sweep", str(file), "--run-dir", str(run_dir), "--quiet"]


def timed(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def train_command(run_dir: Path) -> list[str]:
    longer = {**SETTINGS, **LONGER}
    settings = [f"{key}={yaml.safe_dump(value).splitlines()[0]}" for key, value in longer.items()]
    return [sys.executable, "-m", "adanat_rl.train", *settings, *BARE, "--run-dir", str(run_dir), "--quiet"]


def killed_sweep(file: Path, run_dir: Path, moments: random.Random) -> list[str]:
    """Starts, kills and starts again; returns how far it was each time."""
    progress = []
    for _ in range(KILLS):
        process = subprocess.Popen(sweep_command(file, run_dir), stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            process.wait(timeout=moments.uniform(EARLIEST_S, LATEST_S))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        rows = sum(len(rows.read_text().splitlines()) for rows in run_dir.glob("trials/*/metrics.jsonl"))
        progress.append(f"killed after {rows} rows" if process.returncode else f"ended with {rows} rows")
    subprocess.run(sweep_command(file, run_dir), check=True, stdout=subprocess.DEVNULL)
    return progress


def same(left: Path, right: Path) -> dict[str, bool]:
    """Whether two sweeps came to the same table and the same weights."""
    tables = [pd.read_csv(folder / "summary.csv").drop(columns=list(MEASURED)) for folder in (left, right)]
    trials = sorted(path.name for path in (left / "trials").iterdir())
    return {
        "final table": tables[0].equals(tables[1]),
        "weights and metric rows": all(
            outcome(left / "trials" / name) == outcome(right / "trials" / name) for name in trials
        ),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        both, one_by_one = write_sweep(folder, 2, 2), write_sweep(folder, 2, 1)
        alone_s = timed(train_command(folder / "alone"))
        single_s = timed(sweep_command(write_sweep(folder, 1, 1, **LONGER), folder / "single"))
        together_s = timed(sweep_command(both, folder / "together"))
        in_turn_s = timed(sweep_command(one_by_one, folder / "in_turn"))
        kills = killed_sweep(both, folder / "killed", random.Random(0))
        equal = same(folder / "together", folder / "killed")
    numbers = {
        **LONGER,
        "train_alone_s": alone_s,
        "sweep_of_one_s": single_s,
        "added": single_s / alone_s - 1,
        "two_at_once_s": together_s,
        "two_in_turn_s": in_turn_s,
        "trials_per_time": in_turn_s / together_s,
    }
    limits = {"trials_per_time": CONCURRENT_LIMIT, "added": ADDED_LIMIT}
    command = "python -m benchmarks.sweeps"
    write_result("sweeps", {"command": command, **numbers, "limits": limits, "kills": kills, "equal": equal})
    rows = [[name, f"{value:.2f}"] for name, value in numbers.items()]
    print_rows(
        f"kill -9: {'; '.join(kills)}", ["what", ""], [*rows, *([k, "equal" if v else "NOT"] for k, v in equal.items())]
    )
    if not all(equal.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
