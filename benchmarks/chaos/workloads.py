"""What is struck: every command that writes, on the smallest real run, and what its result is to the bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import yaml

from adanat_rl.config.files import read_json_lines
from adanat_rl.config.run_paths import RunPaths
from adanat_rl.plots.ablation.tables import MEASURED
from benchmarks.resume import outcome as learned
from tests import tiny
from tests.tiny_sweeps import SETTINGS as SWEEP_SETTINGS

RUN = "run"
SWEEP_FILE = "try.yaml"
URI = "{uri}"  # stands for the address of the tracking server
Outcome = dict[str, str]
PUT_ASIDE = "put aside"
# Deadlines that a frozen process runs into: short, but not for a loaded machine.
_DEADLINES = (
    "resources.shard_timeout_s=20",
    "resources.no_runner_timeout_s=60",
    "resources.reward_timeout_s=20",
    "resources.learner_timeout_s=20",
    "resources.start_timeout_s=90",
)
_TRAIN = (*tiny.OVERRIDES, *_DEADLINES, "--run-dir", RUN)
_TRACKED = (*_TRAIN, *tiny.IN_PROCESS, "tracking.enabled=true", "tracking.system_metrics=false")
_EVALUATION = ("evaluation.num_images=64", "evaluation.num_seeds=2", "evaluation.reference=null")


@dataclass(frozen=True)
class Workload:
    """One command.

    Args:
        name: for people. command, arguments: what is typed, in the work folder. base: the workload on whose finished
        folder it starts. outcome: its result in named parts, the same for two runs of one seed. prepare: writes
        what it reads. result: the file or folder that it makes. begins_anew: text of a refusal after which one
        deletes the result and gives the command again. goes_on: whether an interrupted one goes on where it
        stopped, and says so. seconds_extra: of the deadline, for what waits by design.
    """

    name: str
    command: str
    arguments: tuple[str, ...]
    outcome: Callable[[Path], Outcome]
    result: str
    base: str | None = None
    prepare: Callable[[Path], None] = field(default=lambda work: None)
    begins_anew: str | None = None
    goes_on: bool = False
    tracked: bool = False
    server: bool = False
    seconds_extra: float = 0.0


def run_outcome(run_dir: Path) -> Outcome:
    """All that a training leaves: rows, weights, rollouts, the policy, the comparison, the names of its files."""
    paths = RunPaths(run_dir)
    rows, hashes = learned(run_dir)
    parts = {"metric rows": json.dumps(rows), **hashes}
    for table in sorted(paths.rollouts.glob("iteration_*.parquet")):
        parts[f"rollouts/{table.name}"] = _digest(repr(pq.read_table(table).to_pylist()).encode())
    parts["policy.json"] = _digest((paths.policy / "policy.json").read_bytes())
    parts["evaluation.json"] = _digest(json.dumps(_unmeasured(json.loads(paths.evaluation_file.read_text()))).encode())
    parts["summary.json"] = _digest(json.dumps(_unmeasured(json.loads(paths.summary_file.read_text()))).encode())
    return parts | _files(run_dir)


def _training(work: Path) -> Outcome:
    return run_outcome(work / RUN)


def _sweep(work: Path) -> Outcome:
    folder = work / RUN
    parts: Outcome = {}
    for trial in sorted((folder / "trials").iterdir()):
        parts |= {f"{trial.name}/{name}": value for name, value in run_outcome(trial).items()}
    table = pd.read_csv(folder / "summary.csv").drop(columns=list(MEASURED))
    parts["summary.csv"] = table.to_csv(index=False)
    book = json.loads((folder / "trials.json").read_text())["trials"]
    parts["trials.json"] = json.dumps([[trial["name"], trial["status"]] for trial in book])
    return parts | {"files of the sweep": " ".join(sorted(path.name for path in folder.iterdir()))}


def _search(work: Path) -> Outcome:
    names = ("search.jsonl", "schedule.json", "search.json")
    return {name: _digest((work / RUN / name).read_bytes()) for name in names} | _files(work / RUN)


def _pretraining(work: Path) -> Outcome:
    weights = sorted((work / RUN).glob("*.safetensors"))
    return {path.name: _digest(path.read_bytes()) for path in weights} | _files(work / RUN)


def _export(work: Path) -> Outcome:
    folder = work / "policy"
    return {path.name: _digest(path.read_bytes()) for path in sorted(folder.iterdir())} | _files(folder)


def _evaluation(work: Path) -> Outcome:
    content = json.loads((work / "numbers.json").read_text())
    left = " ".join(sorted(path.name for path in work.iterdir()))
    return {"numbers.json": json.dumps(_unmeasured(content)), "files": left}


def _report(work: Path) -> Outcome:
    page = (work / RUN / "report.html").read_text()
    return {"end of page": page.rstrip()[-7:], "run": json.dumps(_training(work))}


def _files(folder: Path) -> Outcome:
    """Names of all files, and of those that were put aside as damaged, as they were called before."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    aside = [name.replace("damaged/", "") for name in names if "damaged/" in name]
    return {"files": " ".join(name for name in names if "damaged" not in name), PUT_ASIDE: " ".join(aside)}


