"""Run folders as a training writes them, and what MLflow then has."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from PIL import Image

from adanat_rl.config.loading import resolve
from adanat_rl.config.metric_keys import BATCH_HASH
from adanat_rl.config.run_paths import RunPaths
from adanat_rl.tracking.mlflow_sink import open_tracker


def config_with(*overrides: str) -> Any:
    return resolve(overrides=["tracking.system_metrics=false", *overrides])


def row(iteration: int, **more: float) -> dict[str, Any]:
    numbers = {"iteration": iteration, "unix_time_s": 1.7e9 + iteration, "reward/mean": iteration / 3}
    return {**numbers, BATCH_HASH: "no number", **more}


def append(paths: RunPaths, *iterations: int, **more: float) -> None:
    with paths.metrics_file.open("a") as file:
        file.writelines(json.dumps(row(iteration, **more)) + "\n" for iteration in iterations)


def picture(paths: RunPaths, iteration: int) -> None:
    paths.samples.mkdir(exist_ok=True)
    Image.fromarray(np.full((4, 4), iteration, np.uint8)).save(paths.samples / f"iteration_{iteration:06d}.png")


def send(paths: RunPaths, *overrides: str, status: str = "KILLED") -> list[str]:
    """Sends what is new as one start of a command does; returns what it tells."""
    told: list[str] = []
    with open_tracker(config_with(*overrides), paths, told.append) as tracker:
        tracker.wake()
        tracker.finish(status)
    return told


def client_of(paths: RunPaths) -> MlflowClient:
    return MlflowClient(f"sqlite:///{paths.path.parent / 'mlflow.db'}")


def runs_of(client: MlflowClient) -> list[Run]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments(view_type=ViewType.ALL)]
    return list(client.search_runs(experiments))


def only_run(client: MlflowClient) -> Run:
    found = runs_of(client)
    assert len(found) == 1
    return found[0]


def points(client: MlflowClient, run_id: str, metric: str = "reward/mean") -> list[tuple[int, float]]:
    """(step, value) of all that a run has of a metric, in order of the steps."""
    return sorted((point.step, point.value) for point in client.get_metric_history(run_id, metric))


def steps(client: MlflowClient, run_id: str, metric: str = "reward/mean") -> list[int]:
    return [step for step, _ in points(client, run_id, metric)]
