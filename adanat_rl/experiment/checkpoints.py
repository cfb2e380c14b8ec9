"""Verified checkpoints: written aside, put on the disk, listed with hashes, renamed; a damaged one costs only itself.

A checkpoint is a folder `iteration_000123` with safetensors files, `state.json` and `manifest.json` (size and
SHA-256 of every other file). Nothing in it can run code.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.files import sync_folder, write_atomically
from adanat_rl.generation.weights import read_tensors

MANIFEST = "manifest.json"
STATE = "state.json"
_FORMAT = 1
_DAMAGED = "damaged"


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds.

    Args:
        tensors: named groups of named tensors, one safetensors file each.
        state: numbers and strings, JSON-ready; has "iteration".
    """

    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]

    @property
    def iteration(self) -> int:
        """The last finished iteration."""
        return int(self.state["iteration"])


class DamagedCheckpointError(Exception):
    """A checkpoint does not match its manifest."""


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Writes the files of a snapshot and then their manifest into an empty folder; all of it is on the disk
    afterwards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in snapshot.tensors.items():
        write_atomically(folder / f"{name}.safetensors", save(dict(tensors)), durable=True)
    write_atomically(folder / STATE, json.dumps({"format": _FORMAT, **snapshot.state}, indent=1), durable=True)
    files = {file.name: _fingerprint(file) for file in sorted(folder.iterdir())}
    write_atomically(folder / MANIFEST, json.dumps({"format": _FORMAT, "files": files}, indent=1), durable=True)


def read_snapshot(folder: Path) -> Snapshot:
    """Reads a snapshot after comparing every file with the manifest.

    Raises:
        DamagedCheckpointError: naming the file and what is wrong with it.
    """
    verify(folder)
    state = json.loads((folder / STATE).read_text())
    if state.pop("format", None) != _FORMAT:
        raise DamagedCheckpointError(f"{folder.name} has an unknown format")
    try:
        tensors = {file.stem: read_tensors(file)[0] for file in sorted(folder.glob("*.safetensors"))}
    except UserError as error:
        raise DamagedCheckpointError(str(error)) from None
    return Snapshot(tensors, state)


def verify(folder: Path) -> None:
    """Compares a checkpoint with its manifest.

    Raises:
        DamagedCheckpointError: at the first difference.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        expected: dict[str, dict[str, Any]] = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DamagedCheckpointError(f"{folder.name}/{MANIFEST} is missing or damaged") from None
    found = {file.name for file in folder.iterdir()} - {MANIFEST}
    if found != expected.keys():
        names = ", ".join(sorted(found ^ expected.keys()))
        raise DamagedCheckpointError(f"{folder.name} has files missing or too many: {names}")
    for name, fingerprint in expected.items():
        if _fingerprint(folder / name) != fingerprint:
            raise DamagedCheckpointError(f"{folder.name}/{name} differs from the manifest")


def checkpoint_folders(folder: Path) -> dict[int, Path]:
    """Complete checkpoints by iteration, oldest first."""
    return {int(path.name.removeprefix("iteration_")): path for path in sorted(folder.glob("iteration_*"))}


class CheckpointStore:
    """The checkpoints of a run.

    Args:
        folder: where they lie. keep: how many of the newest are kept.
        warn: told in one line about a damaged checkpoint.
    """

    def __init__(self, folder: Path, keep: int, warn: Callable[[str], None]) -> None:
        self._folder = folder
        self._keep = keep
        self._warn = warn

    def save(self, write: Callable[[Path], None], iteration: int) -> Path:
        """Lets `write` fill a folder aside, renames it, then deletes what is too old.

        Returns:
            The folder; if that iteration was saved before, it is left as it is.
        """
        target = self._folder / f"iteration_{iteration:06d}"
        if not target.exists():
            self._remove_unfinished()
            aside = self._folder / f".iteration_{iteration:06d}.tmp"
            write(aside)
            aside.rename(target)
            sync_folder(self._folder)
        for old in self.all()[: -self._keep]:
            shutil.rmtree(old)
        return target

    def all(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return list(checkpoint_folders(self._folder).values())

    def discard_after(self, iteration: int) -> None:
        """Deletes checkpoints of later iterations: they belong to a history that is not gone on with."""
        for number, folder in checkpoint_folders(self._folder).items():
            if number > iteration:
                shutil.rmtree(folder)

    def newest(self) -> Snapshot | None:
        """The newest checkpoint that is not damaged, or None if there has never been one.

        Damaged ones are named and moved into the folder `damaged`.

        Raises:
            RunError: there are checkpoints, and all are damaged.
        """
        folders = self.all()
        for folder in reversed(folders):
            try:
                return read_snapshot(folder)
            except DamagedCheckpointError as error:
                self._warn(f"checkpoint damaged: {error}; going back to the one before")
                self._set_aside(folder)
        if folders:
            raise RunError(
                f"all {len(folders)} checkpoints in {self._folder} are damaged",
                safe=f"the damaged ones, in {self._folder / _DAMAGED}",
            )
        return None

    def _set_aside(self, folder: Path) -> None:
        target = self._folder / _DAMAGED / folder.name
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        folder.rename(target)

    def _remove_unfinished(self) -> None:
        for leftover in self._folder.glob(".iteration_*.tmp"):
            shutil.rmtree(leftover)


def _fingerprint(file: Path) -> dict[str, Any]:
    data = file.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
