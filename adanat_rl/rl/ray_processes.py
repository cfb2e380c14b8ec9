"""Ray's own processes on this machine: which of them lives, and how long one has been stopped. Ray is not imported."""

from __future__ import annotations

import os
import select
import weakref
from contextlib import suppress
from dataclasses import dataclass

import psutil

# Names of processes, and what they are called in messages.
SERVERS = {"raylet": "raylet", "gcs_server": "GCS"}
AGENTS = {"ray::DashboardAgent": "dashboard agent", "ray::RuntimeEnvAgent": "runtime environment agent"}
_GONE = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
_STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
LONGEST_LOOK_S = 1.0  # a longer one means that this process was stopped too: that time does not count


@dataclass
class RayProcess:
    """One of them; how long it has been stopped, in seconds, as far as anybody looked."""

    name: str
    process: psutil.Process
    stopped_s: float = 0.0

    def __post_init__(self) -> None:
        self._descriptor: int | None = None
        with suppress(AttributeError, OSError):  # not Linux, an old one, or it has ended
            self._descriptor = os.pidfd_open(self.process.pid)
            weakref.finalize(self, os.close, self._descriptor)

    def describe(self) -> str:
        """How a message calls it."""
        return f"Ray's {self.name} (process {self.process.pid})"

    def has_ended(self) -> bool:
        """Asked all the time, by several threads; the kernel says it without reading anything."""
        if self._descriptor is None:
            return self._status() in _GONE
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def is_broken(self) -> bool:
        """Whether it has ended or is stopped: whoever asks it something waits in vain."""
        return self.has_ended() or self._status() in _STOPPED

    def look(self, passed_s: float) -> None:
        """Adds the time since the last look to `stopped_s`, or begins anew if it runs."""
        self.stopped_s = self.stopped_s + passed_s if self._status() in _STOPPED else 0.0

    def _status(self) -> str:
        """What the operating system says of it; dead if it is not there."""
        try:
            if self.process.is_running():
                return str(self.process.status())
        except psutil.AccessDenied:
            return ""
        except psutil.Error:
            pass
        return str(psutil.STATUS_DEAD)


def agents_of(raylet: psutil.Process) -> list[RayProcess]:
    """The agents that a raylet has started so far."""
    return [RayProcess(AGENTS[title], child) for title, child in _children_of(raylet) if title in AGENTS]


def actors_of(raylet: psutil.Process, *names: str) -> list[psutil.Process]:
    """Processes of the actors of some classes that a raylet has started."""
    titles = {f"ray::{name}" for name in names}
    return [child for title, child in _children_of(raylet) if title.partition(".")[0] in titles]


def _children_of(raylet: psutil.Process) -> list[tuple[str, psutil.Process]]:
    """What a raylet has started, by the first word of its command line: the title, for what Ray starts."""
    found = []
    with suppress(psutil.Error):
        for child in raylet.children():
            with suppress(psutil.Error):
                found.append(((child.cmdline() or [""])[0], child))
    return found
