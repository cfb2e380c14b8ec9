"""One MLflow run and what of a run folder it has; all that it lacks is sent, and nothing twice."""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from adanat_rl.config.comparison_file import read_comparison
from adanat_rl.config.metric_keys import HACKING_DETECTED, HACKING_ITERATION, ITERATION, UNIX_TIME, is_measured
from adanat_rl.config.run_paths import RunPaths
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.tracking.description import describe_comparison
from adanat_rl.tracking.destinations import Destination
from adanat_rl.tracking.identity import as_copy, claim, confirm, is_original_of
from adanat_rl.tracking.metric_names import to_mlflow
from adanat_rl.tracking.mlflow_runs import (
    PARENT_TAG,
    RUN_DIR_TAG,
    UID_TAG,
    artifacts_of,
    common_tags,
    complete_params,
    final_metrics,
    find_run,
    flat_settings,
    is_same,
    open_run,
    send_files,
    send_numbers,
    values_of,
)
from adanat_rl.tracking.outbox import Outbox
from adanat_rl.tracking.system_metrics import Sample

_HACKING_TAG = "adanat_rl.reward_hacking"
_NAMES_TAG = "adanat_rl.renamed_metrics"
_FINAL_TAG = "adanat_rl.final_numbers"
_MODEL_TAG, _MODEL_OF_TAG = "adanat_rl.model_uri", "adanat_rl.model_of"
_SUPERSEDED_TAG = "adanat_rl.superseded"
_NAMES_FILE = "metric_names.json"
_PICTURE = re.compile(r"iteration_(\d{6})\.png$")
_SAMPLES_KEPT = 1000  # of the machine, while the store is away
_TAG_LENGTH = 8000


