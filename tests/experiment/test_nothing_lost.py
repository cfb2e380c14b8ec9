"""What must never be lost or wrong in silence: histories, results, the best policy, work under way."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from adanat_rl.config.files import read_json_lines
from adanat_rl.experiment.checkpoints import checkpoint_folders, newest_readable
from adanat_rl.experiment.experiment import write_comparison
from adanat_rl.experiment.gallery import write_gallery, write_sample_grid
from adanat_rl.experiment.run_folder import RunFolder
from adanat_rl.generation.pipeline import load_pipeline
from benchmarks.resume import outcome
from tests import tiny
from tests.conftest import FinishedRun
from tests.experiment.waiting import DEADLINE_S, rows_of, wait_for

MORE = "training.num_iterations=6"


@pytest.fixture
def run_dir(tmp_path: Path, finished: FinishedRun) -> Path:
    """A copy of a finished run of four iterations."""
    shutil.copytree(finished.run_dir, tmp_path / "run")
    return tmp_path / "run"


def damage(folder: Path) -> None:
    file = folder / "learner.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    file.write_bytes(b"x" + file.read_bytes()[1:])


def test_a_diverged_run_never_pushes_a_good_checkpoint_out(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    arguments = ("ppo.lr=1e20", *tiny.IN_PROCESS, "checkpoints.keep=2")
    for _ in range(3):
        result = tiny.train(run_dir, *arguments)
        assert result.returncode == 1, result.stdout
        assert "training has diverged" in result.stderr
        assert "unexpected" not in result.stderr
        found = checkpoint_folders(run_dir / "checkpoints")
        last = max(found)
        assert f"safe: checkpoint after iteration {last} " in result.stderr
        snapshot, problems = newest_readable(run_dir / "checkpoints")
        assert snapshot is not None
        assert problems == []
        assert snapshot.iteration == last
        assert [row["iteration"] for row in read_json_lines(run_dir / "metrics.jsonl")] == list(range(last + 1))


def test_with_all_checkpoints_damaged_no_start_begins_from_zero(run_dir: Path) -> None:
    rows = (run_dir / "metrics.jsonl").read_bytes()
    (run_dir / "summary.json").unlink()
    for folder in checkpoint_folders(run_dir / "checkpoints").values():
        damage(folder)
    for _ in range(2):
        result = tiny.train(run_dir, *tiny.IN_PROCESS)
        assert result.returncode == 1
        assert "--start-over" in result.stderr
        assert (run_dir / "metrics.jsonl").read_bytes() == rows
        assert len(list((run_dir / "rollouts").iterdir())) == 4
    shutil.rmtree(run_dir / "checkpoints")
    result = tiny.train(run_dir, *tiny.IN_PROCESS)
    assert result.returncode == 1
    assert "--start-over" in result.stderr
    assert (run_dir / "metrics.jsonl").read_bytes() == rows


def test_starting_over_is_typed_and_keeps_what_was(run_dir: Path, uninterrupted) -> None:
    for folder in checkpoint_folders(run_dir / "checkpoints").values():
        damage(folder)
    process = tiny.start("train", *tiny.OVERRIDES, *tiny.IN_PROCESS, "--run-dir", str(run_dir), "--start-over")
    wait_for(lambda: any(run_dir.glob("before_start_over_*")) and rows_of(run_dir) >= 2, process)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 143, errors
    assert "go on with: adanat-rl train" in output
    assert "--start-over" not in output, "what goes on does not begin anew"
    result = tiny.train(run_dir, *tiny.IN_PROCESS)
    assert result.returncode == 0, result.stderr
    assert outcome(run_dir) == uninterrupted
    (aside,) = run_dir.glob("before_start_over_*")
    assert len(read_json_lines(aside / "metrics.jsonl")) == 5


def test_a_damaged_row_in_the_middle_costs_only_itself(run_dir: Path) -> None:
    file = run_dir / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    lines[2] = b'{"iteration": 2, "reward/mea\xff\n'
    file.write_bytes(b"".join(lines))
    audit = tiny.run("audit", "--run-dir", str(run_dir))
    assert audit.returncode == 1
    assert "PROBLEM metric rows: line 3" in audit.stdout
    result = tiny.train(run_dir, *tiny.IN_PROCESS, MORE)
    assert result.returncode == 0, result.stderr
    assert "metrics.jsonl: line 3" in result.stdout + result.stderr
    assert [row["iteration"] for row in read_json_lines(file)] == [0, 1, 3, 4, 5, 6]
    assert b"\xff" in (run_dir / "metrics.damaged").read_bytes()


def test_a_turned_bit_in_a_number_of_a_row_is_told_and_goes_on_being_told(run_dir: Path) -> None:
    file = run_dir / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    digit = re.search(rb'"reward/mean": 0\.(\d)', lines[2])
    assert digit is not None
    place = digit.start(1)
    lines[2] = lines[2][:place] + bytes([lines[2][place] ^ 1]) + lines[2][place + 1 :]
    file.write_bytes(b"".join(lines))
    result = tiny.train(run_dir, *tiny.IN_PROCESS, MORE)
    assert result.returncode == 0, result.stderr
    assert "metrics.jsonl: line 3: not as it was written" in result.stdout + result.stderr
    assert [row["iteration"] for row in read_json_lines(file)] == list(range(7))
    audit = tiny.run("audit", "--run-dir", str(run_dir))
    assert audit.returncode == 1
    assert "PROBLEM metric rows: line 3: not as it was written" in audit.stdout
    report = tiny.run("report", "--run-dir", str(run_dir))
    assert report.returncode == 0, report.stderr
    assert "line 3: not as it was written" in (run_dir / "report.html").read_text()


def test_the_settings_of_a_damaged_checkpoint_are_not_believed(run_dir: Path) -> None:
    newest = max((run_dir / "checkpoints").glob("iteration_*"))
    state = newest / "state.json"
    text = state.read_text()
    assert '"text.pad_token_id": 0' in text
    state.write_text(text.replace('"text.pad_token_id": 0', '"text.pad_token_id": 4'))
    result = tiny.train(run_dir, *tiny.IN_PROCESS, MORE)
    assert result.returncode == 0, result.stderr
    assert f"{newest.name}/state.json differs from the manifest" in result.stdout + result.stderr


def test_a_turned_bit_in_any_column_of_a_rollout_table_is_told(run_dir: Path) -> None:
    table = run_dir / "rollouts" / "iteration_000002.parquet"
    seeds = pq.ParquetFile(table).metadata.row_group(0).column(4)
    assert seeds.path_in_schema == "seed"
    data = bytearray(table.read_bytes())
    data[seeds.dictionary_page_offset + seeds.total_compressed_size - 4] ^= 1
    table.write_bytes(data)
    audit = tiny.run("audit", "--run-dir", str(run_dir))
    assert audit.returncode == 1
    assert "iteration_000002.parquet is not the file that the run wrote" in audit.stdout


def test_an_evaluation_that_somebody_asks_for_leaves_the_run_s_own_result_alone(run_dir: Path) -> None:
    own = (run_dir / "evaluation.json").read_bytes()
    settings = ("tracking.enabled=false", "evaluation.num_images=64", "evaluation.num_seeds=2")
    result = tiny.run("evaluate", str(run_dir), *settings)
    assert result.returncode == 0, result.stderr
    assert (run_dir / "evaluation.json").read_bytes() == own
    (file,) = (run_dir / "evaluations").iterdir()
    assert file.name.startswith("run_")
    policy = json.loads(file.read_text())["rows"][0]
    assert policy["title"] == "adaptive, T = 4 (run)"
    assert policy["summary"]["fd_a"]["mean"] == json.loads(own)["rows"][0]["summary"]["fd_a"]["mean"]


def test_an_evaluation_without_a_run_begins_no_run_folder(tmp_path: Path) -> None:
    settings = ("tracking.enabled=false", "evaluation.num_images=64", "evaluation.num_seeds=2")
    result = tiny.run("evaluate", *settings, "evaluation.reference=null", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert [entry.name for entry in (tmp_path / "runs").iterdir()] == ["evaluations"]
    (tmp_path / "my_policy.py").write_text(
        "def schedule(generator):\n    rows = generator.decision_space.base_schedule\n"
        "    return lambda seen: rows[seen.step].expand(len(seen.context), -1)\n"
    )
    own = tiny.run("evaluate", "my_policy:schedule", *settings, "evaluation.reference=null", cwd=tmp_path)
    assert own.returncode == 0, own.stderr
    assert any(file.name.startswith("my_policy-schedule_") for file in (tmp_path / "runs" / "evaluations").iterdir())
    none = tiny.run("evaluate", "runs/nothing", cwd=tmp_path)
    assert none.returncode == 2
    assert "runs/nothing: there is none; expected a run folder" in none.stderr


def test_a_run_folder_alone_goes_on_with_its_settings(run_dir: Path) -> None:
    result = tiny.run("train", "--run-dir", str(run_dir), "training.num_iterations=5")
    assert result.returncode == 0, result.stderr
    assert "going on after iteration 4 of 5" in result.stdout
    assert rows_of(run_dir) == 6


def test_another_metric_of_the_best_evaluation_is_counted_anew(run_dir: Path) -> None:
    result = tiny.train(run_dir, *tiny.IN_PROCESS, MORE, "evaluation.metric=fd_b")
    assert result.returncode == 0, result.stderr
    assert "evaluation.metric is fd_b now" in result.stdout + result.stderr
    assert set(json.loads((run_dir / "summary.json").read_text())["best_during_training"]) == {"iteration", "fd_b"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"iterations": "many"}'])
def test_a_damaged_summary_is_made_again(run_dir: Path, content: str) -> None:
    (run_dir / "summary.json").write_text(content)
    result = tiny.train(run_dir, *tiny.IN_PROCESS)
    assert result.returncode == 0, result.stderr
    assert json.loads((run_dir / "summary.json").read_text())["iterations"] == 4


def test_the_last_policy_never_stands_in_for_a_damaged_best_one(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    arguments = (*tiny.IN_PROCESS, "checkpoints.keep_best=true", "checkpoints.final=best")
    assert tiny.train(run_dir, *arguments).returncode == 0
    (best,) = checkpoint_folders(run_dir / "checkpoints" / "best").values()
    damage(best)
    (run_dir / "summary.json").unlink()
    for _ in range(2):
        result = tiny.train(run_dir, *arguments)
        assert result.returncode == 1, result.stdout
        assert "best evaluation" in result.stderr
        assert "checkpoints.final=last" in result.stderr
    audit = tiny.run("audit", "--run-dir", str(run_dir))
    assert audit.returncode == 1
    assert "PROBLEM best checkpoint" in audit.stdout
    assert tiny.train(run_dir, *arguments, "checkpoints.final=last").returncode == 0


def test_a_run_that_stopped_early_says_what_goes_on_and_does(run_dir: Path) -> None:
    stale = json.loads((run_dir / "summary.json").read_text())["num_stale_evaluations"]
    hopeless = (*tiny.IN_PROCESS, "evaluation.early_stop_min_delta=1000", "training.num_iterations=50")
    stopped = tiny.train(run_dir, *hopeless, f"evaluation.early_stop_patience={stale + 1}")
    assert stopped.returncode == 0, stopped.stderr
    assert rows_of(run_dir) == 7, "one evaluation after the change, and it is no better"
    again = tiny.train(run_dir, *hopeless, f"evaluation.early_stop_patience={stale + 1}", "training.num_iterations=60")
    assert "evaluation.early_stop_patience" in again.stdout
    assert rows_of(run_dir) == 7
    more = tiny.train(run_dir, *hopeless, f"evaluation.early_stop_patience={stale + 2}")
    assert more.returncode == 0, more.stderr
    assert rows_of(run_dir) == 9


def test_a_report_that_cannot_be_written_is_one_line(run_dir: Path) -> None:
    (run_dir / "summary.json").unlink()
    (run_dir / "report.html").unlink()
    (run_dir / "report.html").mkdir()
    result = tiny.train(run_dir, *tiny.IN_PROCESS)
    assert result.returncode == 1
    assert "report.html" in result.stderr.splitlines()[0]
    assert "unexpected" not in result.stderr
    assert "go on with" in result.stderr


def test_a_run_folder_that_is_deleted_ends_the_run_by_name(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    arguments = (*tiny.OVERRIDES, *tiny.IN_PROCESS, "training.num_iterations=1000", "--run-dir", str(run_dir))
    process = tiny.start("train", *arguments)
    wait_for(lambda: rows_of(run_dir) >= 2, process)
    run_dir.rename(tmp_path / "elsewhere")
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    lines = errors.splitlines()
    assert "was deleted or moved" in lines[0]
    assert lines[-1].startswith("  go on with: adanat-rl train ")
    written = [str(path) for path in run_dir.rglob("*")]
    assert written == [], "nothing is written where the folder was"


def test_a_run_folder_that_is_deleted_in_the_final_comparison_is_not_begun_again(run_dir: Path) -> None:
    (run_dir / "summary.json").unlink()
    (run_dir / "evaluation.json").unlink()
    shutil.rmtree(run_dir / "policy")
    arguments = (*tiny.OVERRIDES, *tiny.IN_PROCESS, "evaluation.num_seeds=500", "--run-dir", str(run_dir))
    process = tiny.start("train", *arguments)
    wait_for(lambda: (run_dir / "policy" / "policy.json").exists(), process)
    run_dir.rename(run_dir.with_name("elsewhere"))
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1, errors
    assert "was deleted or moved" in errors.splitlines()[0]
    assert not run_dir.exists()


def test_what_ends_a_run_is_never_written_where_its_folder_was(run_dir: Path) -> None:
    """It may go at any moment, between two files too."""
    folder, pipeline = RunFolder(run_dir), load_pipeline("asset:digits/policy")
    comparison = SimpleNamespace(as_dict=dict, decisions=np.zeros((1, 4, 4)), context=np.zeros(1))
    shutil.rmtree(run_dir)
    for write in (
        lambda: write_comparison(folder, comparison, 4),
        lambda: write_gallery(folder.samples / "gallery.npz", pipeline, 4),
        lambda: write_sample_grid(folder.samples / "iteration_000004.png", pipeline, 4),
    ):
        with pytest.raises(FileNotFoundError):
            write()
    assert not run_dir.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_heard_in_the_final_comparison(run_dir: Path, number: int, uninterrupted) -> None:
    (run_dir / "summary.json").unlink()
    (run_dir / "evaluation.json").unlink()
    shutil.rmtree(run_dir / "policy")
    arguments = (*tiny.OVERRIDES, *tiny.IN_PROCESS, "--run-dir", str(run_dir))
    process = tiny.start("train", *arguments, "evaluation.num_seeds=500")
    wait_for(lambda: (run_dir / "policy" / "policy.json").exists(), process)
    process.send_signal(number)
    process.send_signal(number)  # a scheduler that repeats itself changes nothing
    output, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 128 + number, errors
    assert "stopped after iteration 4, checkpoint written; go on with: adanat-rl train" in output
    assert tiny.run("train", *arguments).returncode == 0
    assert outcome(run_dir) == uninterrupted


def test_a_signal_while_ray_starts_has_its_status(tmp_path: Path) -> None:
    process = tiny.start("train", *tiny.OVERRIDES, "--run-dir", str(tmp_path / "run"))
    driver = psutil.Process(process.pid)
    wait_for(lambda: any(child.name().startswith("gcs") for child in driver.children(recursive=True)), process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 143, errors
    assert len(errors.strip().splitlines()) <= 1


def test_signals_are_heard_in_a_search_and_in_pretraining(tmp_path: Path) -> None:
    search = tiny.start("search", "search.num_generations=500", "evaluation.num_images=64", cwd=tmp_path)
    history = tmp_path / "runs" / "digits-search" / "search.jsonl"
    wait_for(lambda: history.exists() and len(read_json_lines(history)) >= 2, search)
    search.send_signal(signal.SIGTERM)
    output, errors = search.communicate(timeout=DEADLINE_S)
    assert search.returncode == 143, errors
    assert "all kept; go on with: adanat-rl search" in output
    pretrain = tiny.start("pretrain", cwd=tmp_path)
    folder = tmp_path / "runs" / "digits-pretraining"
    progress = folder / ".unfinished" / "progress.json"
    wait_for(lambda: progress.exists() and '"tokenizer": {' in progress.read_text(), pretrain)
    pretrain.send_signal(signal.SIGINT)
    output, errors = pretrain.communicate(timeout=DEADLINE_S)
    assert pretrain.returncode == 130, errors
    assert "what is done is kept; go on with: adanat-rl pretrain" in output
    assert [entry.name for entry in folder.iterdir()] == [".unfinished"], "the same command goes on"
