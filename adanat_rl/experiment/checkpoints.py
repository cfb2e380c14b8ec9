"""Verified checkpoints: written aside, put on the disk, listed with hashes, renamed; a damaged one costs only itself.

A checkpoint is a folder `iteration_000123` with safetensors files, `state.json` and `manifest.json` (size and
SHA-256 of every other file). Nothing in it can run code. Files that the manifest does not list are not read.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.files import sync_folder, write_atomically
from adanat_rl.generation.weights import read_tensors

MANIFEST = "manifest.json"
STATE = "state.json"
_FORMAT = 1
_DAMAGED = "damaged"
_NAME = re.compile(r"iteration_(\d{6,})")


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

    def non_finite(self) -> list[str]:
        """Names of the tensors that hold NaN or infinite numbers, as `learner/module.actor.weight`."""
        return [
            f"{group}/{name}"
            for group, tensors in self.tensors.items()
            for name, tensor in tensors.items()
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
        ]


class DamagedCheckpointError(Exception):
    """A checkpoint does not match its manifest, or holds what no run goes on from."""


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Writes the files of a snapshot and then their manifest into an empty folder; all of it is on the disk
    afterwards.
    """
    folder.mkdir(exist_ok=True)
    for name, tensors in snapshot.tensors.items():
        write_atomically(folder / f"{name}.safetensors", save(dict(tensors)), parents=False)
    write_atomically(folder / STATE, json.dumps({"format": _FORMAT, **snapshot.state}, indent=1), parents=False)
    names = sorted([*(f"{name}.safetensors" for name in snapshot.tensors), STATE])
    files = {name: _fingerprint(folder / name) for name in names}
    write_atomically(folder / MANIFEST, json.dumps({"format": _FORMAT, "files": files}, indent=1), parents=False)


def read_snapshot(folder: Path) -> Snapshot:
    """Reads a snapshot after comparing every file with the manifest.

    Raises:
        DamagedCheckpointError: naming the file and what is wrong with it.
    """
    files = verify(folder)
    state = _state(folder)
    try:
        tensors = {
            Path(name).stem: read_tensors(folder / name)[0] for name in sorted(files) if name.endswith(".safetensors")
        }
    except UserError as error:
        raise DamagedCheckpointError(str(error)) from None
    snapshot = Snapshot(tensors, state)
    if bad := snapshot.non_finite():
        raise DamagedCheckpointError(f"{folder.name} is of a diverged training: {bad[0]} is not finite")
    return snapshot


def read_state(folder: Path) -> dict[str, Any]:
    """The numbers and strings of a snapshot alone, after comparing their file with the manifest.

    Raises:
        DamagedCheckpointError: naming the file and what is wrong with it.
    """
    if _fingerprint(folder / STATE) != _manifest(folder)[STATE]:
        raise DamagedCheckpointError(f"{folder.name}/{STATE} differs from the manifest")
    return _state(folder)


def _state(folder: Path) -> dict[str, Any]:
    try:
        state = json.loads((folder / STATE).read_bytes())
        is_known = isinstance(state, dict) and state.pop("format", None) == _FORMAT
    except (OSError, ValueError, RecursionError):
        is_known = False
    if not is_known:
        raise DamagedCheckpointError(f"{folder.name}/{STATE} is missing or has an unknown format")
    return dict(state)


def verify(folder: Path) -> list[str]:
    """Compares a checkpoint with its manifest; returns the names of its files.

    Raises:
        DamagedCheckpointError: at the first difference.
    """
    expected = _manifest(folder)
    missing = sorted(name for name in expected if not (folder / name).is_file())
    if missing:
        raise DamagedCheckpointError(f"{folder.name} has files missing: {', '.join(missing)}")
    for name, fingerprint in expected.items():
        if _fingerprint(folder / name) != fingerprint:
            raise DamagedCheckpointError(f"{folder.name}/{name} differs from the manifest")
    return list(expected)


def _manifest(folder: Path) -> dict[str, Any]:
    """Fingerprints by file name; names that would lead out of the folder are damage."""
    try:
        expected = json.loads((folder / MANIFEST).read_bytes())["files"]
        names = list(expected.keys())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DamagedCheckpointError(f"{folder.name}/{MANIFEST} is missing or damaged") from None
    if STATE not in names or any(Path(name).name != name for name in names):
        raise DamagedCheckpointError(f"{folder.name}/{MANIFEST} lists no checkpoint")
    return dict(expected)


