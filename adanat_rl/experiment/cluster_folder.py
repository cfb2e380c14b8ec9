"""The folder of a private Ray cluster: in a place whose path is short enough, open to nobody else, removed when stale.

Ray's sockets lie in it, and the system takes paths of sockets up to 107 bytes only. The folder belongs to whoever holds
the lock on a file in it; process ids say nothing where containers or machines share a folder for temporary files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from adanat_rl.config.errors import RunError
from adanat_rl.experiment.reaper import clear_stale

PREFIX = "adanat-ray-"
_OWNER, _RAYS, _OURS = "owner", "r", "t"
_LONGEST_SOCKET = 107  # bytes of a path, of which these are Ray's own part, with a process id of seven digits
_RAYS_PART = "/session_2000-01-01_00-00-00_000000_1234567/sockets/plasma_store.1"
_UNOWNED_IS_STALE_S = 24 * 3600.0


@contextmanager
def cluster_folder() -> Iterator[tuple[Path, Path]]:
    """A fresh folder that is this process's until it ends, and the one in it that Ray may use.

    It is not deleted here: that is left to the reaper, which outlives this process.

    Raises:
        RunError: there is no place for it.
    """
    folder = _fresh_folder()
    for place in _places():
        _remove_stale(place)
    descriptor = _own(folder)
    rays = folder / _RAYS
    rays.mkdir()
    try:
        with _temporary_files_in(folder / _OURS):
            yield folder, rays
    finally:
        os.close(descriptor)


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Libraries' temporary files of this process lie in a folder, so that they vanish with it, whatever ends us."""
    folder.mkdir()
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _places() -> list[Path]:
    """Where temporary files may lie: the place that the user named first."""
    named = ["/tmp", "/var/tmp", os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm"]
    with contextlib.suppress(FileNotFoundError):  # nothing that it knows can be written
        named.insert(0, tempfile.gettempdir())
    return list(dict.fromkeys(Path(name) for name in named if name))


def _fresh_folder() -> Path:
    problems = []
    for place in _places():
        length = len(os.fsencode(f"{place}/{PREFIX}12345678/{_RAYS}{_RAYS_PART}"))
        if length > _LONGEST_SOCKET:
            problems.append(f"{place} is {length - _LONGEST_SOCKET} bytes too long for sockets")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))  # with rights for its owner alone
        except OSError as error:
            problems.append(f"{place}: {error.strerror}")
    raise RunError(
        f"no place for the files of the private Ray cluster ({'; '.join(problems)}): set TMPDIR to a short path that "
        "can be written"
    )


def _own(folder: Path) -> int:
    """Locks the folder's file before it has its name, so that nobody finds it without its lock."""
    hidden = folder / f".{_OWNER}"
    descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:  # no locks here, for us: others who have them must not take the folder for stale
        os.write(descriptor, _note(os.getpid()).encode())
    hidden.rename(folder / _OWNER)
    return descriptor


def _remove_stale(place: Path) -> None:
    """Clears away the clusters in a place whose driver was killed together with its reaper."""
    for folder in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody else's, or just gone
            if folder.stat().st_uid == os.getuid() and _is_stale(folder):
                clear_stale(folder)


def _is_stale(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / _OWNER, os.O_RDWR)
    except FileNotFoundError:  # just being made, or given up in that moment
        return time.time() - folder.stat().st_mtime > _UNOWNED_IS_STALE_S
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or a file system without locks
        return False
    else:
        return _is_gone(os.read(descriptor, 1000).decode(errors="replace"))
    finally:
        os.close(descriptor)


def _note(process: int) -> str:
    """Who owns a folder without a lock: machine, process, and when that began, in seconds."""
    return f"{socket.gethostname()} {process} {psutil.Process(process).create_time():.2f}"


def _is_gone(note: str) -> bool:
    """Whether the owner in a note has ended; of another machine's nothing is known. Without a note the lock counts."""
    host, _, owner = note.partition(" ")
    if not note:
        return True
    if host != socket.gethostname():
        return False
    try:
        return _note(int(owner.partition(" ")[0])) != note
    except (ValueError, psutil.Error):
        return True
