"""Tiny sweeps that tests start: their settings, and what a sweep's folder says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import yaml

from tests import tiny

SETTINGS = {
    **dict(setting.split("=") for setting in (*tiny.OVERRIDES, *tiny.IN_PROCESS)),
    "resources.driver_threads": 1,
    "training.num_iterations": 3,
    "evaluation.interval_iterations": 1,
    "reward.fid.group_size": 8,
    "tracking.system_metrics": False,
}
SETTINGS = {key: yaml.safe_load(str(value)) for key, value in SETTINGS.items()}


def write_sweep(folder: Path, content: dict) -> Path:
    file = folder / "try.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def sweep(file: Path, run_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return tiny.run("sweep", str(file), "--run-dir", str(run_dir), *arguments)


def book(run_dir: Path) -> dict[str, dict]:
    return {trial["name"]: trial for trial in json.loads((run_dir / "trials.json").read_text())["trials"]}
