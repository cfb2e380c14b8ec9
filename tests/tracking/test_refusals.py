"""What MLflow refuses is told as what it is, once, and is not taken for a server that is away."""

from __future__ import annotations

import http.server
import random
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow.utils.validation import _validate_metric_name

from adanat_rl.config.run_paths import RunPaths
from adanat_rl.tracking import mlflow_sink
from tests.tracking.feeding import append, client_of, only_run, points, send

ODD = ["ink (%)", "µ±σ", "a:b", "x[0]", "p/q", "loss@1", "日本", "..", "a//b", "_x28_", "n" * 300]


def test_metrics_of_any_name_arrive_under_a_name_that_can_be_turned_back(run: RunPaths) -> None:
    from adanat_rl.tracking.metric_names import from_mlflow

    append(run, 0, 1, **{f"reward/mean_{name}": 7.0 for name in ODD})
    told = send(run)
    assert len(told) == 1  # once, not per row, and nobody is away
    assert "_x28_" in told[0]
    assert "ink (%)" in told[0]
    client = client_of(run)
    found = only_run(client)
    names = set(found.data.metrics)
    assert {f"reward/mean_{name}" for name in ODD[:-1]} <= {from_mlflow(name) for name in names}
    assert points(client, found.info.run_id, "reward/mean_ink _x28__x25__x29_") == [(0, 7.0), (1, 7.0)]
    assert "metric_names.json" in [item.path for item in client.list_artifacts(found.info.run_id)]
    append(run, 2, **{"reward/mean_ink (%)": 7.0})
    assert send(run) == []  # said before


def test_every_name_is_one_that_mlflow_takes_and_turns_back() -> None:
    from adanat_rl.tracking.metric_names import MAX_LENGTH, from_mlflow, to_mlflow

    draw = random.Random(0)
    for _ in range(20_000):
        name = "".join(draw.choice("_x/.12af (%µ\n:") for _ in range(draw.randrange(1, 12)))
        text = to_mlflow(name)
        _validate_metric_name(text)
        assert len(text) <= MAX_LENGTH
        assert from_mlflow(text) == name
    for plain in ("eval/fd_a", "reward/mean_a x", "decisions/mask_ratio/step_0_mean", "max_x_1"):
        assert to_mlflow(plain) == plain
    assert to_mlflow("n" * 300) != to_mlflow("n" * 301)


def test_a_deleted_experiment_is_told_with_the_command_that_restores_it(run: RunPaths) -> None:
    client = client_of(run)
    client.delete_experiment(client.create_experiment("adanat-rl"))
    append(run, 0)
    told = send(run)
    assert any("'adanat-rl' was deleted" in line and "mlflow experiments restore" in line for line in told)
    assert not any("away" in line for line in told)


def test_a_deleted_run_is_told_with_the_command_that_restores_it(run: RunPaths) -> None:
    append(run, 0)
    send(run)
    client = client_of(run)
    run_id = only_run(client).info.run_id
    client.delete_run(run_id)
    append(run, 1)
    told = send(run)
    assert any(f"mlflow runs restore --run-id {run_id}" in line for line in told)
    assert not any("away" in line for line in told)
    client.restore_run(run_id)
    assert send(run) == []
    assert points(client, run_id) == [(0, 0), (1, 1 / 3)]


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("htp://127.0.0.1:5000", "is no address of a store"),
        ("file:///nowhere/mlruns", "plain files"),
        ("mlruns", "plain files"),
        ("sqlite:////proc/x/mlflow.db", "cannot be"),
    ],
)
def test_an_address_that_is_none_is_told_as_that(run: RunPaths, uri: str, words: str) -> None:
    append(run, 0)
    told = send(run, f"tracking.uri={uri}")
    assert any(words in line for line in told), told
    assert not any("away" in line for line in told)


def test_a_file_that_is_no_database_is_told_as_that_and_left_alone(run: RunPaths) -> None:
    store = run.path.parent / "mlflow.db"
    store.write_text("something else, and long enough to be looked at as a database" * 20)
    before = store.read_bytes()
    append(run, 0)
    told = send(run)
    assert any("is no database of MLflow" in line for line in told), told
    assert store.read_bytes() == before


def test_a_store_of_another_version_is_told_as_that(run: RunPaths) -> None:
    import sqlite3

    with sqlite3.connect(run.path.parent / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'abcdef'")
    append(run, 0)
    told = send(run)
    assert any("another version of MLflow" in line for line in told), told
    assert not any("away" in line for line in told)


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A server that says one thing to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"no")

        do_GET = do_POST = do_PATCH = do_PUT = _answer  # noqa: N815

        def log_message(self, *words: object) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "words", "is_away"),
    [(401, "MLFLOW_TRACKING_USERNAME", False), (403, "permission", False), (503, "away", True), (500, "away", True)],
)
def test_a_server_that_answers_with_an_error_is_told_as_what_it_means(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch, capfd, status: int, words: str, is_away: bool
) -> None:
    monkeypatch.setattr(mlflow_sink, "_CLOSING_ATTEMPTS", 1)
    append(run, 0)
    with answering(status) as address:
        told = send(run, f"tracking.uri={address}")
    assert any(words in line for line in told), told
    assert any("away" in line for line in told) == is_away
    assert all("\n" not in line for line in told)
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_a_server_that_never_answers_holds_up_nothing(run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(mlflow_sink, "_CLOSE_TIMEOUT_S", 0.5)
    append(run, 0)
    with socket.create_server(("127.0.0.1", 0)) as hole:  # takes connections, says nothing
        told = send(run, f"tracking.uri=http://127.0.0.1:{hole.getsockname()[1]}")
    assert any("the same command sends the rest" in line for line in told)
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "mlflow-tracker")


def test_a_store_that_cannot_be_written_is_told_as_that(run: RunPaths, tmp_path: Path, empty_store: Path) -> None:
    import os

    if os.geteuid() == 0:  # root may write anything; a folder that is a file stops it as well
        (tmp_path / "file").write_text("")
        told = send(run, f"tracking.uri=sqlite:///{tmp_path / 'file' / 'mlflow.db'}")
        assert any("mlflow.db" in line for line in told)
        return
    shutil.copy(empty_store, tmp_path / "readonly.db")
    (tmp_path / "readonly.db").chmod(0o400)
    append(run, 0)
    told = send(run, f"tracking.uri=sqlite:///{tmp_path / 'readonly.db'}")
    assert any("read-only" in line for line in told), told