def checkpoint_folders(folder: Path) -> dict[int, Path]:
    """Complete checkpoints by iteration, oldest first; other names beside them are left alone."""
    found = {}
    for path in folder.glob("iteration_*"):
        match = _NAME.fullmatch(path.name)
        if match is not None and path.is_dir():
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def newest_readable(folder: Path) -> tuple[Snapshot | None, list[str]]:
    """The newest checkpoint in a folder that is not damaged, and what is wrong with those that are newer.

    Nothing is moved: for commands that only look.
    """
    problems: list[str] = []
    for path in reversed(checkpoint_folders(folder).values()):
        try:
            return read_snapshot(path), problems
        except DamagedCheckpointError as error:
            problems.append(str(error))
    return None, problems


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

        Older ones go only when the new one has been read back and matches its manifest.

        Returns:
            The folder; if that iteration was saved before and is whole, it is left as it is.

        Raises:
            RunError: what was written does not read back: the disk is failing.
        """
        target = self._folder / f"iteration_{iteration:06d}"
        if target.exists() and not self._is_whole(target):
            self._set_aside(target)
        if not target.exists():
            self._folder.mkdir(exist_ok=True)
            self._remove_unfinished()
            aside = self._folder / f".iteration_{iteration:06d}.tmp"
            write(aside)
            aside.rename(target)
            sync_folder(self._folder)
            if not self._is_whole(target):
                raise RunError(f"{target} does not read back as it was written: is the disk failing?")
        for old in self.all()[: -self._keep]:
            shutil.rmtree(old)
        return target

    @property
    def has_damaged(self) -> bool:
        """Whether damaged checkpoints were set aside, now or at an earlier start."""
        return any((self._folder / _DAMAGED).glob("iteration_*"))

    def _is_whole(self, folder: Path) -> bool:
        try:
            verify(folder)
        except DamagedCheckpointError as error:
            self._warn(f"checkpoint damaged: {error}")
            return False
        return True

    def all(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return list(checkpoint_folders(self._folder).values())

    def discard_after(self, iteration: int) -> None:
        """Deletes checkpoints of later iterations: they belong to a history that is not gone on with."""
        for number, folder in checkpoint_folders(self._folder).items():
            if number > iteration:
                shutil.rmtree(folder)

    def newest(self) -> Snapshot | None:
        """The newest checkpoint that is not damaged, or None if there is none, and none was found damaged before.

        Damaged ones are named and moved into the folder `damaged`, once there is one to go back to; older ones too,
        before they are needed.

        Raises:
            RunError: there are or were checkpoints, and all are damaged.
        """
        damaged: list[Path] = []
        problem = ""
        folders = self.all()
        while folders:
            folder = folders.pop()
            try:
                snapshot = read_snapshot(folder)
            except DamagedCheckpointError as error:
                self._warn(f"checkpoint damaged: {error}; going back to the one before")
                damaged.append(folder)
                problem = problem or f" ({error})"
                continue
            for other in [*damaged, *(older for older in folders if not self._is_whole(older))]:
                self._set_aside(other)
            return snapshot
        if damaged or self.has_damaged:
            count = len(damaged) or len(list((self._folder / _DAMAGED).iterdir()))
            raise RunError(
                f"all {count} checkpoints in {self._folder} are damaged{problem}; put a copy of one back, or begin "
                "anew with --start-over, which puts what is there aside",
                safe=f"the damaged ones, in {self._folder}, and the metric rows; nothing is deleted",
            )
        return None

    def _set_aside(self, folder: Path) -> None:
        """Under a name that is free: what was set aside before stays."""
        parent = self._folder / _DAMAGED
        parent.mkdir(exist_ok=True)
        names = (folder.name, *(f"{folder.name}.{number}" for number in range(1, 1000)))
        folder.rename(next(parent / name for name in names if not (parent / name).exists()))

    def _remove_unfinished(self) -> None:
        for leftover in self._folder.glob(".iteration_*.tmp"):
            shutil.rmtree(leftover)


def _fingerprint(file: Path) -> dict[str, Any]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DamagedCheckpointError(f"{file.parent.name}/{file.name}: {error.strerror}") from None
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
