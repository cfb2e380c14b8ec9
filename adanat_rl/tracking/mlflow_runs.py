"""One run of an MLflow store: found or made, with its settings and tags complete, and numbers that are sent once."""

from __future__ import annotations

import getpass
import hashlib
import json
import math
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.config.secrets import hide_secrets
from adanat_rl.tracking.destinations import tracking_uri
from adanat_rl.tracking.identity import claim
from adanat_rl.tracking.metric_names import to_mlflow

__all__ = ["tracking_uri"]  # others ask here for the store of a run

PARENT_TAG = "mlflow.parentRunId"
METRICS_OF_A_REQUEST = 500
UID_TAG = "adanat_rl.run_uid"
RUN_DIR_TAG = "adanat_rl.run_dir"
_ARTIFACTS_TAG = "adanat_rl.artifacts"
_CHANGED_TAG = "adanat_rl.changed_settings"
_PARAMS_OF_A_REQUEST = 100
_PARAM_LENGTH = 6000
_TAG_LENGTH = 8000
_LARGEST = 1.7976931348623157e308  # what a database holds for an infinite number
_Result = TypeVar("_Result")


def run_uid(file: Path, stores: Sequence[str] = ()) -> str:
    """The identity of a run in MLflow; see `identity.claim`."""
    return claim(file, stores).uid


def find_run(client: Any, experiment_id: str, uid: str) -> Any | None:
    """The run with a uid, also one that was deleted there; one that is not deleted first."""
    from mlflow.entities import ViewType

    found = client.search_runs([experiment_id], f"tags.`{UID_TAG}` = '{uid}'", run_view_type=ViewType.ALL)
    return min(found, key=lambda run: run.info.lifecycle_stage != "active", default=None)


def open_run(client: Any, experiment_id: str, uid: str, name: str, tags: Mapping[str, str]) -> Any:
    """The run with a uid, resumed or created, with its tags."""
    run = find_run(client, experiment_id, uid)
    if run is None:
        return client.create_run(experiment_id, run_name=name, tags={UID_TAG: uid, **tags})
    client.update_run(run.info.run_id, status="RUNNING", name=name)
    for key, value in tags.items():
        if run.data.tags.get(key) != value:
            client.set_tag(run.info.run_id, key, value)
    return run


def common_tags(kind: str, command: str, folder: Path, revision: str | None) -> dict[str, str]:
    """Who made a run, from what, where.

    Args:
        kind: training, sweep or evaluation. revision: of the checkout, with `+changes` behind it if files differ.
    """
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        user = "unknown"
    tags = {
        "adanat_rl.kind": kind,
        RUN_DIR_TAG: str(folder.resolve()),
        "adanat_rl.host": socket.gethostname(),
        "mlflow.user": user,
        "mlflow.source.name": f"adanat-rl {command}",
        "mlflow.source.type": "LOCAL",
    }
    if revision:
        commit, _, changes = revision.partition("+")
        tags |= {"mlflow.source.git.commit": commit, "mlflow.source.git.dirty": str(bool(changes)).lower()}
    return tags


def flat_settings(config: ExperimentConfig) -> dict[str, str]:
    """All settings as people type them, by dotted key; without passwords."""
    return {key: hide_secrets(_typed(value)) for key, value in _leaves(config.model_dump(mode="json"), "")}


def complete_params(client: Any, run: Any, params: Mapping[str, str]) -> None:
    """Logs the params that a run lacks. MLflow changes none, so what is another now becomes a tag."""
    from mlflow.entities import Param

    known = run.data.params
    wanted = {to_mlflow(key): _cut(value, _PARAM_LENGTH) for key, value in params.items()}
    missing = [Param(key, value) for key, value in wanted.items() if key not in known]
    for part in _parts(missing, _PARAMS_OF_A_REQUEST):
        client.log_batch(run.info.run_id, params=part, synchronous=True)
    changed = {key: [known[key], value] for key, value in wanted.items() if key in known and known[key] != value}
    text = "\n".join(f"{key}: {before} → {now}" for key, (before, now) in changed.items())
    if text != run.data.tags.get(_CHANGED_TAG, ""):
        client.set_tag(run.info.run_id, _CHANGED_TAG, _cut(text, _TAG_LENGTH))


def send_numbers(client: Any, run_id: str, numbers: Mapping[str, float], time_ms: int, step: int) -> None:
    """Logs numbers in the given order. A request is taken whole or not at all, so the last number tells of the rest."""
    from mlflow.entities import Metric

    metrics = [Metric(to_mlflow(name), float(value), time_ms, step) for name, value in numbers.items()]
    for part in _parts(metrics, METRICS_OF_A_REQUEST):
        client.log_batch(run_id, metrics=part, synchronous=True)


def values_of(client: Any, run_id: str, name: str) -> dict[int, list[float]]:
    """What a run has of a metric, by step."""
    values: dict[int, list[float]] = {}
    for point in client.get_metric_history(run_id, to_mlflow(name)):
        values.setdefault(int(point.step), []).append(float(point.value))
    return values


def is_same(ours: float, theirs: float) -> bool:
    """Whether a store's number is ours; databases know no infinite numbers."""
    if math.isnan(ours) or math.isnan(theirs):
        return math.isnan(ours) and math.isnan(theirs)
    ours, theirs = (max(-_LARGEST, min(_LARGEST, value)) for value in (ours, theirs))
    return math.isclose(ours, theirs, rel_tol=1e-9)


def artifacts_of(client: Any, run: Any, folder: str = "") -> set[str]:
    """Paths of what lies in a folder of a run's artifacts; MLflow's own list looks up models in another store."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(run.info.artifact_uri, tracking_uri=client.tracking_uri)
    return {str(item.path) for item in repository.list_artifacts(folder or None)}


def send_files(client: Any, run_id: str, files: Mapping[str, Path]) -> None:
    """Logs files that the run does not have as they are now.

    Args:
        files: by their path among the artifacts.
    """
    run = client.get_run(run_id)
    sent = _json_object(run.data.tags.get(_ARTIFACTS_TAG))
    folders = {name.rpartition("/")[0] for name in files}
    there = {path for folder in folders for path in artifacts_of(client, run, folder)}
    for name, file in files.items():
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        if sent.get(name) == digest and name in there:
            continue
        client.log_artifact(run_id, str(file), name.rpartition("/")[0] or None)
        sent[name] = digest
        client.set_tag(run_id, _ARTIFACTS_TAG, json.dumps(sent))


def final_metrics(comparison: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation file's content as `final/ROW/METRIC_mean` and `…_sd`."""
    return {
        f"final/{row['name']}/{name}_{part}": float(value[part])
        for row in comparison["rows"]
        for name, value in row["summary"].items()
        for part in ("mean", "sd")
    }


def within(seconds: float, call: Callable[[], _Result]) -> _Result:
    """The result of a call that is given up after a while, also where it hangs in the network.

    Raises:
        TimeoutError: it took too long; its thread is left to itself and does not keep the process.
        Exception: whatever the call raises.
    """
    results: list[_Result] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="mlflow-call", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError("timed out")
    return results[0]


def _leaves(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + str(key), value


def _typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _parts(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _json_object(text: str | None) -> dict[str, Any]:
    try:
        content = json.loads(text or "{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
