"""Which MLflow run a folder is: one identity on the disk, that moves with the folder and is not shared with a copy."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adanat_rl.config.files import write_atomically
from adanat_rl.config.secrets import hide_secrets


@dataclass(frozen=True)
class Identity:
    """What is known of a folder's run.

    Args:
        uid: the run's tag in MLflow. news: what to tell people about it; empty most of the time.
        is_known: whether the folder was noted with the uid; False for one that an earlier version made, which has to
            be compared with what MLflow says.
    """

    uid: str
    news: str = ""
    is_known: bool = True


def claim(file: Path, stores: Sequence[str]) -> Identity:
    """The identity in a folder's `tracking.json`; it is on the disk before any run exists, so there is never a second.

    A folder that was moved goes on with its run. One that was copied gets an identity of its own if the original is
    still there and goes to the same store; a copy of the whole store may go on with the run in it.

    Args:
        file: `tracking.json`. stores: addresses of the stores that the folder's run goes to.

    Raises:
        OSError: the file cannot be written.
    """
    stores = [hide_secrets(store) for store in stores]
    noted = _read(file)
    if noted is None:
        damaged = file.exists()
        news = f"{file} is damaged: from here on this is a new run in MLflow" if damaged else ""
        if file.is_dir():
            return Identity(uuid.uuid4().hex, f"{file} is a folder, expected a file: this is a new run in MLflow")
        return _note(file, uuid.uuid4().hex, stores, news)
    uid, place = str(noted["run_uid"]), noted.get("folder")
    if place is None:
        return Identity(uid, is_known=False)
    if is_original_of(file, uid, Path(place)) and set(stores) & set(noted.get("stores", stores)):
        return as_copy(file, place, stores)
    if place != str(file.parent.resolve()) or stores != noted.get("stores"):
        return _note(file, uid, stores)
    return Identity(uid)


def confirm(file: Path, uid: str, stores: Sequence[str]) -> None:
    """Notes that the folder is the one that the run was made for."""
    _note(file, uid, [hide_secrets(store) for store in stores])


def as_copy(file: Path, original: str | Path, stores: Sequence[str]) -> Identity:
    """A new identity for a folder that was copied."""
    news = f"{file.parent} is a copy of {original}: it is a run of its own in MLflow"
    return _note(file, uuid.uuid4().hex, [hide_secrets(store) for store in stores], news)


def is_original_of(file: Path, uid: str, place: Path) -> bool:
    """Whether another folder still is what a uid was given to."""
    original = place / file.name
    try:
        if not original.is_file() or original.samefile(file):
            return False
    except OSError:  # out of reach: then nothing else goes on with it from here
        return False
    noted = _read(original)
    return noted is not None and noted["run_uid"] == uid


def _note(file: Path, uid: str, stores: Sequence[str], news: str = "") -> Identity:
    content = {"run_uid": uid, "folder": str(file.parent.resolve()), "stores": list(stores)}
    write_atomically(file, json.dumps(content, indent=1), durable=True)
    return Identity(uid, news)


def _read(file: Path) -> dict[str, Any] | None:
    """What the file says; None if it is not there or not ours."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("run_uid"), str):
        return None
    ok = isinstance(content.get("folder"), str | None) and isinstance(content.get("stores", []), list)
    return content if ok else {"run_uid": content["run_uid"]}