class Link:
    """The run of one store.

    Args:
        config: of the run. files: its folder. destination: the store. stores: addresses of all stores of the run. tell:
            takes a line for people. parent: uid of the sweep that the run is a trial of.

    Raises:
        Exception: whatever tells that nothing can be sent now; see `troubles.explain`.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        files: RunPaths,
        destination: Destination,
        stores: list[str],
        tell: Callable[[str], None],
        parent: str | None,
    ) -> None:
        self._config = config
        self._files = files
        self._stores = stores
        self._tell = tell
        self._parent = parent
        self._uri = destination.uri
        self._client = destination.connect()
        self._experiment_id = destination.experiment_id(self._client)
        self._uid = self._identity()
        self._outbox = Outbox(files.metrics_file)
        self._samples: deque[Sample] = deque(maxlen=_SAMPLES_KEPT)
        self._open()

    def note(self, sample: Sample) -> None:
        """Keeps a sample of the machine until it is sent."""
        self._samples.append(sample)

    def send_news(self, is_enough: Callable[[], bool] = lambda: False) -> bool:
        """Sends rows, pictures and samples that the run does not have.

        Args:
            is_enough: asked behind each row whether the rest has to wait for the next call.

        Returns:
            Whether all of it was sent.
        """
        self._histories: dict[str, dict[int, list[float]]] = {}  # of the run, while rewritten rows are compared
        for row in self._outbox:
            if not self._take(row):
                self._supersede(int(row[ITERATION]))
                return False
            if is_enough():
                return False
        if self._outbox.damage:
            self._tell(f"warning: {self._outbox.damage}")
        self._send_pictures()
        while self._samples:
            sample = self._samples[0]
            send_numbers(self._client, self.run_id, sample.numbers, sample.time_ms, self._next_sample)
            self._next_sample += 1
            self._samples.popleft()
        return True

    def end(self, status: str) -> None:
        """Sends the artifacts, and closes the run."""
        files = self._files
        artifacts = [files.config_file, files.environment_file, files.evaluation_file, files.report_file]
        send_files(self._client, self.run_id, {file.name: file for file in artifacts if file.is_file()})
        self._send_evaluation()
        if status == "FINISHED" and files.policy.is_dir():
            policy = [file for file in sorted(files.policy.iterdir()) if file.is_file()]
            send_files(self._client, self.run_id, {f"policy/{file.name}": file for file in policy})
            self._log_model(policy)
        self._client.set_terminated(self.run_id, status)

    # --- opening

    def _identity(self) -> str:
        """The uid of the folder; one that an earlier version noted is compared with the folder of its MLflow run."""
        file = self._files.tracking_file
        identity = claim(file, self._stores)
        if not identity.is_known:
            run = find_run(self._client, self._experiment_id, identity.uid)
            place = None if run is None else run.data.tags.get(RUN_DIR_TAG)
            if place is not None and is_original_of(file, identity.uid, Path(place)):
                identity = as_copy(file, place, self._stores)
            else:
                confirm(file, identity.uid, self._stores)
        if identity.news:
            self._tell(identity.news)
        return identity.uid

    def _open(self) -> None:
        """Finds or makes the run, completes what it is, and asks what it has."""
        tags = common_tags("training", "train", self._files.path, self._revision())
        tags["adanat_rl.name"] = self._config.name
        client, name = self._client, self._files.path.resolve().name
        self.run_id = str(open_run(client, self._experiment_id, self._uid, name, tags).info.run_id)
        run = client.get_run(self.run_id)
        complete_params(client, run, flat_settings(self._config))
        parent = None if self._parent is None else find_run(client, self._experiment_id, self._parent)
        if parent is not None:
            client.set_tag(self.run_id, PARENT_TAG, parent.info.run_id)
        self._steps: dict[int, set[int]] = {}  # steps that the run has, and when their rows were written (ms)
        for point in client.get_metric_history(self.run_id, ITERATION):
            self._steps.setdefault(int(point.step), set()).add(int(point.timestamp))
        self._names = _mapping(run.data.tags.get(_NAMES_TAG))
        self._pictures = self._pictures_sent(run)
        known = [name for name in run.data.metrics if name.startswith("system/")]
        self._next_sample = 0
        if known:
            self._next_sample = 1 + max(point.step for point in client.get_metric_history(self.run_id, known[0]))

    def _revision(self) -> str | None:
        try:
            return (
                str(json.loads(self._files.environment_file.read_text(encoding="utf-8"))["git_revision"] or "") or None
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _pictures_sent(self, run: Any) -> set[tuple[str, int]]:
        """(key, step) of the pictures that the run has."""
        sent = set()
        for path in artifacts_of(self._client, run, "images"):
            parts = Path(path).name.split("+")
            if len(parts) > 2 and parts[-1].endswith(".png"):
                sent.add((parts[0], int(parts[2])))
        return sent

    # --- rows

    def _take(self, row: dict[str, Any]) -> bool:
        """Sees to it that the run has a row; False if it has other values for its step, which MLflow cannot change."""
        step, time_ms = int(row[ITERATION]), int(row.get(UNIX_TIME, 0) * 1000)
        numbers = {
            name: float(value) for name, value in row.items() if isinstance(value, int | float) and name != UNIX_TIME
        }
        numbers[ITERATION] = numbers.pop(ITERATION)  # last: who finds it there finds the whole row
        known = self._steps.get(step, set())
        if time_ms in known:
            return True
        if known:  # the history was cut back, and the step computed again
            missing = self._missing(step, numbers)
            if missing is None:
                return False
            numbers = missing
        self._explain_names(numbers)
        send_numbers(self._client, self.run_id, numbers, time_ms, step)
        if row.get(HACKING_DETECTED):
            self._client.set_tag(self.run_id, _HACKING_TAG, f"seen at iteration {row.get(HACKING_ITERATION, step):.0f}")
        self._steps.setdefault(step, set()).add(time_ms)
        return True

    def _missing(self, step: int, numbers: Mapping[str, float]) -> dict[str, float] | None:
        """The numbers of a step that the run lacks; None if it has others. What a clock measured may differ."""
        missing: dict[str, float] = {}
        for name, value in numbers.items():
            if name not in self._histories:
                self._histories[name] = values_of(self._client, self.run_id, name)
            there = self._histories[name].get(step, [])
            if not there:
                missing[name] = value
            elif not is_measured(name) and not any(is_same(value, other) for other in there):
                return None
        return missing

    def _supersede(self, step: int) -> None:
        """Leaves a run whose history was computed again with other values, and begins a new one in its place."""
        client, old = self._client, self.run_id
        reason = f"from iteration {step} on computed again with other values"
        client.set_tag(old, _SUPERSEDED_TAG, reason)
        client.update_run(old, status="KILLED", name=f"{self._files.path.resolve().name} (superseded)")
        client.set_tag(old, UID_TAG, f"{self._uid}.{old}")  # last: from here on the next start finds no run of this uid
        self._tell(f"{self._files.path}: {reason}; MLflow keeps the run so far as superseded, and gets a new one")
        self._outbox.rewind()
        self._open()

    def _explain_names(self, numbers: Mapping[str, float]) -> None:
        """Notes in the run, and says once, which metrics have another name there."""
        renamed = {to_mlflow(name): name for name in numbers if to_mlflow(name) != name}
        new = {theirs: ours for theirs, ours in renamed.items() if theirs not in self._names}
        if not new:
            return
        self._names |= new
        self._client.log_dict(self.run_id, self._names, _NAMES_FILE)
        self._client.set_tag(self.run_id, _NAMES_TAG, json.dumps(self._names, ensure_ascii=False)[:_TAG_LENGTH])
        first = next(iter(new))
        more = f" and {len(new) - 1} more" if len(new) > 1 else ""
        self._tell(f"metric {new[first]!r}{more} is tracked as {first!r}: the tracking server takes no such names")

    # --- pictures, results

    def _send_pictures(self) -> None:
        from PIL import Image

        for key, folder in (("samples", self._files.samples), ("decisions", self._files.figures)):
            for file in sorted(folder.glob("*.png")):
                found = _PICTURE.search(file.name)
                if not found or (key, int(found[1])) in self._pictures:
                    continue
                try:
                    picture = Image.open(file)
                    picture.load()
                except Exception:  # not whole, or gone: Pillow raises of many kinds, and the run folder tells
                    continue
                self._client.log_image(self.run_id, picture, key=key, step=int(found[1]), synchronous=True)
                self._pictures.add((key, int(found[1])))

    def _send_evaluation(self) -> None:
        """The final numbers as metrics `final/…`, at the step of the last row, and the run's description."""
        file = self._files.evaluation_file
        try:
            comparison = read_comparison(file)
        except ValueError:  # not there, or damaged, which `audit` and the report tell; a training makes it again
            return
        step = max(self._steps, default=0)
        time_ms = max(self._steps.get(step, {0}))
        digest = _digest(f"{step}", file)
        tags = self._client.get_run(self.run_id).data.tags
        if tags.get(_FINAL_TAG) != digest:
            numbers = final_metrics(comparison)
            there = {name: values_of(self._client, self.run_id, name).get(step, []) for name in numbers}
            new = {
                name: value
                for name, value in numbers.items()
                if not any(is_same(value, other) or is_measured(name) for other in there[name])
            }
            if any(there[name] for name in new):
                self._tell("the final numbers were made again with other values: MLflow shows the new ones")
                time_ms = int(file.stat().st_mtime * 1000)
            self._explain_names(new)
            send_numbers(self._client, self.run_id, new, time_ms, step)
            self._client.set_tag(self.run_id, _FINAL_TAG, digest)
        text = describe_comparison(self._config, comparison)
        if text != tags.get("mlflow.note.content"):
            self._client.set_tag(self.run_id, "mlflow.note.content", text)

    def _log_model(self, policy: list[Path]) -> None:
        """Logs the policy as a model, once for each policy."""
        from adanat_rl.tracking.mlflow_model import find_policy_model, log_policy_model

        digest = _digest("policy", *policy)
        tags = self._client.get_run(self.run_id).data.tags
        if tags.get(_MODEL_TAG) and tags.get(_MODEL_OF_TAG) == digest:
            return
        model_uri = find_policy_model(self._client, self._experiment_id, self.run_id, digest)
        if model_uri is None:
            model_uri = log_policy_model(self._uri, self.run_id, self._files.policy, digest)
        self._client.set_tag(self.run_id, _MODEL_TAG, model_uri)
        self._client.set_tag(self.run_id, _MODEL_OF_TAG, digest)


def _digest(start: str, *files: Path) -> str:
    content = hashlib.sha256(start.encode())
    for file in files:
        content.update(file.name.encode() + file.read_bytes())
    return content.hexdigest()[:16]


def _mapping(text: str | None) -> dict[str, str]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
