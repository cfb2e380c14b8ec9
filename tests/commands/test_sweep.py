"""Real sweeps, tiny: what they leave, what a kill, an interrupt and a failing trial cost."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path

import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient

from adanat_rl.experiment.checkpoints import checkpoint_folders
from adanat_rl.plots.ablation.tables import MEASURED
from benchmarks.resume import outcome
from tests import tiny
from tests.experiment.waiting import rows_of, wait_for
from tests.tiny_sweeps import SETTINGS, book, sweep, write_sweep

TWO_ARMS = {
    "title": "Two rewards",
    "arms": {"adversarial": {"reward.kind": "adversarial"}, "fid": {"reward.kind": "fid"}},
    "settings": {**SETTINGS, "tracking.enabled": True},
}


def without_clocks(run_dir: Path) -> pd.DataFrame:
    return pd.read_csv(run_dir / "summary.csv").drop(columns=list(MEASURED))


def mlflow_runs(run_dir: Path) -> list:
    client = MlflowClient(f"sqlite:///{run_dir.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("adanat-rl")
    return client.search_runs([experiment.experiment_id])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep that nothing disturbed."""
    folder = tmp_path_factory.mktemp("sweeps")
    result = sweep(write_sweep(folder, TWO_ARMS), folder / "runs" / "try")
    assert result.returncode == 0, result.stderr
    return folder / "runs" / "try"


def test_a_sweep_leaves_a_run_folder_for_each_trial_and_one_report(finished: Path) -> None:
    trials = book(finished)
    assert list(trials) == ["000-adversarial-seed0", "001-fid-seed0"]
    assert {trial["status"] for trial in trials.values()} == {"finished"}
    for trial in trials.values():
        folder = finished / trial["folder"]
        assert rows_of(folder) == 4
        assert (folder / "report.html").exists()
        assert tiny.run("audit", "--run-dir", str(folder)).returncode == 0
    table = pd.read_csv(finished / "summary.csv")
    assert list(table["arm"]) == ["adversarial", "fid"]
    assert "Two rewards" in (finished / "report.html").read_text()
    assert not (finished / "tune").exists(), "nothing of Tune's own is kept"


def test_mlflow_has_one_parent_and_one_run_for_each_trial(finished: Path) -> None:
    runs = {run.data.tags["adanat_rl.kind"]: run for run in mlflow_runs(finished)}
    assert len(mlflow_runs(finished)) == 3
    parent = runs["sweep"]
    children = [run for run in mlflow_runs(finished) if run.data.tags["adanat_rl.kind"] == "training"]
    assert [run.data.tags["mlflow.parentRunId"] for run in children] == 2 * [parent.info.run_id]
    assert {run.info.status for run in mlflow_runs(finished)} == {"FINISHED"}
    artifacts = {
        file.path
        for file in MlflowClient(f"sqlite:///{finished.parent / 'mlflow.db'}").list_artifacts(parent.info.run_id)
    }
    assert {"report.html", "summary.csv", "sweep.yaml", "trials.json"} <= artifacts


def test_the_same_command_on_a_finished_sweep_trains_nothing(finished: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in finished.glob("trials/*/metrics.jsonl")}
    result = sweep(finished.parents[1] / "try.yaml", finished)
    assert result.returncode == 0, result.stderr
    assert "2 of 2 trials are done" in result.stdout
    assert before == {file: file.stat().st_mtime_ns for file in finished.glob("trials/*/metrics.jsonl")}
    assert len(mlflow_runs(finished)) == 3


