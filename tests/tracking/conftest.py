"""A run folder beside a store that is there already: making one takes seconds, so it is made once and copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from adanat_rl.config.loading import dump, resolve
from adanat_rl.config.run_paths import RunPaths


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow without runs."""
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{database}").search_experiments()
    return database


@pytest.fixture
def run(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    """The run folder `runs/a`, new."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    paths = RunPaths(tmp_path / "runs" / "a")
    paths.path.mkdir(parents=True)
    paths.config_file.write_text(dump(resolve()))
    shutil.copy(empty_store, paths.path.parent / "mlflow.db")
    return paths
