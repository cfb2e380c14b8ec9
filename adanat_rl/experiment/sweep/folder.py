"""The folder of a sweep: what lies where, what each trial has come to, and whether it belongs to this sweep file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.files import append_line, json_line, read_json_lines, remove_leftovers, write_atomically
from adanat_rl.config.metric_keys import ITERATION
from adanat_rl.config.run_paths import RunPaths
from adanat_rl.config.secrets import hide_secrets
from adanat_rl.config.sweep_settings import SweepConfig, read_sweep, validate_sweep
from adanat_rl.config.yaml_reader import dump_yaml
from adanat_rl.experiment.lock import LOCK, take_folder
from adanat_rl.experiment.sweep.plan import TrialSpec

PENDING, RUNNING, FINISHED = "pending", "running", "finished"
STOPPED = "stopped"  # by the scheduler: it was among the worse ones
INTERRUPTED = "interrupted"  # it goes on with the next start
FAILED = "failed"
_DONE = {FINISHED, STOPPED}
# What may change between a start and a resume: it touches no trial that there is.
_FREE = ("seeds", "title", "resources")


@dataclass(frozen=True)
class TrialState:
    """A trial and what it has come to; `reason` is that of a failure."""

    spec: TrialSpec
    status: str
    reason: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.status in _DONE


class SweepFolder:
    """Paths of a sweep, its lock and its books.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[Any] | None = None

    @property
    def sweep_file(self) -> Path:
        """The sweep, resolved, YAML."""
        return self.path / "sweep.yaml"

    @property
    def trials_file(self) -> Path:
        """All trials with what they have come to, JSON."""
        return self.path / "trials.json"

    @property
    def tracking_file(self) -> Path:
        """The sweep's identity in MLflow, JSON."""
        return self.path / "tracking.json"

    @property
    def stop_file(self) -> Path:
        """While it exists, trials end at the next iteration."""
        return self.path / "stop"

    @property
    def scheduler_folder(self) -> Path:
        """Where Tune keeps its books of the start that is going on; nothing is read from it."""
        return self.path / "tune"

    def trial(self, spec: TrialSpec) -> RunPaths:
        """The run folder of a trial."""
        return RunPaths(self.path / "trials" / spec.name)

    def prepare(self, sweep: SweepConfig, overrides: Sequence[str]) -> None:
        """Makes the folder, takes the lock and writes or compares the sweep.

        Raises:
            UserError: no permission, other files, another sweep, or one that is still going on.
        """
        self._lock = take_folder(self.path)
        try:
            remove_leftovers(self.path)
            if self.sweep_file.exists():
                self._compare(sweep, overrides)
            elif any(entry.name != LOCK for entry in self.path.iterdir()):
                raise UserError(f"run_dir: {self.path} holds other files and is no sweep; choose another --run-dir")
            for note in self._notes():
                remove_leftovers(note.parent)
            content = {**sweep.model_dump(mode="json"), "overrides": list(overrides)}
            text = dump_yaml(content)
            write_atomically(self.sweep_file, hide_secrets(text))
            self.stop_file.unlink(missing_ok=True)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Gives the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def saved(self) -> tuple[SweepConfig, tuple[str, ...]]:
        """The sweep of the folder and the overrides that it was started with.

        Raises:
            UserError: this is no sweep folder, or its file is damaged.
        """
        if not self.sweep_file.exists():
            raise UserError(f"{self.path} is no sweep: it has no sweep.yaml")
        content = read_sweep(self.sweep_file, "run_dir")
        overrides = content.pop("overrides", None)
        if not isinstance(overrides, list) or not all(isinstance(override, str) for override in overrides):
            raise UserError(f"{self.sweep_file} is damaged: it has no list of overrides")
        return validate_sweep(content), tuple(overrides)

    def write_trial(self, spec: TrialSpec, status: str, reason: str | None = None) -> None:
        """Notes what a trial has come to."""
        content = {**describe(spec), "status": status, "reason": reason}
        write_atomically(self._note(spec), json.dumps(content, indent=1, ensure_ascii=False))

    def read_trial(self, spec: TrialSpec) -> TrialState:
        """What a trial has come to, as far as it is known; one whose note is damaged is gone on with."""
        content = _read_note(self._note(spec))
        if content is None:
            return TrialState(spec, PENDING)
        return TrialState(_spec_of(content), content["status"], content["reason"])

    def note_takeover(self, spec: TrialSpec, origin: int, iteration: int, settings: Mapping[str, Any]) -> None:
        """Notes that a trial went on from the state of another one, and the parameters it went on with."""
        row = {"from": origin, ITERATION: iteration, "settings": dict(settings)}
        append_line(self._takeovers(spec), json_line(row))

    def noted_trials(self) -> list[TrialSpec]:
        """Trials that have begun, by number.

        Raises:
            RunError: a note is damaged: which settings the trial has is not known any more.
        """
        found = []
        for note in self._notes():
            content = _read_note(note)
            if content is None:
                raise RunError(
                    f"{note} is damaged; its settings stand in {note.parent / 'config.yaml'}",
                    safe=f"the trials in {self.path / 'trials'}",
                )
            found.append(_spec_of(content))
        return sorted(found, key=lambda spec: spec.number)

    def _notes(self) -> list[Path]:
        return sorted(self.path.glob("trials/*/trial.json"))

    def write_trials(self, sweep: SweepConfig, specs: Sequence[TrialSpec], *, is_over: bool) -> list[TrialState]:
        """Writes the book of all trials and returns it.

        Args:
            is_over: whether nothing runs any more: what was not ended is then interrupted.
        """
        states = [self.read_trial(spec) for spec in specs]
        if is_over:
            states = [
                TrialState(state.spec, INTERRUPTED, state.reason) if state.status == RUNNING else state
                for state in states
            ]
        content = {
            "name": sweep.name,
            "title": sweep.title,
            "arms": list(dict.fromkeys(spec.arm for spec in specs)),
            "parameters": list(sweep.parameters),
            "metric": sweep.metric,
            "direction": "min" if sweep.minimises else "max",
            "trials": [
                {
                    **describe(state.spec),
                    "status": state.status,
                    "reason": state.reason,
                    "folder": f"trials/{state.spec.name}",
                    "takeovers": read_json_lines(self._takeovers(state.spec)),
                }
                for state in states
            ],
        }
        write_atomically(self.trials_file, json.dumps(content, indent=1, ensure_ascii=False))
        return states

    def _note(self, spec: TrialSpec) -> Path:
        return self.trial(spec).path / "trial.json"

    def _takeovers(self, spec: TrialSpec) -> Path:
        return self.trial(spec).path / "takeovers.jsonl"

    def _compare(self, sweep: SweepConfig, overrides: Sequence[str]) -> None:
        saved, saved_overrides = self.saved()
        ours, theirs = sweep.model_dump(mode="json"), saved.model_dump(mode="json")
        ours["overrides"], theirs["overrides"] = list(overrides), list(saved_overrides)
        ours = json.loads(hide_secrets(json.dumps(ours)))  # as it was saved
        for key in ours:
            if key not in _FREE and ours[key] != theirs[key]:
                raise UserError(
                    f"run_dir: {self.path} belongs to another sweep: {key} is {theirs[key]!r} there and {ours[key]!r} "
                    "here; choose another --run-dir, or the same file to go on"
                )
        if sweep.seeds[: len(saved.seeds)] != saved.seeds:
            raise UserError(
                f"seeds: {list(sweep.seeds)} does not begin with those of {self.path}, {list(saved.seeds)}; "
                "seeds may be added at the end"
            )


def describe(spec: TrialSpec) -> dict[str, Any]:
    """A trial, JSON-ready."""
    return {
        "name": spec.name,
        "number": spec.number,
        "arm": spec.arm,
        "seed": spec.seed,
        "settings": dict(spec.settings),
    }


def _read_note(file: Path) -> dict[str, Any] | None:
    """What a note says; None if there is none, or it is damaged."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    kinds = {"number": int, "arm": str, "seed": int, "settings": dict, "status": str, "reason": str | None}
    if not isinstance(content, dict) or not all(isinstance(content.get(key), kind) for key, kind in kinds.items()):
        return None
    return content


def _spec_of(content: Mapping[str, Any]) -> TrialSpec:
    return TrialSpec(content["number"], content["arm"], content["seed"], content["settings"])
