"""Memory at AdaNAT-L: peaks of rollout, reward and learner, and what a second worker on a machine costs.

    python -m benchmarks.memory                 # the learner takes 13 GB of disk and some ten minutes
    python -m benchmarks.memory --trajectories 256 --no-save

Each part runs in a process of its own. Weights come from a seed; the learner's features come from no NAT, but go
through the real connector, the feature file and the learner with micro-batches.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import print_rows, write_result
from benchmarks.large import weight_files, write_discriminator_features, write_weights
from benchmarks.memory_parts import HORIZON, ROW_BYTES

FEW = 16  # trajectories that the learner's memory for many is compared with
FEW_RUNS = 3  # the heap of a process is never twice the same; the smallest of these peaks counts
LIMIT_MB = 64.0  # what many trajectories may take beyond their tokens and scalars
READ_LIMIT_MB = 1.0  # what a second worker may read from the disk
_WEIGHTS_MB = 1100


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder = Path(scratch)
        write_weights(folder)
        if "reward" in arguments.parts and importlib.util.find_spec("transformers") is not None:
            write_discriminator_features(folder)
        measured = {name: MEASURE[name](arguments, folder) for name in arguments.parts}
    content = {
        "command": " ".join(["python -m benchmarks.memory", *sys.argv[1:]]),
        "network": "AdaNAT-L (U-ViT, width 768, depth 24, 16×16 tokens), actor and critic 512 wide, T = 4, float32",
        "device": arguments.device,
        "note": "MiB; anonymous memory is a process's own, mapped files are shared by all processes of a machine",
        **measured,
        "limits": {"learner_beyond_tokens_mb": LIMIT_MB, "second_worker_read_from_disk_mb": READ_LIMIT_MB},
    }
    show(measured)
    if not arguments.no_save:
        write_result("memory" if arguments.device == "cpu" else f"memory_{arguments.device}", content)


def measure_shard(part: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A shard drawn, or scored."""
    return {"trajectories": arguments.shard_size, **run(part, arguments, folder, arguments.shard_size)}


