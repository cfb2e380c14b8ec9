"""The MLflow run of a sweep: the parent of its trials' runs, over any number of starts the same one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.tracking.destinations import Destination, destinations
from adanat_rl.tracking.identity import claim
from adanat_rl.tracking.mlflow_runs import (
    common_tags,
    complete_params,
    is_same,
    open_run,
    send_files,
    send_numbers,
    values_of,
    within,
)
from adanat_rl.tracking.troubles import explain

_TIMEOUT_S = 60.0


class SweepRun:
    """The parent run; a server that is away is warned about once and asked again at the end.

    Args:
        config: of any trial: server and experiment. folder: of the sweep. name: of the sweep. warn: takes one line.
            revision: of the checkout.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        folder: Path,
        name: str,
        warn: Callable[[str], None],
        revision: str | None = None,
    ) -> None:
        self._folder = folder
        self._name = name
        self._warn = warn
        self._told: set[str] = set()
        self._revision = revision
        self._destinations = destinations(config, folder) if config.tracking.enabled else []
        self.uri = destinations(config, folder)[0].uri
        self._uid = ""
        if self._destinations:
            identity = claim(folder / "tracking.json", [to.uri for to in self._destinations])
            self._uid = identity.uid
            if identity.news:
                warn(identity.news)

    def begin(self, params: Mapping[str, Any]) -> None:
        """Makes or resumes the run before any trial looks for it."""
        typed = {"sweep": self._name, **{key: str(value) for key, value in params.items()}}
        self._send(lambda client, run: complete_params(client, run, typed))

    def finish(self, status: str, metrics: Mapping[str, float], files: Mapping[str, Path], sentence: str) -> None:
        """Sends what the sweep came to and ends the run: FINISHED, KILLED or FAILED."""

        def send(client: Any, run: Any) -> None:
            run_id = run.info.run_id
            new = {name: value for name, value in metrics.items() if not _has(client, run_id, name, value)}
            send_numbers(client, run_id, new, int(time.time() * 1000), 0)
            send_files(client, run_id, {name: file for name, file in files.items() if file.is_file()})
            if sentence:
                client.set_tag(run_id, "mlflow.note.content", sentence)
            client.set_terminated(run_id, status)

        self._send(send)

    def _send(self, send: Callable[[Any, Any], None]) -> None:
        for destination in self._destinations:
            try:
                within(_TIMEOUT_S, lambda to=destination: self._send_to(to, send))  # type: ignore[misc]
            except Exception as error:  # the books are on disk; a server that is away must not spoil the sweep
                line = f"warning: {explain(error, destination.place, destination.experiment).sentence}"
                if line not in self._told:
                    self._told.add(line)
                    self._warn(line)

    def _send_to(self, destination: Destination, send: Callable[[Any, Any], None]) -> None:
        client = destination.connect()
        tags = common_tags("sweep", "sweep", self._folder, self._revision)
        experiment_id = destination.experiment_id(client)
        send(client, client.get_run(open_run(client, experiment_id, self._uid, self._name, tags).info.run_id))


def _has(client: Any, run_id: str, name: str, value: float) -> bool:
    """Whether the newest value of a metric is this one; a sweep that ends again has nothing new to say."""
    values = values_of(client, run_id, name).get(0, [])
    return bool(values) and is_same(value, values[-1])
