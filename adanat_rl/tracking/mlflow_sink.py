"""MLflow: one run per training, fed from the run folder by a thread that training never waits for.

metrics.jsonl and the pictures on disk are the outbox. What the server already has is asked of the server, so that over
any number of crashes and restarts no step is missing and none is there twice. While the server is away the thread tries
again and again; what is left at the end is sent by the next start of the same command.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from adanat_rl.config.loading import load_saved
from adanat_rl.config.metric_keys import HACKING_DETECTED, HACKING_ITERATION, ITERATION, UNIX_TIME
from adanat_rl.config.run_paths import RunPaths
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.evaluation.evaluator import NAT_PASSES
from adanat_rl.evaluation.judge import FD_A, FD_B, judge_names
from adanat_rl.tracking.mlflow_runs import (
    METRICS_OF_A_REQUEST,
    PARENT_TAG,
    experiment_of,
    final_metrics,
    find_run,
    open_run,
    run_uid,
    tracking_uri,
)

_RETRY_S = 5.0
_CLOSE_TIMEOUT_S = 60.0
_SENTINEL = ITERATION  # a metric of every row: its last step tells which rows the server has
_HACKING_TAG = "adanat_rl.reward_hacking"
_PICTURE = re.compile(r"iteration_(\d{6})\.png$")
_PARAMS = (
    "seed",
    "generator.horizon",
    "policy.kind",
    "policy.hidden_size",
    "ppo.lr",
    "ppo.num_epochs",
    "reward.kind",
    "training.num_iterations",
    "training.trajectories_per_iteration",
)


class Tracker(Protocol):
    """What a training tells its tracker."""

    def wake(self) -> None:
        """There is something new in the run folder."""
        ...

    def finish(self, status: str) -> None:
        """The run has ended: FINISHED, KILLED or FAILED."""
        ...


class NoTracker:
    """Tracking is switched off."""

    def wake(self) -> None:
        """Nothing."""

    def finish(self, status: str) -> None:
        """Nothing."""


@contextmanager
def open_tracker(
    config: ExperimentConfig, files: RunPaths, warn: Callable[[str], None], parent: str | None = None
) -> Iterator[Tracker]:
    """The tracker of a run; on leaving, what is new is sent within a minute, or stays for the next start.

    Args:
        parent: uid of the sweep that the run is a trial of.
    """
    if not config.tracking.enabled:
        yield NoTracker()
        return
    tracker = MlflowTracker(config, files, warn, parent)
    tracker.start()
    try:
        yield tracker
    finally:
        tracker.close()


class MlflowTracker:
    """The thread and its books.

    Args:
        config: names, uri, few params. files: the run folder. warn: told once when the server is away.
        parent: uid of the sweep that the run is a trial of.
    """

    def __init__(
        self, config: ExperimentConfig, files: RunPaths, warn: Callable[[str], None], parent: str | None = None
    ) -> None:
        self._parent = parent
        self._config = config
        self._files = files
        self._warn = warn
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._status: str | None = None
        self._thread = threading.Thread(target=self._run, name="mlflow-tracker", daemon=True)
        self._link: _Link | None = None
        self._warned = False

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def wake(self) -> None:
        """There is something new."""
        self._wake.set()

    def finish(self, status: str) -> None:
        """Notes the final status; it is sent after everything else."""
        self._status = status
        self._wake.set()

    def close(self) -> None:
        """Sends what is left, but no longer than a minute."""
        if self._status is None:
            self._status = "FAILED"
        self._closing.set()
        self._wake.set()
        self._thread.join(_CLOSE_TIMEOUT_S)
        if self._thread.is_alive() or self._link is None or not self._link.done:
            self._warn("warning: MLflow did not take everything; the next start of the same command sends the rest")

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            closing = self._closing.is_set()
            try:
                if self._link is None:
                    self._link = _Link(self._config, self._files, self._parent)
                self._link.send_news()
                if closing and self._status is not None:
                    self._link.end(self._status)
                if closing:
                    return
            except Exception as error:  # whatever a server or a store does must not touch the training
                if closing:
                    return
                if not self._warned:
                    self._warned = True
                    first_line = (str(error).strip().splitlines() or [""])[0]
                    self._warn(f"warning: MLflow is away ({type(error).__name__}: {first_line[:99]}); it is sent later")
                self._closing.wait(_RETRY_S)
                self._wake.set()


class _Link:
    """One MLflow run and what of the run folder it already has."""

    def __init__(self, config: ExperimentConfig, files: RunPaths, parent: str | None) -> None:
        from mlflow import MlflowClient  # takes two seconds to import

        self._parent = parent
        self._config = config
        self._files = files
        self.uri = tracking_uri(config, files.path)
        self._client = MlflowClient(self.uri)
        self.run_id = self._open_run()
        self._last_step = self._last_step_sent()
        self._sent_pictures = self._pictures_sent()
        self._offset = 0
        self._monitor = self._start_system_metrics()
        self.done = False

    def send_news(self) -> None:
        """Sends rows and pictures that the server does not have."""
        for row in self._new_rows():
            self._send_row(row)
        self._send_pictures()

    def end(self, status: str) -> None:
        """Sends the artifacts, and closes the run."""
        if self._monitor is not None:
            self._monitor.finish()
        for file in (
            self._files.config_file,
            self._files.environment_file,
            self._files.evaluation_file,
            self._files.report_file,
        ):
            if file.exists():
                self._client.log_artifact(self.run_id, str(file))
        self._send_evaluation()
        self._describe()
        if status == "FINISHED" and self._files.policy.exists():
            self._client.log_artifacts(self.run_id, str(self._files.policy), "policy")
            self._log_model()
        self._client.set_terminated(self.run_id, status)
        self.done = True

    def _open_run(self) -> str:
        uid = run_uid(self._files.tracking_file)
        tags = {"adanat_rl.kind": "training", "adanat_rl.run_dir": str(self._files.path.resolve())}
        tags["mlflow.source.name"] = "adanat-rl train"
        experiment_id = experiment_of(self._client, self._config, self._files.path)
        run_id, is_new = open_run(self._client, experiment_id, uid, self._config.name, tags)
        if is_new:
            self._client.log_batch(run_id, params=self._params())
        if self._parent is not None:
            parent = find_run(self._client, experiment_id, self._parent)
            if parent is not None:
                self._client.set_tag(run_id, PARENT_TAG, parent)
        return run_id

    def _params(self) -> list[Any]:
        from mlflow.entities import Param

        settings = load_saved(self._files.config_file).model_dump(mode="json")
        values = {}
        for key in _PARAMS:
            value = settings
            for part in key.split("."):
                value = value[part]
            values[key] = value
        return [Param(key, str(value)) for key, value in values.items()]

    def _last_step_sent(self) -> int:
        history = self._client.get_metric_history(self.run_id, _SENTINEL)
        return max((metric.step for metric in history), default=-1)

    def _pictures_sent(self) -> set[tuple[str, int]]:
        """(key, step) of the pictures that the run has."""
        sent = set()
        for artifact in self._client.list_artifacts(self.run_id, "images"):
            parts = Path(artifact.path).name.split("+")
            if len(parts) > 2 and parts[-1].endswith(".png"):
                sent.add((parts[0], int(parts[2])))
        return sent

    def _new_rows(self) -> Iterator[dict[str, Any]]:
        """Complete rows of the file after the last step sent; a file that was cut is read anew."""
        path = self._files.metrics_file
        if not path.exists():
            return
        size = path.stat().st_size
        if size < self._offset:
            self._offset = 0
        with path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                row = json.loads(line)
                if row[ITERATION] > self._last_step:
                    yield row

    def _send_row(self, row: dict[str, Any]) -> None:
        """All numbers of a row in one transaction: a step is there whole or not at all."""
        from mlflow.entities import Metric

        step, timestamp = int(row[ITERATION]), int(row[UNIX_TIME] * 1000)
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float) and name != UNIX_TIME}
        self._client.log_batch(
            self.run_id, metrics=[Metric(name, float(value), timestamp, step) for name, value in numbers.items()]
        )
        if row.get(HACKING_DETECTED):
            self._client.set_tag(self.run_id, _HACKING_TAG, f"seen at iteration {row[HACKING_ITERATION]:.0f}")
        self._last_step = step

    def _send_pictures(self) -> None:
        from PIL import Image

        for key, folder in (("samples", self._files.samples), ("decisions", self._files.figures)):
            for file in sorted(folder.glob("*.png")):
                found = _PICTURE.search(file.name)
                if found and (key, int(found[1])) not in self._sent_pictures:
                    self._client.log_image(self.run_id, Image.open(file), key=key, step=int(found[1]))
                    self._sent_pictures.add((key, int(found[1])))

    def _send_evaluation(self) -> None:
        """The final numbers as metrics `final/…`, at the step of the last row."""
        from mlflow.entities import Metric

        if not self._files.evaluation_file.exists():
            return
        now = int(self._files.evaluation_file.stat().st_mtime * 1000)
        step = max(0, self._last_step)
        metrics = [Metric(name, value, now, step) for name, value in final_metrics(self._files.evaluation_file).items()]
        for start in range(0, len(metrics), METRICS_OF_A_REQUEST):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + METRICS_OF_A_REQUEST])

    def _describe(self) -> None:
        """What was learned, as the run's description: Markdown that the dashboard shows at the top."""
        if not self._files.evaluation_file.exists():
            return
        comparison = json.loads(self._files.evaluation_file.read_text())
        names = judge_names(self._config.evaluation)
        titles = {FD_A: names.short_a, FD_B: names.short_b}
        keys = [key for key in titles if key in comparison["rows"][0]["summary"]]
        lines = [f"| | T | {' | '.join(titles[key] for key in keys)} | NAT passes |", "|---" * (3 + len(keys)) + "|"]
        for row in comparison["rows"]:
            numbers = row["summary"]
            distances = [f"{numbers[key]['mean']:.3f} ± {numbers[key]['sd']:.3f}" for key in keys]
            passes = f"{numbers[NAT_PASSES]['mean']:.1f}"
            lines.append(f"| {row['title']} | {row['horizon']} | {' | '.join(distances)} | {passes} |")
        verdict = comparison["verdict"]["sentence"] + "\n\n" if comparison["verdict"] else ""
        self._client.set_tag(self.run_id, "mlflow.note.content", verdict + "\n".join(lines))

    def _log_model(self) -> None:
        from adanat_rl.tracking.mlflow_model import log_policy_model

        if not self._client.get_run(self.run_id).data.tags.get("adanat_rl.model_uri"):
            model_uri = log_policy_model(self.uri, self.run_id, self._files.policy)
            self._client.set_tag(self.run_id, "adanat_rl.model_uri", model_uri)

    def _start_system_metrics(self) -> Any:
        if not self._config.tracking.system_metrics:
            return None
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(self.run_id, resume_logging=True, tracking_uri=self.uri)
        monitor.start()
        return monitor