def measure_learner(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """An update with few and with many trajectories, and what the many take beyond what there is more of."""
    if arguments.micro_batch_size * 2 > FEW * HORIZON:
        print(f"note: one micro-batch holds more than half of {FEW} trajectories, which then add up no gradients")
    runs = [run("learner", arguments, folder, FEW) for _ in range(FEW_RUNS)]
    few = min(runs, key=lambda row: row["anonymous_peak_mb"])
    many = run("learner", arguments, folder, arguments.trajectories)
    more = many["anonymous_peak_mb"] - few["anonymous_peak_mb"]
    data = many["tokens_and_scalars_mb"] - few["tokens_and_scalars_mb"]
    return {
        "updates": {str(FEW): few, str(arguments.trajectories): many},
        "peaks_of_few_mb": [row["anonymous_peak_mb"] for row in runs],
        "more_at_peak_mb": more,
        "beyond_tokens_mb": more - data,
    }


def measure_worker(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Two workers, the first one with weights that are on the disk only."""
    for file in weight_files(folder):
        forget(file)
    started, numbers = [], []
    try:
        for _ in range(2):
            process = start("worker", arguments, folder, arguments.shard_size)
            started.append(process)
            numbers.append(read_line(process, folder))
    finally:
        for process in started:
            process.communicate("")  # ends its input, and with it the process
    weights = sum(file.stat().st_size for file in weight_files(folder)) / 2**20
    return {"weights_mb": weights, "first": numbers[0], "second": numbers[1]}


MEASURE: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "rollout": partial(measure_shard, "rollout"),
    "reward": partial(measure_shard, "reward"),
    "learner": measure_learner,
    "worker": measure_worker,
}


def run(part: str, arguments: argparse.Namespace, folder: Path, count: int) -> dict[str, Any]:
    """The numbers of a part, measured in a new process."""
    print(f"{part}, {count} trajectories …", flush=True)
    process = start(part, arguments, folder, count)
    numbers = read_line(process, folder)
    process.communicate("")
    return numbers


def start(part: str, arguments: argparse.Namespace, folder: Path, count: int) -> subprocess.Popen[str]:
    """A new process for a part; its errors go to a file, which is shown if it fails."""
    command = [sys.executable, "-m", "benchmarks.memory_parts", part, "--weights", str(folder), "--count", str(count)]
    command += ["--micro-batch-size", str(arguments.micro_batch_size), "--epochs", str(arguments.epochs)]
    command += ["--device", arguments.device]
    with (folder / "errors.txt").open("w") as errors:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "TMPDIR": str(folder)},  # where the feature file goes
        )


def read_line(process: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    """The line of JSON that a part prints."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        errors = (folder / "errors.txt").read_text()
        raise SystemExit(f"this failed: {' '.join(map(str, process.args))}\n{errors}")  # type: ignore[arg-type]
    return json.loads(line)


def forget(file: Path) -> None:
    """Takes a file out of the kernel's cache, so that whoever reads it next reads the disk."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # what is not yet written cannot be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def show(measured: dict[str, Any]) -> None:
    """The tables."""
    peaks = [
        _peak_row(f"{part}, a shard{_model_of(measured[part])}", measured[part]["trajectories"], measured[part])
        for part in ("rollout", "reward")
        if part in measured
    ]
    learner = measured.get("learner")
    if learner is not None:
        peaks += [_peak_row("learner, an update", count, row) for count, row in learner["updates"].items()]
    if peaks:
        headings = ["part", "trajectories", "own before", "own, peak", "mapped, peak", "resident, peak", "GPU, peak"]
        print_rows("Memory at AdaNAT-L, MiB", headings, peaks)
    if learner is not None:
        beyond = learner["beyond_tokens_mb"]
        print(f"learner: {beyond:.1f} MiB more for many trajectories, beyond tokens and scalars (below {LIMIT_MB:.0f})")
    if "worker" in measured:
        names = {
            "build_s": "start, s",
            "read_from_disk_mb": "read from disk",
            "read_by_calls_mb": "read by calls",
            "private_mb": "private",
            "shared_mb": "shared",
            "private_before_mb": "private before",
        }
        rows = [
            [which, *(f"{measured['worker'][which][name]:,.1f}" for name in names)] for which in ("first", "second")
        ]
        title = f"Two workers on a machine, weights of {measured['worker']['weights_mb']:,.0f} MiB, in MiB"
        print_rows(f"{title}; the second may read {READ_LIMIT_MB:.0f}", ["worker", *names.values()], rows)


def _model_of(row: dict[str, Any]) -> str:
    return f" ({row['model']})" if "model" in row else ""


def _peak_row(name: str, count: int | str, row: dict[str, Any]) -> list[str]:
    columns = ("anonymous_before_mb", "anonymous_peak_mb", "file_peak_mb", "resident_peak_mb")
    gpu = f"{row['gpu_peak_mb']:,.0f}" if "gpu_peak_mb" in row else ""
    return [name, f"{int(count):,}", *(f"{row[column]:,.0f}" for column in columns), gpu]


def parse() -> argparse.Namespace:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=MEASURE, default=list(MEASURE), help="which (all)")
    parser.add_argument("--shard-size", type=int, help="trajectories drawn and scored (128 on a GPU, 8 on a CPU)")
    parser.add_argument(
        "--trajectories", type=int, default=4096, help=f"of the large update, a multiple of {FEW} (4096)"
    )
    parser.add_argument("--micro-batch-size", type=int, default=16, help="env steps of a micro-batch (16)")
    parser.add_argument("--epochs", type=int, default=1, help="passes over the train batch (1)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="cuda if there is one, else cpu")
    parser.add_argument("--scratch", type=Path, help="where weights and features go (the system's temporary folder)")
    parser.add_argument("--no-save", action="store_true", help="print the tables, write no file")
    arguments = parser.parse_args()
    if not Path("/proc/self/smaps_rollup").exists():
        parser.error("this reads the memory of processes from Linux's /proc")
    arguments.device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    arguments.shard_size = arguments.shard_size or (128 if arguments.device == "cuda" else 8)
    if arguments.trajectories < FEW or arguments.trajectories % FEW:
        parser.error(f"--trajectories: {arguments.trajectories} is no multiple of {FEW}")
    _check_space(arguments, parser)
    return arguments


def _check_space(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    features = arguments.trajectories * HORIZON * ROW_BYTES / 2**20 if "learner" in arguments.parts else 0.0
    folder = arguments.scratch or Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free / 2**20
    if free < features + _WEIGHTS_MB:
        parser.error(
            f"{folder} has {free:,.0f} MiB free, {features + _WEIGHTS_MB:,.0f} are needed; "
            "choose another --scratch, or fewer --trajectories"
        )


if __name__ == "__main__":
    main()
