"""The MLflow run of a sweep: the parent of its trials' runs, over any number of starts the same one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.tracking.mlflow_runs import experiment_of, open_run, run_uid, tracking_uri


class SweepRun:
    """The parent run; a server that is away is warned about once and asked again at the end.

    Args:
        config: of any trial: server and experiment. folder: of the sweep. name: of the sweep. warn: takes one line.
    """

    def __init__(self, config: ExperimentConfig, folder: Path, name: str, warn: Callable[[str], None]) -> None:
        self._config = config
        self._folder = folder
        self._name = name
        self._warn = warn
        self._uid = run_uid(folder / "tracking.json")
        self.uri = tracking_uri(config, folder)

    def begin(self, params: Mapping[str, Any]) -> None:
        """Makes or resumes the run before any trial looks for it."""
        self._try(lambda client, run_id, is_new: self._log_params(client, run_id, params) if is_new else None)

    def finish(self, status: str, metrics: Mapping[str, float], files: Mapping[str, Path], sentence: str) -> None:
        """Sends what the sweep came to and ends the run: FINISHED, KILLED or FAILED."""

        def send(client: Any, run_id: str, is_new: bool) -> None:
            for name, value in metrics.items():
                client.log_metric(run_id, name, value)
            for file in files.values():
                if file.exists():
                    client.log_artifact(run_id, str(file))
            if sentence:
                client.set_tag(run_id, "mlflow.note.content", sentence)
            client.set_terminated(run_id, status)

        self._try(send)

    def _try(self, send: Callable[[Any, str, bool], None]) -> None:
        if not self._config.tracking.enabled:
            return
        try:
            from mlflow import MlflowClient  # takes two seconds to import

            client = MlflowClient(self.uri)
            tags = {"adanat_rl.kind": "sweep", "adanat_rl.run_dir": str(self._folder.resolve())}
            tags["mlflow.source.name"] = "adanat-rl sweep"
            experiment_id = experiment_of(client, self._config, self._folder)
            run_id, is_new = open_run(client, experiment_id, self._uid, self._name, tags)
            send(client, run_id, is_new)
        except Exception as error:  # the books are on disk; a server that is away must not spoil the sweep
            first_line = (str(error).strip().splitlines() or [""])[0]
            self._warn(f"warning: not sent to MLflow ({type(error).__name__}: {first_line[:120]})")

    def _log_params(self, client: Any, run_id: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        client.log_batch(run_id, params=[Param(key, str(value)[:500]) for key, value in params.items()])
