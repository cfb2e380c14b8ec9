"""The MLflow run of an evaluation: the numbers as metrics, the settings as params, the file as artifact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from adanat_rl.config.comparison_file import read_comparison
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.tracking.destinations import Destination, destinations
from adanat_rl.tracking.mlflow_runs import (
    common_tags,
    complete_params,
    final_metrics,
    flat_settings,
    send_numbers,
    within,
)
from adanat_rl.tracking.troubles import explain

_TIMEOUT_S = 60.0


def log_evaluation(
    config: ExperimentConfig,
    file: Path,
    title: str,
    warn: Callable[[str], None],
    revision: str | None = None,
    home: Path | None = None,
) -> None:
    """Keeps an evaluation as an MLflow run of its own; a store that does not take it is told about in one line.

    Args:
        file: the numbers. title: of what was evaluated. revision: of the checkout. home: the folder whose store is
            meant; by default that of the file.
    """
    for destination in destinations(config, home or file.parent):
        try:
            within(_TIMEOUT_S, lambda to=destination: _send(config, to, file, title, revision))  # type: ignore[misc]
        except Exception as error:  # the numbers are on disk; a server that is away must not spoil them
            sentence = explain(error, destination.place, destination.experiment, "this evaluation is not sent").sentence
            warn(f"warning: {sentence}")


def _send(config: ExperimentConfig, destination: Destination, file: Path, title: str, revision: str | None) -> None:
    client = destination.connect()
    experiment_id = destination.experiment_id(client)
    tags = common_tags("evaluation", "evaluate", file.parent, revision)
    run = client.create_run(experiment_id, run_name=f"evaluate {title}", tags=tags)
    complete_params(client, run, flat_settings(config))
    send_numbers(client, run.info.run_id, final_metrics(read_comparison(file)), run.info.start_time, 0)
    client.log_artifact(run.info.run_id, str(file))
    client.set_terminated(run.info.run_id)
