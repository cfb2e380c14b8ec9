"""The lock on a folder: one writer at a time; the kernel frees it when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path
from typing import IO, Any

from adanat_rl.config.errors import UserError

LOCK = "run.lock"


def acquire_lock(folder: Path) -> IO[Any]:
    """Takes the lock of a folder; closing the file gives it back.

    Raises:
        UserError: somebody holds it; who, and since when.
    """
    file = (folder / LOCK).open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise UserError(f"run_dir: {folder} is in use by {holder}; wait for it, or choose another --run-dir") from None
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
    file.flush()
    return file
