"""The run folder: what lies where, who may write, and whether a folder belongs to this configuration."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.files import is_leftover, remove_leftovers, write_atomically
from adanat_rl.config.loading import dump, load_file, load_saved, validate
from adanat_rl.config.metric_keys import ITERATION
from adanat_rl.config.metric_rows import read_metric_rows
from adanat_rl.config.plain_files import require_plain_files
from adanat_rl.config.run_paths import RunPaths
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.experiment.checkpoints import DamagedCheckpointError, checkpoint_folders, read_state
from adanat_rl.experiment.contents import contents_of
from adanat_rl.experiment.environment import note_start
from adanat_rl.experiment.lock import DISK_ERRORS, LOCK, take_folder
from adanat_rl.experiment.same_run import (
    Difference,
    Identity,
    differences,
    flat_settings,
    identity_of,
    record_changes,
    with_accepted,
)

_REPLACED_BY_NAME = ("evaluation.reference",)  # another name of one's own choice is no exchange behind one's back
_BEFORE = "before_start_over"


class RunFolder(RunPaths):
    """The paths of a run, and the lock on it.

    Args:
        path: the folder.
    """

    kind = "run"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._lock: IO[str] | None = None
        self.identity: Identity | None = None

    def prepare(
        self,
        config: ExperimentConfig,
        known_files: Sequence[str] = (),
        may_change: Sequence[str] = (),
        *,
        accept_change: bool = False,
        start_over: bool = False,
    ) -> None:
        """Makes the folder, takes the lock and writes or compares the configuration.

        Args:
            known_files: that may lie in a new folder. may_change: settings that may differ from those of the folder.
            accept_change: goes on with other settings or contents, and records which. start_over: puts an existing
                history aside and begins anew.

        Raises:
            UserError: no permission, another kind of folder, another run's folder, or a run that is still going on.
        """
        self._lock = take_folder(self.path)
        try:
            self._check_kind(known_files)
            self._remove_leftovers()
            if start_over:
                self._put_aside()
            self.identity = identity_of(config, contents_of(config, self.hashes_file))
            if self.config_file.exists():
                self._compare(config, may_change, accept_change=accept_change)
            write_atomically(self.config_file, dump(config))
            self._note_contents(self.identity)
            note_start(self.environment_file)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Gives the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def require_presence(self) -> None:
        """Looks whether the folder is still there, under its name.

        Raises:
            RunError: it was deleted or moved while the run is going on.
        """
        if self._lock is None:
            return
        try:
            found = (self.path / LOCK).stat()
        except OSError:
            found = None
        ours = os.fstat(self._lock.fileno())
        if found is None or (found.st_dev, found.st_ino) != (ours.st_dev, ours.st_ino):
            raise RunError(
                f"the {self.kind} folder {self.path} was deleted or moved while it is written to",
                safe="what was moved, if it was",
            )

    def saved_config(self) -> ExperimentConfig:
        """The configuration of the run.

        Raises:
            UserError: this is no run folder, or something in it is a pipe or a device.
        """
        require_plain_files(self.path)
        if not self.config_file.exists():
            raise UserError(f"{self.path} is no {self.kind} folder: it has no {self.config_file.name}")
        return load_saved(self.config_file)

    @property
    def has_history(self) -> bool:
        """Whether an iteration was ever finished here, whatever is left of it."""
        return (
            any(iteration > 0 for iteration in checkpoint_folders(self.checkpoints))
            or any((self.checkpoints / "damaged").glob("*"))
            or any(row[ITERATION] > 0 for row in read_metric_rows(self.metrics_file).rows)
            or any(self.rollouts.glob("iteration_*.parquet"))
        )

    def _check_kind(self, known_files: Sequence[str]) -> None:
        """A folder that holds something else is left alone; what a start that was killed left behind does not count."""
        if self.config_file.exists():
            if not self.config_file.is_file():
                raise UserError(f"run_dir: {self.config_file} is no file; choose another --run-dir")
            return
        names = sorted(entry.name for entry in self.path.iterdir() if not is_leftover(entry))
        ours = {LOCK, self.hashes_file.name, *known_files}
        foreign = [name for name in names if name not in ours and not name.startswith(_BEFORE)]
        if foreign:
            raise UserError(
                f"run_dir: {self.path} holds other files and is no {self.kind} folder ({foreign[0]}); "
                "choose another --run-dir"
            )

    def _note_contents(self, identity: Identity) -> None:
        """For folders without checkpoints, which hold the identity of a run."""

    def _remove_leftovers(self) -> None:
        """Unfinished files of a start that was killed: we hold the lock, so nobody is writing them."""
        for folder in (self.path, self.policy, self.samples, self.figures, self.rollouts, self.pieces):
            remove_leftovers(folder)

    def _compare(self, config: ExperimentConfig, may_change: Sequence[str], *, accept_change: bool) -> None:
        """Refuses to go on as another run; a folder in which nothing was finished yet is taken over instead."""
        found = self._found_differences(config, may_change)
        if not found:
            return
        if not self.has_history:
            self._clear()
            return
        if accept_change:
            record_changes(self.changes_file, found, max(checkpoint_folders(self.checkpoints), default=0))
            return
        first, more = found[0], f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UserError(
            f"run_dir: {self.path} belongs to another {self.kind}: {first}{more}; choose another --run-dir, "
            f"or go on with the same settings by --run-dir {self.path} alone, or take the change by --accept-change"
        )

    def _found_differences(self, config: ExperimentConfig, may_change: Sequence[str]) -> list[Difference]:
        assert self.identity is not None
        saved = self._saved_settings()
        here = flat_settings(config)
        free = [*may_change, *(key for key in _REPLACED_BY_NAME if _value_at(saved, key) != here.get(key))]
        recorded = self._recorded_identity()
        if recorded is None:  # nothing was finished, or by a version that recorded none: the settings as saved
            recorded = identity_of(validate(saved, self.config_file), {}) if saved else Identity({}, {})
        return differences(self.identity, with_accepted(recorded, self.changes_file), free)

    def _recorded_identity(self) -> Identity | None:
        """What the newest checkpoint was made with."""
        for folder in reversed(checkpoint_folders(self.checkpoints).values()):
            with suppress(DamagedCheckpointError, KeyError, TypeError, ValueError):
                state = read_state(folder)
                return Identity(dict(state["settings"]), dict(state["contents"]))
        return None

    def _saved_settings(self) -> dict[str, Any]:
        try:
            return load_file(self.config_file, "run_dir")
        except UserError:
            if self.has_history and self._recorded_identity() is None:
                raise
            return {}

    def _clear(self) -> None:
        """Removes what a start without a finished iteration left: it was of other settings."""
        for folder in (self.checkpoints, self.samples, self.figures, self.pieces, self.policy, self.rollouts):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.metrics_file, self.tracking_file, self.environment_file, self.summary_file):
            file.unlink(missing_ok=True)

    def _put_aside(self) -> None:
        """Moves everything into a folder beside it, so that starting over loses nothing."""
        entries = [entry for entry in self.path.iterdir() if entry.name != LOCK and not entry.name.startswith(_BEFORE)]
        if not entries:
            return
        stamp = time.strftime("%Y%m%d-%H%M%S")
        names = (f"{_BEFORE}_{stamp}", *(f"{_BEFORE}_{stamp}_{number}" for number in range(1, 1000)))
        target = next(self.path / name for name in names if not (self.path / name).exists())
        target.mkdir()
        for entry in entries:
            entry.rename(target / entry.name)


def _value_at(settings: Mapping[str, Any], key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def disk_error(error: OSError, folder: Path, safe: str, resume: str) -> RunError | None:
    """The failure to report when a file could not be written or read; None for an error of another kind.

    Args:
        folder: that is written to. safe, resume: see `RunError`.
    """
    name = error.filename if isinstance(error.filename, str | os.PathLike) else None
    what = error.strerror or type(error).__name__
    if error.errno in DISK_ERRORS and (name is None or _lies_in(Path(name), folder)):
        return RunError(f"cannot write in {folder}: {what}", safe, resume)
    return None if name is None else RunError(f"cannot use {name}: {what}", safe, resume)


def _lies_in(path: Path, folder: Path) -> bool:
    return path.absolute().is_relative_to(folder.absolute())
