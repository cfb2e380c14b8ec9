"""Folders that are copied or moved, stores that are moved, and which store a run goes to."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from adanat_rl.config.loading import dump, resolve
from adanat_rl.config.run_paths import RunPaths
from adanat_rl.tracking import local_store, mlflow_sink
from tests.tracking.feeding import append, client_of, only_run, picture, runs_of, send, steps


def test_a_copied_run_folder_is_a_run_of_its_own(run: RunPaths) -> None:
    append(run, 0, 1)
    send(run)
    copy = RunPaths(run.path.parent / "b")
    shutil.copytree(run.path, copy.path)
    append(copy, 2)
    told = send(copy)
    assert any("copy" in line for line in told)
    client = client_of(run)
    by_name = {found.info.run_name: found.info.run_id for found in runs_of(client)}
    assert steps(client, by_name["a"]) == [0, 1]
    assert steps(client, by_name["b"]) == [0, 1, 2]
    append(copy, 3)
    send(copy)
    append(run, 2)
    send(run)
    assert steps(client, by_name["a"]) == [0, 1, 2]
    assert steps(client, by_name["b"]) == [0, 1, 2, 3]
    assert len(runs_of(client)) == 2


def test_a_copy_of_a_folder_of_an_earlier_version_is_one_too(run: RunPaths) -> None:
    append(run, 0)
    send(run)
    uid = json.loads(run.tracking_file.read_text())["run_uid"]
    run.tracking_file.write_text(json.dumps({"run_uid": uid}))
    copy = RunPaths(run.path.parent / "b")
    shutil.copytree(run.path, copy.path)
    send(copy)
    send(run)
    assert sorted(str(found.info.run_name) for found in runs_of(client_of(run))) == ["a", "b"]


def test_a_moved_run_folder_goes_on_with_its_run_under_its_new_name(run: RunPaths) -> None:
    append(run, 0)
    send(run)
    moved = RunPaths(run.path.rename(run.path.parent / "b"))
    append(moved, 1)
    assert send(moved) == []
    client = client_of(moved)
    found = only_run(client)
    assert found.info.run_name == "b"
    assert steps(client, found.info.run_id) == [0, 1]


@pytest.mark.parametrize("content", ["", "[]", '{"run_uid": 3}', "{"])
def test_a_damaged_identity_is_said_and_replaced(run: RunPaths, content: str) -> None:
    run.tracking_file.write_text(content)
    append(run, 0)
    assert any("damaged" in line for line in send(run))
    assert send(run) == []
    assert steps(client_of(run), only_run(client_of(run)).info.run_id) == [0]


def test_a_moved_store_keeps_its_artifacts_and_new_ones_come_beside_it(run: RunPaths, tmp_path: Path) -> None:
    append(run, 0)
    picture(run, 0)
    send(run)
    run.path.parent.rename(tmp_path / "moved")
    _artifact_repos_cache.clear()  # the next start is another process
    moved = RunPaths(tmp_path / "moved" / "a")
    client = client_of(moved)
    run_id = only_run(client).info.run_id

    def images() -> list[str]:
        names = [Path(item.path).name for item in client.list_artifacts(run_id, "images")]
        return sorted(name.split("+")[2] for name in names if name.endswith(".png"))

    assert images() == ["0"]
    append(moved, 1)
    picture(moved, 1)
    assert send(moved) == []
    assert images() == ["0", "1"]
    assert not (tmp_path / "runs").exists()
    assert "config.yaml" in [item.path for item in client.list_artifacts(run_id)]


def test_a_moved_store_of_an_earlier_version_finds_its_artifacts_at_the_next_start(
    run: RunPaths, tmp_path: Path
) -> None:
    client = client_of(run)
    location = (run.path.parent / "mlartifacts").as_uri()  # as it was written then
    experiment = client.create_experiment("adanat-rl", artifact_location=location)
    elsewhere = client.create_experiment("chosen", artifact_location=(tmp_path / "big" / "mlartifacts").as_uri())
    found = [client.create_run(name).info.run_id for name in (experiment, elsewhere)]
    for run_id in found:
        client.log_text(run_id, "hello", "note.txt")
    shutil.move(run.path.parent, tmp_path / "moved")
    moved = RunPaths(tmp_path / "moved" / "a")
    send(moved)
    client = client_of(moved)
    for run_id in found:
        assert [item.path for item in client.list_artifacts(run_id)] == ["note.txt"]
    assert not (tmp_path / "runs").exists()
    assert (tmp_path / "big" / "mlartifacts" / found[1]).is_dir()  # a place that someone chose stays


def test_an_sqlite_address_keeps_its_artifacts_beside_its_file(
    run: RunPaths, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    shutil.copy(empty_store, tmp_path / "there" / "own.db")
    append(run, 0)
    picture(run, 0)
    send(run, f"tracking.uri=sqlite:///{tmp_path / 'there' / 'own.db'}")
    assert (tmp_path / "there" / "mlartifacts").is_dir()
    assert not (tmp_path / "mlruns").exists()


def test_many_processes_may_make_the_store_at_once(tmp_path: Path, empty_store: Path, monkeypatch) -> None:
    class QuickStore:
        """Makes the tables by a copy."""

        def __init__(self, uri: str, folder: str) -> None:
            shutil.copy(empty_store, uri.removeprefix("sqlite:///"))
            self.engine = self

        def dispose(self) -> None:
            """Nothing is open."""

    pids = iter(range(1, 100))  # what is one process here stands for many
    database = tmp_path / "new" / "mlflow.db"
    errors: list[Exception] = []
    barrier = threading.Barrier(8)

    def make() -> None:
        barrier.wait()
        try:
            local_store.prepare_store(database)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore", QuickStore)
        patch.setattr(local_store.os, "getpid", lambda: next(pids))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert [file.name for file in database.parent.iterdir()] == ["mlflow.db"]
    assert MlflowClient(f"sqlite:///{database}").search_experiments()[0].name == "Default"


def test_the_server_of_the_environment_gets_the_run_too(
    run: RunPaths, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "x.db"
    shutil.copy(empty_store, other)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    append(run, 0, 1)
    told = send(run)
    assert any(str(other) in line for line in told)
    for client, experiment in ((client_of(run), "adanat-rl"), (MlflowClient(f"sqlite:///{other}"), "mine")):
        found = only_run(client)
        assert steps(client, found.info.run_id) == [0, 1]
        assert client.get_experiment(found.info.experiment_id).name == experiment
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # left over, and nobody is there
    append(run, 2)
    send(run, f"tracking.uri=sqlite:///{other}", "tracking.experiment=mine")  # typed: it counts alone
    assert steps(MlflowClient(f"sqlite:///{other}"), found.info.run_id) == [0, 1, 2]


def test_a_server_of_the_environment_that_is_away_spoils_nothing(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://bob:secret@127.0.0.1:9")
    append(run, 0, 1)
    told = send(run, status="FINISHED")
    assert len([line for line in told if "away" in line]) == 1
    assert "secret" not in "".join(told)
    assert only_run(client_of(run)).info.status == "FINISHED"


def test_passwords_are_neither_saved_nor_sent(run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_sink, "_CLOSING_ATTEMPTS", 1)
    config = resolve(overrides=["tracking.uri=http://bob:secret@127.0.0.1:9"])
    assert "secret" not in dump(config)
    assert "bob:***@127.0.0.1:9" in dump(config)
    told = send(run, "tracking.uri=http://bob:secret@127.0.0.1:9")
    assert told
    assert "secret" not in "".join(told)
    for file in run.path.rglob("*"):
        assert not file.is_file() or b"secret" not in file.read_bytes()
    told = send(run, "tracking.uri=http://bob:***@127.0.0.1:9")  # from config.yaml, where it was not saved
    assert any("MLFLOW_TRACKING_PASSWORD" in line for line in told)
