"""A small process that ends a private Ray cluster when its driver is gone, however it went.

Most of Ray's processes die with the driver by themselves; its agents notice only after a minute. Run as a script with
the driver's process id, the cluster's temporary folder, and what to say if the driver goes without a word. Standard
input is a pipe: a byte means that the driver will end in good order, its end that the driver is gone or done. A process
that the driver forked may keep the pipe open, so the reaper also looks whether its parent is still the driver. Uses
nothing but psutil.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil

_LOOK_INTERVAL_S = 1.0
_GRACE_S = 5.0
_GOODBYE = b"."
_TITLE = "ray::"  # with which the titles of Ray's agents and workers begin


class Reaper:
    """The driver's end of the pipe."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self.waits = True

    def leave_to_the_end(self) -> None:
        """The cluster is broken: it is cleared away only when this process is gone, since Ray may end this process
        with it.
        """
        self.waits = False

    def say_goodbye(self) -> None:
        """What comes now is an end in good order, and nothing that the reaper has to speak of."""
        with contextlib.suppress(OSError):  # somebody ended the reaper
            self._pipe.write(_GOODBYE)
            self._pipe.flush()


@contextmanager
def reaper(driver: int, folder: Path, last_words: str) -> Iterator[Reaper]:
    """Watches over the cluster that a process has in a folder; on leaving, what is left of them is removed.

    Args:
        last_words: printed to standard error if the driver is ended without having left this block.
    """
    process = subprocess.Popen(
        # -P: the folder of the script is not searched for modules, which would hide others of the same name
        [sys.executable, "-P", str(Path(__file__)), str(driver), str(folder), last_words],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the driver
    )
    assert process.stdin is not None
    handle = Reaper(process.stdin)
    try:
        yield handle
    finally:
        handle.say_goodbye()
        if handle.waits:
            with contextlib.suppress(OSError):
                process.stdin.close()
            if process.wait() != 0:  # somebody ended the reaper: its work is done here
                clear_away(_processes_of(folder), folder)


def watch(driver: int, folder: Path, last_words: str) -> None:
    """Remembers the cluster's processes until the driver is gone; then ends those that are left."""
    seen: set[psutil.Process] = set()
    said_goodbye = False
    while os.getppid() == driver:
        if select.select([0], [], [], _LOOK_INTERVAL_S)[0]:
            found = os.read(0, 1)
            if not found:
                break
            said_goodbye = True
        seen |= _cluster_processes(driver, folder)
    if not said_goodbye:
        with contextlib.suppress(OSError, ValueError):
            print(last_words, file=sys.stderr, flush=True)
    clear_away(seen | _processes_of(folder), folder)


def clear_away(processes: set[psutil.Process], folder: Path) -> None:
    """Ends processes with all that came from them, and deletes the folder."""
    for process in list(processes):
        processes = processes | _descendants(process)
    left = [process for process in processes - {psutil.Process()} if process.is_running()]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=_GRACE_S)
    shutil.rmtree(folder, ignore_errors=True)


def clear_stale(folder: Path) -> None:
    """Clears away a cluster whose driver and reaper were both killed."""
    clear_away(_processes_of(folder), folder)


def _processes_of(folder: Path) -> set[psutil.Process]:
    """Processes of this user, but not this one, that belong to the cluster of a folder, whoever their parent is now."""
    found = set()
    for process in psutil.process_iter(["cmdline", "uids"]):
        uids, arguments = process.info["uids"], process.info["cmdline"] or []
        is_ours = process.pid != os.getpid() and uids and uids.real == os.getuid()
        if is_ours and (
            any(f"{folder}/" in argument for argument in arguments) or _is_rays(process, arguments, folder)
        ):
            found.add(process)
    return found


def _is_rays(process: psutil.Process, arguments: list[str], folder: Path) -> bool:
    """Whether it is one of Ray's own, which put a title in place of their arguments, with a log file in the folder.

    Other processes with such a file may be somebody's who was forked by the driver.
    """
    if not (arguments and arguments[0].startswith(_TITLE)):
        return False
    try:
        return any(file.path.startswith(f"{folder}/") for file in process.open_files())
    except (psutil.Error, OSError):
        return False


def _cluster_processes(driver: int, folder: Path) -> set[psutil.Process]:
    """Children of the driver that were started with the folder's name, and all that come from them."""
    try:
        children = psutil.Process(driver).children()
    except psutil.Error:
        return set()
    found: set[psutil.Process] = set()
    for child in children:
        with contextlib.suppress(psutil.Error):  # one may be ending just now
            if child.pid != os.getpid() and str(folder) in " ".join(child.cmdline()):
                found |= {child} | _descendants(child)
    return found


def _descendants(process: psutil.Process) -> set[psutil.Process]:
    try:
        return set(process.children(recursive=True))
    except psutil.Error:
        return set()


if __name__ == "__main__":
    watch(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
