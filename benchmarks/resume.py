"""A run that is killed three times at random moments against one that is not: equal bits.

python -m benchmarks.resume
"""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from adanat_rl.config.files import read_json_lines
from adanat_rl.config.run_paths import RunPaths
from adanat_rl.experiment.checkpoints import checkpoint_folders
from adanat_rl.experiment.metrics_log import without_measurements
from benchmarks.common import print_rows, write_result

SETTINGS = (
    "training.num_iterations=100",
    "evaluation.interval_iterations=50",
    "evaluation.num_images=512",
    "evaluation.num_seeds=2",
    "evaluation.reference=null",
    "checkpoints.interval_iterations=2",
)
KILLS = 3
EARLIEST_S, LATEST_S = 8.0, 30.0


def outcome(run_dir: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Metric rows without what a clock or a failure decides, and hashes of all that was learned."""
    folder = RunPaths(run_dir)
    rows = [without_measurements(row) for row in read_json_lines(folder.metrics_file)]
    found = checkpoint_folders(folder.checkpoints)
    last = found[max(found)]
    files = [last / "learner.safetensors", last / "reward.safetensors", folder.policy / "policy.safetensors"]
    return rows, {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def command(run_dir: Path) -> list[str]:
    return [sys.executable, "-m", "adanat_rl.train", *SETTINGS, "--run-dir", str(run_dir), "--quiet"]


def killed_run(run_dir: Path, moments: random.Random) -> list[str]:
    """Starts, kills and starts again; returns how far it was each time."""
    progress = []
    for _ in range(KILLS):
        process = subprocess.Popen(command(run_dir), stdout=subprocess.DEVNULL)
        try:
            process.wait(timeout=moments.uniform(EARLIEST_S, LATEST_S))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        rows = len(read_json_lines(run_dir / "metrics.jsonl"))
        progress.append(f"killed after {rows} rows" if process.returncode else f"ended with {rows} rows")
    subprocess.run(command(run_dir), check=True, stdout=subprocess.DEVNULL)
    return progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    seed = parser.parse_args().seed
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / name for name in ("plain", "killed")]
        subprocess.run(command(folders[0]), check=True, stdout=subprocess.DEVNULL)
        progress = killed_run(folders[1], random.Random(seed))
        (plain_rows, plain_hashes), (rows, hashes) = map(outcome, folders)
    equal = {"metric rows": rows == plain_rows} | {name: hashes[name] == plain_hashes[name] for name in hashes}
    content = {"equal": equal, "rows": len(rows), "kills": progress, "hashes": plain_hashes}
    write_result("resume", {"command": "python -m benchmarks.resume", **content})
    print_rows(
        f"kill -9: {'; '.join(progress)}", ["what", "equal bits"], [[k, "yes" if v else "NO"] for k, v in equal.items()]
    )
    if not all(equal.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
