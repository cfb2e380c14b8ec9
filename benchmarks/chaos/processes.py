"""The processes of one event: found by a marker in their environment or by their session, and told apart by role."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

MARKER = "CHAOS_ID"
# What the command line of a process of a role contains; Ray shows actors under their class.
ROLES = {
    "runner": ("ShardEnvRunner",),
    "reward": ("RewardWorker",),
    "learner": ("_WrappedExecutable",),  # RLlib wraps it for Ray Train
    "trial": ("Trial", "ResourceTrainable"),  # Tune wraps it, which shows while it trains
    "agent": ("DashboardAgent",),
    "reaper": ("reaper.py",),
}
_PROGRAMS = {"raylet": "raylet", "gcs": "gcs_server"}
_LOOK_S = 0.1


class Family:
    """All processes that come from the commands of one event.

    Args:
        marker: value of `CHAOS_ID` in their environment.
    """

    def __init__(self, marker: str) -> None:
        self._marker = f"{MARKER}={marker}".encode()
        self._sessions: set[int] = set()

    def add_session(self, driver: int) -> None:
        """A command that was started in a session of its own."""
        self._sessions.add(driver)

    def alive(self) -> list[psutil.Process]:
        """Those that live now; a zombie does not."""
        return [process for process in _processes() if self._is_ours(process)]

    def of_role(self, role: str) -> list[psutil.Process]:
        """Living processes of a role other than the driver, in the order of their start."""
        return [process for process in self.alive() if role_of(process) == role]

    def wait_for_end(self, timeout_s: float) -> list[psutil.Process]:
        """Those that still live after so long."""
        deadline = time.monotonic() + timeout_s
        while (left := self.alive()) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        return left

    def kill(self) -> None:
        """Ends all of them, frozen ones too."""
        for _ in range(20):
            left = self.alive()
            if not left:
                return
            for process in left:
                send(process.pid, signal.SIGKILL)
            time.sleep(_LOOK_S)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            if os.getsid(process.pid) in self._sessions:
                return True
            return self._marker in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        except (psutil.Error, OSError):  # it has just ended, or belongs to somebody else
            return False


def role_of(process: psutil.Process) -> str | None:
    """What a process does in a run; None for one of no known role."""
    try:
        name, command = process.name(), " ".join(process.cmdline())
    except psutil.Error:
        return None
    for role, program in _PROGRAMS.items():
        if name == program:
            return role
    if not command.startswith("ray::") and "reaper.py" not in command:
        return None
    return next((role for role, texts in ROLES.items() if any(text in command for text in texts)), None)


def describe(process: psutil.Process) -> str:
    """A process in a few words."""
    try:
        return f"{process.pid} {process.status()} {' '.join(process.cmdline())[:80]}"
    except psutil.Error:
        return f"{process.pid} (ended)"


def send(pid: int, number: int) -> bool:
    """A signal to a process; False if it is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def shared_memory_left(since: float) -> list[str]:
    """Entries of /dev/shm that were made since a moment and that no process has open or mapped any more.

    Args:
        since: Unix time.
    """
    recent = []
    for path in Path("/dev/shm").glob("*"):
        with contextlib.suppress(OSError):
            if path.stat().st_ctime >= since:
                recent.append(str(path))
    if not recent:
        return []
    used = "\n".join(text for process in _processes() for text in _mapped(process.pid))
    return [path for path in recent if path not in used]


def _mapped(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                yield str(entry.readlink())


def _processes() -> list[psutil.Process]:
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error):
            found.append(psutil.Process(pid))
    return found
