"""The lock on a folder: one writer at a time; the kernel frees it when its holder dies, however it dies."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import time
from pathlib import Path
from typing import IO, Any

import psutil

from adanat_rl.config.errors import UserError
from adanat_rl.config.plain_files import require_plain_files

LOCK = "run.lock"
_UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}  # file systems without such locks
# Failures to write that are no fault of the program, wherever they come from.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.ESTALE, errno.ENODEV}
_HELD = {errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN}


def acquire_lock(folder: Path) -> IO[Any]:
    """Takes the lock of a folder; closing the file gives it back.

    Where the file system has no locks (Lustre without its flock option, some network and user-space file systems), the
    note in the file decides: a folder whose noted process lives on this machine is in use.

    Raises:
        UserError: somebody holds it; who, and since when.
    """
    file = (folder / LOCK).open("a+", errors="replace")
    try:
        is_ours = _lock(file)
    except OSError:
        file.close()
        raise
    file.seek(0)
    holder = file.read().strip()
    if is_ours is False or (is_ours is None and _is_alive(holder, os.fstat(file.fileno()).st_mtime)):
        file.close()
        raise UserError(
            f"run_dir: {folder} is in use by {holder or 'another process'}; wait for it, or choose another --run-dir"
        )
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
    file.flush()
    return file


def take_folder(folder: Path) -> IO[Any]:
    """Makes a folder if need be and takes its lock.

    Raises:
        UserError: there is no permission, it is a file, it cannot be made, it holds a pipe or a device, or somebody
            holds it.
        OSError: the disk fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        require_plain_files(folder)
        return acquire_lock(folder)
    except PermissionError as error:
        raise UserError(f"run_dir: no permission to write in {error.filename}; choose another --run-dir") from None
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"run_dir: {folder} is a file, expected a folder") from None
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise
        raise UserError(f"run_dir: cannot use {folder}: {error.strerror}; choose another --run-dir") from None


def _lock(file: IO[Any]) -> bool | None:
    """Whether the lock was free; None where the file system has none."""
    for attempt in (fcntl.flock, fcntl.lockf):
        try:
            attempt(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                return False
            if error.errno not in _UNSUPPORTED:
                raise
        else:
            return True
    return None


def _is_alive(holder: str, written: float) -> bool:
    """Whether the process of a note runs on this machine; of another machine nothing is known, so it counts as gone.

    Args:
        written: Unix time of the note, in seconds: a process that began later only has the same number.
    """
    found = re.match(r"process (\d+) on (\S+),", holder)
    if found is None or found[2] != socket.gethostname() or int(found[1]) == os.getpid():
        return False
    try:
        return psutil.Process(int(found[1])).create_time() <= written + 1
    except (psutil.Error, OverflowError):
        return False