def test_interrupted_and_killed_the_same_command_ends_with_the_same_table(finished: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "try"
    file = write_sweep(tmp_path, TWO_ARMS)
    command = [str(file), "--run-dir", str(run_dir)]

    process = tiny.start("sweep", *command)
    wait_for(lambda: any(rows_of(folder) >= 2 for folder in run_dir.glob("trials/*")), process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 130, errors
    assert "go on with: adanat-rl sweep" in output
    assert {run.info.status for run in mlflow_runs(run_dir)} <= {"KILLED", "FINISHED"}
    assert "running" not in {trial["status"] for trial in book(run_dir).values()}

    process = tiny.start("sweep", *command)
    wait_for(lambda: any(trial["status"] == "running" for trial in book(run_dir).values()), process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert [child.name() for child in alive] == [], "nothing outlives its driver"

    result = sweep(file, run_dir)
    assert result.returncode == 0, result.stderr
    for name, trial in book(run_dir).items():
        assert trial["status"] == "finished"
        assert outcome(run_dir / trial["folder"]) == outcome(finished / "trials" / name)
    pd.testing.assert_frame_equal(without_clocks(run_dir), without_clocks(finished), check_exact=True)
    runs = mlflow_runs(run_dir)
    assert len(runs) == 3
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_trial_that_fails_says_why_and_takes_nothing_down(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "from adanat_rl.rewards.base import RewardModel\n"
        "class Broken(RewardModel):\n"
        "    def score(self, batch):\n"
        "        raise ArithmeticError('the moon is full')\n"
    )
    content = {
        "arms": {"broken": {"reward.kind": "broken:Broken"}, "fid": {"reward.kind": "fid"}},
        "settings": {
            **SETTINGS,
            "training.num_iterations": 1,
            "resources.num_env_runners": 1,  # actors of their own, in the placement group of the trial
            "resources.num_reward_actors": 1,
            "resources.max_reward_retries": 1,
        },
        "resources": {"cpus_per_trial": 0.4},
    }
    run_dir = tmp_path / "sweep"
    result = tiny.run("sweep", str(write_sweep(tmp_path, content)), "--run-dir", str(run_dir), cwd=tmp_path)
    assert result.returncode == 1
    assert "1 of 2 trials failed, such as 000-broken-seed0" in result.stderr
    assert "the moon is full" in result.stderr
    assert "go on with: adanat-rl sweep" in result.stderr
    trials = book(run_dir)
    assert trials["001-fid-seed0"]["status"] == "finished"
    assert trials["000-broken-seed0"]["status"] == "failed"
    assert "the moon is full" in trials["000-broken-seed0"]["reason"]
    assert "Traceback" in (run_dir / "trials" / "000-broken-seed0" / "trial.log").read_text()
    assert "the moon is full" in (run_dir / "report.html").read_text()


def test_a_driver_that_fails_leaves_no_trial_done(tmp_path: Path) -> None:
    run_dir = tmp_path / "sweep"
    content = {**TWO_ARMS, "settings": {**SETTINGS, "training.num_iterations": 500, "tracking.enabled": False}}
    process = tiny.start("sweep", str(write_sweep(tmp_path, content)), "--run-dir", str(run_dir))
    wait_for(lambda: any(rows_of(folder) >= 2 for folder in run_dir.glob("trials/*")), process)
    (run_dir / "trials.json").unlink(missing_ok=True)
    (run_dir / "trials.json").mkdir()  # the book of the driver cannot be written any more
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 1, errors
    assert "trials.json" in errors.splitlines()[0]
    assert "unexpected" not in errors
    assert "go on with: adanat-rl sweep" in errors
    notes = [json.loads(file.read_text()) for file in run_dir.glob("trials/*/trial.json")]
    assert notes
    assert {note["status"] for note in notes} <= {"interrupted", "pending", "running"}


@pytest.mark.parametrize("title", ["ray::Trial", "ray::ResourceTrainable.train"])
def test_a_trial_that_is_stopped_for_ever_fails_by_name_and_goes_on_with_the_next_start(
    title: str, tmp_path: Path
) -> None:
    run_dir = tmp_path / "sweep"
    settings = {**SETTINGS, "training.num_iterations": 4, "resources.cluster_timeout_s": 3}
    file = write_sweep(tmp_path, {**TWO_ARMS, "settings": settings})
    process = tiny.start("sweep", str(file), "--run-dir", str(run_dir))

    victims: list[psutil.Process] = []

    def has_begun() -> bool:
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if (child.cmdline() or [""])[0].startswith(title):
                    victims.append(child)
        return bool(victims)

    wait_for(has_begun, process)
    victim = victims[0]
    victim.suspend()
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 1, errors
    assert f"its process {victim.pid} had been stopped for resources.cluster_timeout_s = 3 s and was ended" in errors
    assert "1 of 2 trials failed" in errors
    result = sweep(file, run_dir)
    assert result.returncode == 0, result.stderr
    assert {trial["status"] for trial in book(run_dir).values()} == {"finished"}


def test_a_trial_in_a_long_iteration_hears_the_signal(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\nfrom adanat_rl.rewards.base import RewardModel, RewardOutput\n"
        "class Slow(RewardModel):\n"
        "    calls = 0\n"
        "    def score(self, batch):\n"
        "        Slow.calls += 1\n"
        "        if Slow.calls > 8:\n"
        "            open('slow.txt', 'w').close()\n"
        "            time.sleep(600)\n"
        "        return RewardOutput(batch.images.mean(dim=(1, 2, 3)), {})\n"
    )
    settings = {**SETTINGS, "training.num_iterations": 50, "resources.reward_timeout_s": 900}
    content = {"arms": {"slow": {"reward.kind": "slow:Slow"}}, "settings": settings}
    run_dir = tmp_path / "sweep"
    process = tiny.start("sweep", str(write_sweep(tmp_path, content)), "--run-dir", str(run_dir), cwd=tmp_path)
    wait_for(lambda: (tmp_path / "slow.txt").exists(), process)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 143, errors
    assert "stopped with 0 of 1 trials done; go on with: adanat-rl sweep" in output
    (trial,) = book(run_dir).values()
    assert trial["status"] == "interrupted"
    told = [line for line in output.splitlines() if line.startswith("000-slow-seed0")]
    assert told[-1].endswith("  interrupted"), "what goes on later has not finished"
    folder = run_dir / trial["folder"]
    assert rows_of(folder) - 1 == max(checkpoint_folders(folder / "checkpoints"))
