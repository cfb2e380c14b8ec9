"""A small process that ends a private Ray cluster when its driver is gone, however it went.

Most of Ray's processes die with the driver by themselves; its agents notice only after a minute. Run as a script with
the driver's process id and the cluster's temporary folder; standard input is a pipe whose end means that the driver is
gone or done. Uses nothing but psutil.
"""

from __future__ import annotations

import contextlib
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_LOOK_INTERVAL_S = 1.0
_GRACE_S = 5.0


@contextmanager
def reaper(driver: int, folder: Path) -> Iterator[None]:
    """Watches over the cluster that a process has in a folder; on leaving, what is left of them is removed."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__)), str(driver), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the driver
    )
    try:
        yield
    finally:
        process.communicate()


def watch(driver: int, folder: Path) -> None:
    """Remembers the cluster's processes until standard input ends; then ends those that are left."""
    seen: set[psutil.Process] = set()
    while not select.select([sys.stdin], [], [], _LOOK_INTERVAL_S)[0]:
        seen |= _cluster_processes(driver, folder)
    for process in list(seen):
        seen |= _descendants(process)
    left = [process for process in seen - {psutil.Process()} if process.is_running()]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=_GRACE_S)
    shutil.rmtree(folder, ignore_errors=True)


def _cluster_processes(driver: int, folder: Path) -> set[psutil.Process]:
    """Children of the driver that were started with the folder's name, and all that come from them."""
    try:
        children = psutil.Process(driver).children()
    except psutil.Error:
        return set()
    found: set[psutil.Process] = set()
    for child in children:
        with contextlib.suppress(psutil.Error):  # one may be ending just now
            if str(folder) in " ".join(child.cmdline()):
                found |= {child} | _descendants(child)
    return found


def _descendants(process: psutil.Process) -> set[psutil.Process]:
    try:
        return set(process.children(recursive=True))
    except psutil.Error:
        return set()


if __name__ == "__main__":
    watch(int(sys.argv[1]), Path(sys.argv[2]))
