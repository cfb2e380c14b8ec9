"""Where a run is sent: the configured store, or the one beside the run folder and the one of the environment."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adanat_rl.config.schema import ExperimentConfig, TrackingConfig
from adanat_rl.config.secrets import has_hidden_secret, hide_secrets, reveal
from adanat_rl.tracking.local_store import prepare_store
from adanat_rl.tracking.store_artifacts import artifact_location, database_file
from adanat_rl.tracking.troubles import StoreError

_TRACKING_URI, _EXPERIMENT_NAME, _PASSWORD = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_TRACKING_PASSWORD",
)
_CLIENT_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # who sends tries again, and knows when it has to end
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


@dataclass(frozen=True)
class Destination:
    """A store and the experiment in it.

    Args:
        uri: its address, with its password if it has one. experiment: name of the MLflow experiment. place: how it is
            called in messages.
    """

    uri: str
    experiment: str
    place: str

    def connect(self) -> Any:
        """A client of the store, which is made if it is a file that is not there.

        Raises:
            Exception: whatever tells that nothing can be sent there now; see `troubles.explain`.
        """
        if has_hidden_secret(self.uri):
            raise StoreError(f"its password was not saved with the run: set {_PASSWORD}, or give tracking.uri= again")
        quiet_client()
        database = database_file(self.uri)
        if database is not None:
            prepare_store(database)
        from mlflow import MlflowClient  # takes two seconds to import

        hush()
        return MlflowClient(self.uri)

    def experiment_id(self, client: Any) -> str:
        """Id of the experiment, made if need be; a store in a file keeps its artifacts beside itself."""
        from mlflow.exceptions import MlflowException

        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is None:
            database = database_file(self.uri)
            location = None if database is None else artifact_location(database)
            tags = {"mlflow.experimentKind": "custom_model_development"}  # training runs, not GenAI
            try:
                return str(client.create_experiment(self.experiment, artifact_location=location, tags=tags))
            except MlflowException:  # another run has just made it
                experiment = client.get_experiment_by_name(self.experiment)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            raise StoreError(
                f"its experiment {self.experiment!r} was deleted there; restore it with `mlflow experiments restore "
                f"--experiment-id {experiment.experiment_id}`, or choose another with tracking.experiment="
            )
        return str(experiment.experiment_id)


def destinations(
    config: ExperimentConfig, folder: Path, environment: Mapping[str, str] = os.environ
) -> list[Destination]:
    """Where a run, or a sweep, of a folder is sent; the first is the one that the product itself reads.

    `tracking.uri` alone counts if it is set. Without it, the store beside the folder gets everything, and the store of
    MLFLOW_TRACKING_URI, which may be left over from other work, gets it too, in the experiment of
    MLFLOW_EXPERIMENT_NAME unless `tracking.experiment` names another than the default.
    """
    tracking = config.tracking
    if tracking.uri is not None:
        uri = tracking.uri
        if has_hidden_secret(uri) and _PASSWORD in environment:
            uri = reveal(uri, environment[_PASSWORD])
        return [Destination(uri, tracking.experiment, f"MLflow at {hide_secrets(uri)}")]
    database = folder.resolve().parent / "mlflow.db"
    local = Destination(f"sqlite:///{database}", tracking.experiment, f"MLflow ({database})")
    named = environment.get(_TRACKING_URI, "").strip()
    if not named or database_file(named) == database:
        return [local]
    experiment = tracking.experiment
    if experiment == TrackingConfig.model_fields["experiment"].default:
        experiment = environment.get(_EXPERIMENT_NAME) or experiment
    return [local, Destination(named, experiment, f"the tracking server of the environment ({hide_secrets(named)})")]


def tracking_uri(config: ExperimentConfig, folder: Path) -> str:
    """Address of the store that the product itself reads: the configured one, or the one beside the run folder."""
    return destinations(config, folder)[0].uri


def tracking_environment() -> dict[str, str]:
    """The variables that MLflow's clients go by, for a process elsewhere that sends for this one."""
    return {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_TRACKING_")} | {
        name: os.environ[name] for name in (_EXPERIMENT_NAME,) if name in os.environ
    }


def quiet_client() -> None:
    """Lets MLflow's client answer soon and keep quiet; what the user has set counts."""
    for name, value in _CLIENT_DEFAULTS.items():
        os.environ.setdefault(name, value)


def hush() -> None:
    """What fails is told in one line by whoever sends, so nothing of it may be logged; after MLflow was imported."""
    for name in ("mlflow", "alembic", "sqlalchemy.engine", "sqlalchemy.pool", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
