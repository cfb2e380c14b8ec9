"""The sweeps of `tune_configs/` that a laptop can run, each with tiny trainings."""

from __future__ import annotations

from pathlib import Path

import pytest

from adanat_rl.config.files import read_json_lines
from adanat_rl.config.loading import load_file
from adanat_rl.config.run_paths import RunPaths
from adanat_rl.experiment.cluster import usable_cpus
from tests.tiny_sweeps import SETTINGS, book, sweep, write_sweep

TUNE_CONFIGS = Path(__file__).parents[2] / "tune_configs"
FILES = sorted(TUNE_CONFIGS.glob("*.yaml"))
ON_A_LAPTOP = [file for file in FILES if load_file(file)["preset"] == "digits"]
ONE_AFTER_ANOTHER = {"resources": {"cpus_per_trial": usable_cpus()}}  # whoever is ahead does not depend on the clock


@pytest.mark.parametrize(
    "file", [file for file in ON_A_LAPTOP if file.stem != "population"], ids=lambda file: file.stem
)
def test_every_sweep_of_a_laptop_runs(file: Path, tmp_path: Path) -> None:
    """The whole file, with tiny trainings of its last arm or the last point of its grids."""
    content = load_file(file)
    content["arms"] = dict(list(content.get("arms", {}).items())[-1:])
    for parameter in content.get("parameters", {}).values():
        if "grid" in parameter:
            parameter["grid"] = parameter["grid"][-1:]
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


def test_trials_of_a_population_go_on_from_better_ones(tmp_path: Path) -> None:
    """The shipped file again, with two trials that take turns."""
    content = load_file(TUNE_CONFIGS / "population.yaml") | ONE_AFTER_ANOTHER
    content["search"]["num_samples"] = 2
    content["scheduler"]["grace_iterations"] = 1
    content["settings"] = {**content["settings"], **SETTINGS}
    folder = tmp_path / "sweep"
    result = sweep(write_sweep(tmp_path, content), folder)
    assert result.returncode == 0, result.stderr
    trials = book(folder)
    taken = [(trial, takeover) for trial in trials.values() for takeover in trial["takeovers"]]
    assert taken, result.stdout
    for trial, takeover in taken:
        assert takeover["from"] == 1 - trial["number"]
        assert f"{trial['name']}  goes on from trial {takeover['from']:03d}" in result.stdout
    for trial in trials.values():
        assert trial["status"] == "finished"
        run = RunPaths(folder / trial["folder"])
        assert [row["iteration"] for row in read_json_lines(run.metrics_file)] == [0, 1, 2, 3]
        last = trial["takeovers"][-1]["settings"] if trial["takeovers"] else trial["settings"]
        assert {key: trial["settings"][key] for key in content["parameters"]} == last
        trained_with = load_file(run.config_file)
        assert trained_with["ppo"]["lr"] == trial["settings"]["ppo.lr"]
