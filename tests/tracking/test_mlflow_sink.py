"""MLflow: one run over restarts, no step missing, none twice, and a server that is away costs nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from adanat_rl.config.metric_keys import BATCH_HASH
from adanat_rl.config.run_paths import RunPaths
from adanat_rl.tracking.mlflow_sink import open_tracker
from tests import tiny
from tests.tracking.feeding import append, config_with, only_run, picture, steps


def test_rows_arrive_once_over_restarts_and_a_cut_file(run: RunPaths) -> None:
    config, warnings = config_with(), []
    with open_tracker(config, run, warnings.append) as tracker:
        append(run, 0, 1, 2)
        picture(run, 0)
        tracker.wake()
        tracker.finish("KILLED")
    # a resumed run makes rows 2 and 3 again or anew, from a checkpoint after iteration 1
    run.metrics_file.write_text("")
    append(run, 0, 1)
    with open_tracker(config, run, warnings.append) as tracker:
        append(run, 2, 3)
        picture(run, 3)
        tracker.wake()
        tracker.finish("FINISHED")
    assert warnings == []
    client = MlflowClient(f"sqlite:///{run.path.parent / 'mlflow.db'}")
    found = only_run(client)
    assert found.info.status == "FINISHED"
    assert sorted(steps(client, found.info.run_id)) == [0, 1, 2, 3]
    assert [point.value for point in client.get_metric_history(found.info.run_id, "reward/mean")] == [
        0,
        1 / 3,
        2 / 3,
        1,
    ]
    images = [Path(item.path).name for item in client.list_artifacts(found.info.run_id, "images")]
    assert sorted(name.split("+")[2] for name in images if name.endswith(".png")) == ["0", "3"]
    assert found.data.params["ppo.lr"] == str(config.ppo.lr)
    assert BATCH_HASH not in found.data.metrics


@contextlib.contextmanager
def server(port: int, folder: Path) -> Iterator[None]:
    """A tracking server on 127.0.0.1."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder / 'server.db'}",
        "--artifacts-destination",
        str(folder / "art"),
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            assert time.monotonic() < deadline
            with contextlib.suppress(subprocess.TimeoutExpired):
                pytest.fail(f"the server ended with status {process.wait(timeout=0.1)}")
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_is_away_is_told_once_and_gets_everything_later(
    run: RunPaths, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    port = free_port()
    config = config_with(f"tracking.uri=http://127.0.0.1:{port}")
    warnings: list[str] = []
    with open_tracker(config, run, warnings.append) as tracker:
        append(run, 0, 1)
        tracker.wake()
        tracker.finish("KILLED")
    assert any("MLflow" in warning for warning in warnings)
    assert all("\n" not in warning for warning in warnings)
    with server(port, tmp_path):
        append(run, 2)
        warnings.clear()
        with open_tracker(config, run, warnings.append) as tracker:
            tracker.finish("FINISHED")
        assert warnings == []
        client = MlflowClient(f"http://127.0.0.1:{port}")
        found = only_run(client)
        assert sorted(steps(client, found.info.run_id)) == [0, 1, 2]


def test_a_training_leaves_one_complete_run_whose_model_draws_images(tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "tiny"
    settings = (*tiny.IN_PROCESS, "tracking.enabled=true")
    often = {"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.05"}
    first = tiny.train(run_dir, *settings, "training.num_iterations=2", **often)
    assert first.returncode == 0, first.stderr
    second = tiny.train(run_dir, *settings)
    assert second.returncode == 0, second.stderr
    assert "warning" not in second.stdout + second.stderr
    uri = f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    client = MlflowClient(uri)
    found = only_run(client)
    run_id = found.info.run_id
    assert found.info.status == "FINISHED"
    assert sorted(steps(client, run_id)) == [1, 2, 3, 4]
    assert sorted(steps(client, run_id, "eval/fd_a")) == [0, 2, 4]
    assert "final/policy/fd_a_mean" in found.data.metrics
    assert "system/cpu_utilization_percentage" in found.data.metrics
    artifacts = {item.path for item in client.list_artifacts(run_id)}
    assert {"config.yaml", "environment.json", "evaluation.json", "report.html", "policy", "images"} <= artifacts
    keys = {Path(item.path).name.split("+")[0] for item in client.list_artifacts(run_id, "images")}
    assert keys == {"samples", "decisions"}

    mlflow.set_tracking_uri(uri)
    model = mlflow.pyfunc.load_model(found.data.tags["adanat_rl.model_uri"])
    images = model.predict(pd.DataFrame({"context": [3, 3, 7], "seed": [0, 1, 0]}))
    assert images.shape == (3, 8, 8, 1)
    assert images.dtype == np.uint8
    from adanat_rl import load_pipeline

    np.testing.assert_array_equal(images, load_pipeline(run_dir)([3, 3, 7], [0, 1, 0]).images)
