"""The folder of a pretraining: parts grow aside in it and come to their place together, when all of them are there.

A part that is finished is kept with its SHA-256 and with what was learned about it, so the same command goes on with
the part at which it stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from adanat_rl.config.errors import UserError
from adanat_rl.config.files import (
    CHECKSUM,
    file_sha256,
    json_line,
    read_json_line,
    remove_leftovers,
    write_atomically,
)
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.experiment.lock import LOCK, acquire_lock
from adanat_rl.experiment.same_run import flat_settings
from adanat_rl.experiment.training_state import TrainingState

ASIDE = ".unfinished"
_PROGRESS = "progress.json"
_PARTIAL = ".partial"
_COMPLETE = "complete"  # a file that says that all parts are there and on their way to their place
_DECIDING = ("seed", "data", "pretraining", "evaluation")  # settings that decide what comes out


@dataclass(frozen=True)
class _Part:
    """A finished network: the hash of its file, and what was learned about it."""

    sha256: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class _Progress:
    """What `progress.json` holds."""

    settings: dict[str, Any]
    parts: dict[str, _Part]
    rows: list[dict[str, Any]]
    elapsed_s: float


_PROGRESS_TYPE = TypeAdapter(_Progress)


class PretrainingFolder:
    """What is done so far, and where it lies; close it when the work ends, however it ends.

    Args:
        target: the folder that people name. config: whose pretraining it is.
        start_over: throws away what an interrupted pretraining left.

    Raises:
        UserError: the folder is in use, not empty, cannot be made, or an interrupted pretraining lies in it that had
            other settings.
    """

    def __init__(self, target: Path, config: ExperimentConfig, *, start_over: bool = False) -> None:
        self.target, self.path = target, target / ASIDE
        self._lock = _take(target, self.path)
        try:
            self._settings = _deciding(config)
            if start_over:
                self._clear()
            remove_leftovers(self.path)
            self._parts: dict[str, _Part] = {}
            self.rows: list[dict[str, Any]] = []
            self.elapsed_s = 0.0
            self.tell: Callable[[str], None] = lambda message: None
            self._problem = self._read()
        except BaseException:
            self._lock.close()
            raise

    def is_complete(self, last: str) -> bool:
        """Whether all is made and only has to come to its place: a delivery was interrupted before its last file."""
        return (self.path / _COMPLETE).exists() and (self.path / last).exists()

    @property
    def has_begun(self) -> bool:
        """Whether there is something to go on with."""
        return bool(self._parts) or any(self.path.glob(f"*{_PARTIAL}"))

    def announce(self, tell: Callable[[str], None]) -> None:
        """Whom to tell of damaged files from now on; tells what was found when the folder was opened."""
        self.tell = tell
        if self._problem:
            tell(self._problem)
        elif self.has_begun:
            tell(f"goes on; finished: {', '.join(self._parts) or 'no part yet'}")

    def part(self, name: str, make: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
        """What is known about a network; makes its file only if it is not there.

        Args:
            name: of the file `NAME.safetensors` in `path`. make: writes the file and says what was learned, JSON-ready.
        """
        file = self.file(name)
        known = self._parts.get(name)
        if known is not None:
            if file.is_file() and file_sha256(file) == known.sha256:
                return known.facts
            self.tell(f"{file} is missing or damaged; it is made again")
        facts = dict(make(file))
        self._parts[name] = _Part(file_sha256(file), facts)
        self.write()
        self.state(name).remove()
        return facts

    def file(self, name: str) -> Path:
        """Where a network lies until all are finished."""
        return self.path / f"{name}.safetensors"

    def state(self, name: str) -> TrainingState:
        """Where the training of a network leaves its state."""
        return TrainingState(self.path / f"{name}{_PARTIAL}", self.tell)

    def add_row(self, row: dict[str, Any]) -> None:
        """Takes in a row of progress; one that was written before its training began anew is replaced."""
        self.rows = [old for old in self.rows if (old.get("stage"), old.get("step")) != (row["stage"], row["step"])]
        self.rows.append(row)

    def write(self) -> None:
        """Puts what is known on the disk."""
        content = _Progress(self._settings, self._parts, self.rows, self.elapsed_s)
        write_atomically(self.path / _PROGRESS, json_line(asdict(content)))

    def deliver(self, last: str) -> None:
        """Moves everything to where people look for it, one file last.

        Args:
            last: the file whose presence says that all are there.
        """
        (self.path / _COMPLETE).touch()
        made = [file for file in self.path.iterdir() if file.name not in (LOCK, _PROGRESS, _COMPLETE)]
        for file in sorted(made, key=lambda file: (file.name == last, file.name)):
            file.replace(self.target / file.name)
        shutil.rmtree(self.path)

    def close(self) -> None:
        """Gives the lock back; a folder in which nothing was kept goes."""
        if self.path.exists() and not self.has_begun:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    def _read(self) -> str | None:
        """Takes in what is there; what is wrong with it, in words."""
        file = self.path / _PROGRESS
        if not file.exists():
            self._clear()
            return None
        content = _read_progress(file)
        if content is None:
            self._clear()
            return f"{file} is damaged; the pretraining begins anew"
        self._refuse_others(content.settings)
        self._parts, self.rows, self.elapsed_s = content.parts, content.rows, content.elapsed_s
        return None

    def _refuse_others(self, settings: Mapping[str, Any]) -> None:
        for key in sorted({*settings, *self._settings}):
            theirs, ours = settings.get(key), self._settings.get(key)
            if theirs != ours:
                raise UserError(
                    f"{key}: an interrupted pretraining in {self.target} has {theirs!r}, here it is {ours!r}; take the "
                    "same settings to go on, choose another --run-dir, or begin anew with --start-over"
                )

    def _clear(self) -> None:
        for entry in self.path.iterdir():
            if entry.name != LOCK:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _read_progress(file: Path) -> _Progress | None:
    """What a file says; None if it is not as it was written."""
    try:
        content = file.read_bytes()
        row, is_intact = read_json_line(content)
        if row is None or not is_intact or CHECKSUM.encode() not in content:
            return None
        return _PROGRESS_TYPE.validate_python(row)
    except (OSError, ValidationError):
        return None


def _deciding(config: ExperimentConfig) -> dict[str, Any]:
    """The settings that decide what comes out, as JSON gives them back."""
    chosen = {key: value for key, value in flat_settings(config).items() if key.split(".")[0] in _DECIDING}
    settings: dict[str, Any] = json.loads(json.dumps(chosen))
    return settings


def _take(target: Path, aside: Path) -> IO[Any]:
    """Makes both folders; returns the lock, which lies in the one aside."""
    made_aside = not aside.exists()
    try:
        target.mkdir(parents=True, exist_ok=True)
        if any(entry.name != ASIDE for entry in target.iterdir()) and not (aside / _COMPLETE).exists():
            raise UserError(f"run_dir: {target} is not empty; choose another --run-dir")
        aside.mkdir(exist_ok=True)
        return acquire_lock(aside)
    except OSError as error:
        if made_aside:
            with suppress(OSError):
                aside.rmdir()
        raise UserError(f"run_dir: cannot make {target}: {error.strerror}; choose another --run-dir") from None
