"""The sweeps of `tune_configs/` that a laptop can run, each with tiny trainings."""

from __future__ import annotations

from pathlib import Path

import pytest

from adanat_rl.config.loading import load_file
from tests.tiny_sweeps import SETTINGS, book, sweep, write_sweep

FILES = sorted((Path(__file__).parents[2] / "tune_configs").glob("*.yaml"))
ON_A_LAPTOP = [file for file in FILES if load_file(file)["preset"] == "digits"]


@pytest.mark.parametrize("file", ON_A_LAPTOP, ids=lambda file: file.stem)
def test_every_sweep_of_a_laptop_runs(file: Path, tmp_path: Path) -> None:
    """The whole file, with two of its arms and values, and with tiny trainings."""
    content = load_file(file)
    content["arms"] = dict(list(content.get("arms", {}).items())[:2])
    for parameter in content.get("parameters", {}).values():
        if "grid" in parameter:
            parameter["grid"] = parameter["grid"][:1] if len(content["parameters"]) > 1 else parameter["grid"][:2]
    content["seeds"] = 1
    content.setdefault("search", {}).update({"num_samples": 2})
    if "scheduler" in content:
        content["scheduler"]["grace_iterations"] = 1
    content["settings"] = {**content["settings"], **SETTINGS, "training.num_iterations": 2}
    for settings in content["arms"].values():
        if "reward.fid.group_size" in settings:
            settings["reward.fid.group_size"] = 8
    result = sweep(write_sweep(tmp_path, content), tmp_path / "sweep")
    assert result.returncode == 0, result.stderr
    statuses = [trial["status"] for trial in book(tmp_path / "sweep").values()]
    assert len(statuses) in {1, 2}
    assert set(statuses) <= {"finished", "stopped"}
    assert "finished" in statuses
    assert (tmp_path / "sweep" / "report.html").exists()
