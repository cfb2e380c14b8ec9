"""Whatever fails or is killed in between: MLflow has each step of a run once, with the run's own values."""

from __future__ import annotations

import json
import sqlite3

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from adanat_rl.config.loading import leaf_fields
from adanat_rl.config.run_paths import RunPaths
from adanat_rl.tracking import mlflow_sink
from adanat_rl.tracking.mlflow_sink import open_tracker
from tests.plots.runs import comparison
from tests.tracking.feeding import append, client_of, config_with, only_run, points, runs_of, send, steps


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps whose next request fails after nothing was taken; each fails once."""
    asked: list[int] = []
    log_batch = MlflowClient.log_batch

    def failing(self, run_id, metrics=(), **others):
        if metrics and metrics[0].step in asked:
            asked.remove(metrics[0].step)
            raise MlflowException("API request failed with exception: connection refused")
        return log_batch(self, run_id, metrics=metrics, **others)

    monkeypatch.setattr(MlflowClient, "log_batch", failing)
    monkeypatch.setattr(mlflow_sink, "_RETRY_S", 0.01)
    return asked


def test_a_request_that_fails_loses_no_step(run: RunPaths, fails: list[int]) -> None:
    append(run, 0, 1, 2, 3)
    fails.append(1)
    told = send(run)
    client = client_of(run)
    assert steps(client, only_run(client).info.run_id) == [0, 1, 2, 3]
    assert told == []  # the store answered again before the end


def test_the_next_start_fills_holes_before_the_last_step(run: RunPaths) -> None:
    append(run, 0, 1)
    send(run)
    client = client_of(run)
    run_id = only_run(client).info.run_id
    client.log_batch(  # what an earlier version left behind: step 2 is missing
        run_id, metrics=[Metric(name, 3, 1700000003000, 3) for name in ("iteration", "unix_time_s")]
    )
    client.log_metric(run_id, "reward/mean", 1.0, timestamp=1700000003000, step=3)
    append(run, 2, 3)
    send(run, status="FINISHED")
    assert steps(client, run_id) == [0, 1, 2, 3]
    assert only_run(client).info.status == "FINISHED"


def test_half_a_row_is_made_whole(run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    from adanat_rl.tracking import mlflow_runs

    monkeypatch.setattr(mlflow_runs, "METRICS_OF_A_REQUEST", 2)
    append(run, 0, **{f"eval/{name}": 0.5 for name in "abcde"})
    log_batch, calls = MlflowClient.log_batch, []

    def first_only(self, run_id, metrics=(), **others):
        if metrics:
            calls.append(metrics)
            if len(calls) > 1:
                raise MlflowException("API request failed with exception: connection refused")
        return log_batch(self, run_id, metrics=metrics, **others)

    monkeypatch.setattr(MlflowClient, "log_batch", first_only)
    monkeypatch.setattr(mlflow_sink, "_CLOSING_ATTEMPTS", 1)
    monkeypatch.setattr(mlflow_sink, "_RETRY_S", 1000)
    send(run)
    client = client_of(run)
    run_id = only_run(client).info.run_id
    assert steps(client, run_id, "iteration") == []  # what tells of a whole row goes last
    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    send(run)
    for name in ("iteration", "reward/mean", *(f"eval/{letter}" for letter in "abcde")):
        assert steps(client, run_id, name) == [0], name


def test_a_history_that_was_written_again_with_the_same_values_adds_nothing(run: RunPaths) -> None:
    append(run, 0, 1, 2)
    send(run)
    run.metrics_file.write_text("")
    append(run, 0, 1)
    with run.metrics_file.open("a") as file:  # computed again later: the same numbers at another time
        again = {"iteration": 2, "unix_time_s": 1.8e9, "reward/mean": 2 / 3, "time/iteration_s": 7.0}
        file.write(json.dumps(again) + "\n")
    assert send(run) == []
    client = client_of(run)
    run_id = only_run(client).info.run_id
    assert steps(client, run_id) == [0, 1, 2]
    assert steps(client, run_id, "time/iteration_s") == [2]  # what was not there is added


def test_a_history_that_was_written_again_with_other_values_is_a_new_run_and_said(run: RunPaths) -> None:
    append(run, 0, 1, 2)
    send(run)
    client = client_of(run)
    old = only_run(client).info.run_id
    run.metrics_file.write_text("")
    append(run, 0, 1)
    with run.metrics_file.open("a") as file:
        file.write(json.dumps({"iteration": 2, "unix_time_s": 1.8e9, "reward/mean": 0.9}) + "\n")
    told = send(run, status="FINISHED")
    assert any("iteration 2" in line and "computed again with other values" in line for line in told)
    by_name = {found.info.run_name: found for found in runs_of(client)}
    assert sorted(by_name) == ["a", "a (superseded)"]
    assert by_name["a (superseded)"].info.run_id == old
    assert by_name["a (superseded)"].info.status == "KILLED"
    assert points(client, old) == [(0, 0), (1, 1 / 3), (2, 2 / 3)]
    assert points(client, by_name["a"].info.run_id) == [(0, 0), (1, 1 / 3), (2, 0.9)]
    append(run, 3)
    send(run)
    assert len(runs_of(client)) == 2  # the next start goes on with the new one
    assert steps(client, by_name["a"].info.run_id) == [0, 1, 2, 3]


def test_a_file_that_is_cut_and_longer_again_before_anyone_looks_is_read_anew(run: RunPaths) -> None:
    from adanat_rl.tracking.outbox import Outbox

    append(run, 0, 1, 2)
    outbox = Outbox(run.metrics_file)
    assert [row["iteration"] for row in outbox] == [0, 1, 2]
    assert list(outbox) == []
    run.metrics_file.write_text("")
    append(run, 0, 5, 6, 7, 8)
    assert [row["iteration"] for row in outbox] == [0, 5, 6, 7, 8]


def test_a_run_that_was_killed_before_its_settings_were_sent_gets_them(run: RunPaths) -> None:
    append(run, 0)
    send(run)
    client = client_of(run)
    run_id = only_run(client).info.run_id
    with sqlite3.connect(run.path.parent / "mlflow.db") as connection:
        connection.execute("DELETE FROM params WHERE key != 'seed'")
        connection.execute("DELETE FROM tags WHERE key LIKE 'mlflow.%'")
    send(run)
    found = client.get_run(run_id)
    keys = {key for key, _ in leaf_fields()}
    assert {"ppo.lr", "generator.horizon", "evaluation.num_seeds"} <= set(found.data.params) & keys
    assert len(found.data.params) > 100
    assert found.data.tags["mlflow.source.name"] == "adanat-rl train"


def test_a_finished_run_that_is_finished_again_sends_its_final_numbers_once(run: RunPaths) -> None:
    append(run, 0, 1)
    run.evaluation_file.write_text(json.dumps(comparison([0.2, 0.21])))
    send(run, status="FINISHED")
    client = client_of(run)
    run_id = only_run(client).info.run_id
    client.delete_tag(run_id, "adanat_rl.final_numbers")  # killed before it was noted
    run.evaluation_file.touch()
    send(run, status="FINISHED")
    assert len(client.get_metric_history(run_id, "final/policy/fd_a_mean")) == 1
    again = comparison([0.3, 0.31])
    for row in again["rows"]:
        row["summary"]["images_per_s"]["mean"] += 7.0
    run.evaluation_file.write_text(json.dumps(again))
    told = send(run, status="FINISHED")
    assert any("made again with other values" in line for line in told)
    speeds = client.get_metric_history(run_id, "final/policy/images_per_s_mean")
    assert len(speeds) == 1, "what a clock measured differs each time"
    assert client.get_run(run_id).data.metrics["final/policy/fd_a_mean"] == pytest.approx(0.305)


@pytest.mark.parametrize("content", ["{", "[]", '{"rows": []}', "\x00", '{"rows": [{"name": 1}], "verdict": null}'])
def test_damaged_final_numbers_are_no_trouble_of_the_server(run: RunPaths, content: str) -> None:
    append(run, 0, 1)
    run.evaluation_file.write_text(content)
    assert send(run, status="FINISHED") == []
    found = only_run(client_of(run))
    assert found.info.status == "FINISHED"
    assert steps(client_of(run), found.info.run_id) == [0, 1]
    assert not any(name.startswith("final/") for name in found.data.metrics)


@pytest.mark.parametrize(
    "line",
    [
        "[1]",
        '{"iteration": 1, "unix_time_s": "today"}',
        '{"iteration": 1, "unix_time_s": NaN}',
        '{"iteration": 1e400}',
        '{"iteration": 1, "hacking/detected": true}',
        "[" * 100_000,
    ],
)
def test_a_damaged_row_is_told_as_such_and_what_lies_before_it_is_sent(run: RunPaths, line: str) -> None:
    append(run, 0)
    with run.metrics_file.open("a") as file:
        file.write(line + "\n")
    told = send(run)
    assert len(told) == 1
    assert "metrics.jsonl: a line is damaged, and MLflow gets nothing behind it" in told[0]
    assert steps(client_of(run), only_run(client_of(run)).info.run_id) == [0]


def test_a_store_that_another_process_holds_gets_everything_when_it_is_free(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from adanat_rl.tracking import local_store

    monkeypatch.setattr(local_store, "_BUSY_S", 0.01)
    monkeypatch.setattr(mlflow_sink, "_RETRY_S", 0.01)
    append(run, 0, 1)
    holder = sqlite3.connect(run.path.parent / "mlflow.db", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        holder.rollback()  # it is let go when its absence has been noticed

    with open_tracker(config_with(), run, tell) as tracker:
        tracker.finish("KILLED")
    holder.close()
    client = client_of(run)
    assert steps(client, only_run(client).info.run_id) == [0, 1]
    assert len([line for line in told if "locked" in line and "sent later" in line]) == 1
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_changed_settings_are_told_beside_the_first_ones(run: RunPaths) -> None:
    append(run, 0)
    send(run, "training.num_iterations=2")
    send(run, "training.num_iterations=4")
    client = client_of(run)
    found = only_run(client)
    assert found.data.params["training.num_iterations"] == "2"
    assert found.data.tags["adanat_rl.changed_settings"] == "training.num_iterations: 2 → 4"
