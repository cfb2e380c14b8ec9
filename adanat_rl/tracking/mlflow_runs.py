"""Runs of an MLflow store: which store, which experiment, and the one run with an identity of ours."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adanat_rl.config.files import write_atomically
from adanat_rl.config.schema import ExperimentConfig

PARENT_TAG = "mlflow.parentRunId"
METRICS_OF_A_REQUEST = 500
_UID_TAG = "adanat_rl.run_uid"


def tracking_uri(config: ExperimentConfig, folder: Path) -> str:
    """The configured server, or the store beside the run folder."""
    if config.tracking.uri is not None:
        return config.tracking.uri
    return f"sqlite:///{folder.resolve().parent / 'mlflow.db'}"


def run_uid(file: Path) -> str:
    """The identity of a run in MLflow; it is on the disk before the run exists, so there is never a second."""
    if file.exists():
        return str(json.loads(file.read_text())["run_uid"])
    uid = uuid.uuid4().hex
    write_atomically(file, json.dumps({"run_uid": uid}), durable=True)
    return uid


def find_run(client: Any, experiment_id: str, uid: str) -> str | None:
    """Id of the run with a uid."""
    found = client.search_runs([experiment_id], f"tags.`{_UID_TAG}` = '{uid}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def open_run(client: Any, experiment_id: str, uid: str, name: str, tags: dict[str, str]) -> tuple[str, bool]:
    """The run with a uid, resumed or created; and whether it is new."""
    run_id = find_run(client, experiment_id, uid)
    if run_id is not None:
        client.update_run(run_id, status="RUNNING")
        return run_id, False
    run = client.create_run(experiment_id, run_name=name, tags={_UID_TAG: uid, **tags})
    return str(run.info.run_id), True


def log_evaluation(config: ExperimentConfig, file: Path, title: str, warn: Callable[[str], None], folder: Path) -> None:
    """Keeps an evaluation as an MLflow run of its own: the numbers as metrics, the file as artifact.

    Args:
        folder: the run folder beside which the store lies, if no server is configured.
    """
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    try:
        client = MlflowClient(tracking_uri(config, folder))
        experiment_id = experiment_of(client, config, folder)
        run = client.create_run(experiment_id, run_name=f"evaluate {title}", tags={"adanat_rl.kind": "evaluation"})
        metrics = [Metric(name, value, run.info.start_time, 0) for name, value in final_metrics(file).items()]
        for start in range(0, len(metrics), METRICS_OF_A_REQUEST):
            client.log_batch(run.info.run_id, metrics=metrics[start : start + METRICS_OF_A_REQUEST])
        client.log_artifact(run.info.run_id, str(file))
        client.set_terminated(run.info.run_id)
    except Exception as error:  # the numbers are on disk; a server that is away must not spoil them
        first_line = (str(error).strip().splitlines() or [""])[0]
        warn(f"warning: not sent to MLflow ({type(error).__name__}: {first_line[:120]})")


def experiment_of(client: Any, config: ExperimentConfig, folder: Path) -> str:
    """Id of the configured MLflow experiment, made if need be; a local store keeps its artifacts beside itself."""
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    if experiment is not None:
        return str(experiment.experiment_id)
    location = None
    if config.tracking.uri is None:
        location = (folder.resolve().parent / "mlartifacts").as_uri()
    tags = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens on training runs, not on GenAI
    return str(client.create_experiment(config.tracking.experiment, artifact_location=location, tags=tags))


def final_metrics(evaluation: Path) -> dict[str, float]:
    """The numbers of an evaluation file as `final/ROW/METRIC_mean` and `…_sd`."""
    rows = json.loads(evaluation.read_text())["rows"]
    return {
        f"final/{row['name']}/{name}_{part}": float(value[part])
        for row in rows
        for name, value in row["summary"].items()
        for part in ("mean", "sd")
    }