def _unmeasured(content: Any) -> Any:
    """JSON without what a clock decides."""
    if isinstance(content, dict):
        return {
            key: _unmeasured(value) for key, value in content.items() if "second" not in key and "_per_s" not in key
        }
    return [_unmeasured(value) for value in content] if isinstance(content, list) else content


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_sweep(work: Path) -> None:
    content = {
        "title": "Two rewards",
        "arms": {"adversarial": {"reward.kind": "adversarial"}, "fid": {"reward.kind": "fid"}},
        "settings": {**SWEEP_SETTINGS, "training.num_iterations": 2},
    }
    (work / SWEEP_FILE).write_text(yaml.safe_dump(content))


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("train", "train", (*_TRAIN, *tiny.IN_PROCESS), _training, RUN, goes_on=True),
        Workload(
            "train with actors",
            "train",
            (
                *_TRAIN,
                "resources.num_env_runners=1",
                "resources.num_reward_actors=1",
                "resources.num_learners=1",
                "resources.num_cpus_per_env_runner=0.5",
                "resources.num_cpus_per_reward_actor=0.5",
                "resources.num_cpus_per_learner=0.5",
            ),
            _training,
            RUN,
            goes_on=True,
            seconds_extra=180,
        ),
        Workload("train tracked", "train", _TRACKED, _training, RUN, goes_on=True, tracked=True, seconds_extra=60),
        Workload(
            "train tracked by a server",
            "train",
            (*_TRACKED, f"tracking.uri={URI}"),
            _training,
            RUN,
            goes_on=True,
            tracked=True,
            server=True,
            seconds_extra=120,
        ),
        Workload(
            "resume",
            "train",
            (*_TRAIN, *tiny.IN_PROCESS, "training.num_iterations=6"),
            _training,
            RUN,
            base="train",
            goes_on=True,
        ),
        Workload(
            "sweep",
            "sweep",
            (SWEEP_FILE, "--run-dir", RUN),
            _sweep,
            RUN,
            prepare=_write_sweep,
            goes_on=True,
            seconds_extra=120,
        ),
        Workload(
            "search",
            "search",
            (
                "search.num_generations=2",
                "search.population=4",
                "search.num_seeds=2",
                "evaluation.num_images=32",
                "--run-dir",
                RUN,
            ),
            _search,
            RUN,
            goes_on=True,
        ),
        Workload(
            "pretrain",
            "pretrain",
            (
                "pretraining.num_steps=12",
                "pretraining.num_classifier_steps=5",
                "pretraining.width=16",
                "pretraining.depth=1",
                "pretraining.num_heads=2",
                "pretraining.vocab_size=16",
                "evaluation.num_images=64",
                "evaluation.num_seeds=2",
                "tracking.enabled=false",
                "--run-dir",
                RUN,
            ),
            _pretraining,
            RUN,
            begins_anew="is not empty",
        ),
        Workload("export", "export", ("--run-dir", RUN, "--output", "policy"), _export, "policy", base="train"),
        Workload(
            "evaluate",
            "evaluate",
            ("--policy", f"{RUN}/policy", *_EVALUATION, "tracking.enabled=false", "--output", "numbers.json"),
            _evaluation,
            "numbers.json",
            base="train",
        ),
        Workload("report", "report", ("--run-dir", RUN), _report, f"{RUN}/report.html", base="train"),
    )
}


def run_folders(workload: Workload, work: Path) -> list[Path]:
    """Folders that `audit` checks afterwards."""
    if workload.command == "sweep":
        return sorted((work / RUN / "trials").iterdir())
    return [work / RUN] if workload.command == "train" else []


def written_rows(work: Path) -> int:
    """Rows of metrics.jsonl so far."""
    return len(read_json_lines(work / RUN / "metrics.jsonl"))
