"""Who may write into a run folder, and which folder belongs to which run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adanat_rl.config.errors import UserError
from adanat_rl.config.files import read_json_lines
from adanat_rl.config.loading import resolve
from adanat_rl.experiment.metrics_log import MetricsLog
from adanat_rl.experiment.run_folder import RunFolder


def test_the_same_settings_find_their_folder_again(tmp_path: Path) -> None:
    config = resolve(overrides=["ppo.lr=1e-3"])
    for _ in range(2):
        folder = RunFolder(tmp_path / "run")
        folder.prepare(config)
        folder.release()
    assert RunFolder(tmp_path / "run").saved_config() == config


@pytest.mark.parametrize(
    ("override", "refused"),
    [
        ("ppo.lr=1e-3", "ppo.lr"),
        ("seed=5", "seed"),
        ("policy.kind=static", "policy.kind"),
        ("reward.adversarial.num_updates=5", "reward.adversarial.num_updates"),
        ("training.num_iterations=9", None),
        ("resources.num_env_runners=0", None),
        ("tracking.enabled=false", None),
        ("checkpoints.keep=5", None),
        ("ppo.features=recompute", None),
        ("data.max_damaged=40", None),
    ],
)
def test_settings_that_decide_what_is_learned_must_not_change(
    tmp_path: Path, override: str, refused: str | None
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.prepare(resolve())
    folder.release()
    MetricsLog(folder.metrics_file).append({"iteration": 1})
    again = RunFolder(tmp_path / "run")
    if refused is None:
        again.prepare(resolve(overrides=[override]))
        again.release()
    else:
        with pytest.raises(UserError, match=rf"belongs to another run: {refused} is"):
            again.prepare(resolve(overrides=[override]))


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="is no run folder"):
        RunFolder(tmp_path).prepare(resolve())
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="is a file"):
        RunFolder(tmp_path / "run").prepare(resolve())


HOLD = """
import sys, time
from pathlib import Path
from adanat_rl.config.loading import resolve
from adanat_rl.experiment.run_folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
folder.prepare(resolve())
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_writer_is_refused_until_the_first_one_dies_however_it_dies(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"in use by process {holder.pid} on"):
            RunFolder(tmp_path / "run").prepare(resolve())
    finally:
        holder.kill()
        holder.wait()
    folder = RunFolder(tmp_path / "run")
    folder.prepare(resolve())
    folder.release()


def test_the_environment_is_kept_with_the_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.prepare(resolve())
    folder.release()
    environment = json.loads(folder.environment_file.read_text())
    assert environment["packages"]["torch"].startswith("2.")
    assert environment["num_cpus"] == os.cpu_count()
    revision = environment["git_revision"]
    assert revision is None or len(revision.removesuffix("+changes")) == 40


def test_a_metrics_file_that_was_cut_off_loses_only_its_last_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for iteration in range(4):
        log.append({"iteration": iteration, "value": iteration / 3})
    path.write_text(path.read_text()[:-7])
    assert [row["iteration"] for row in read_json_lines(path)] == [0, 1, 2]
    log.cut_after(1)
    log.append({"iteration": 2, "value": 0.0})
    assert [row["iteration"] for row in read_json_lines(path)] == [0, 1, 2]
    assert read_json_lines(path)[1]["value"] == 1 / 3


def test_a_number_that_is_none_is_refused_rather_than_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        MetricsLog(tmp_path / "m.jsonl").append({"iteration": 0, "value": float("nan")})
