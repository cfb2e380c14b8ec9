"""Watches over Ray's own processes, raylet and GCS, which a driver needs and would wait for without end or a word.

Two things are looked at: the processes, where they are on this machine (dead or stopped), and whether the GCS answers
and believes that this node is alive. A raylet ends along with its agents, and in ending takes leave of the GCS; the
client of this process then ends the process without a word. So the death of an agent counts as that of its raylet.
"""

from __future__ import annotations

import os
import select
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil
import ray

from adanat_rl.config.errors import RunError

_LOOK_INTERVAL_S = 0.1
_PING_INTERVAL_S = 2.0
_CLOSING_S = 5.0
_LONGEST_LOOK_S = 1.0  # a longer one means that this process was stopped too: that time does not count
_SERVERS = {"raylet": "raylet", "gcs_server": "GCS"}
_AGENTS = {"ray::DashboardAgent": "dashboard agent", "ray::RuntimeEnvAgent": "runtime environment agent"}
_GONE = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
_STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
BROKEN = (*_GONE, *_STOPPED)


@dataclass
class _Watched:
    """A process of Ray's on this machine; how long it has been stopped, in seconds."""

    name: str
    process: psutil.Process
    stopped_s: float = 0.0

    def __post_init__(self) -> None:
        self._descriptor: int | None = None
        with suppress(AttributeError, OSError):  # not Linux, an old one, or it has ended
            self._descriptor = os.pidfd_open(self.process.pid)
            weakref.finalize(self, os.close, self._descriptor)

    def has_ended(self) -> bool:
        """Asked all the time, by several threads; the kernel says it without reading anything."""
        if self._descriptor is None:
            return self.status() in _GONE
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def describe(self) -> str:
        return f"Ray's {self.name} (process {self.process.pid})"

    def status(self) -> str:
        """What the operating system says of it; dead if it is not there."""
        try:
            if self.process.is_running():
                return str(self.process.status())
        except psutil.AccessDenied:
            return ""
        except psutil.Error:
            pass
        return str(psutil.STATUS_DEAD)


class ClusterWatch:
    """Says when the cluster that this process is connected to has failed: call it, and it raises.

    Args:
        timeout_s: how long something may be stopped, or give no answer, before that is a failure.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._failure = ""
        self._closed = threading.Event()
        self._silent_s = 0.0
        self._answers = 0
        self._node_is_dead = False
        servers = servers_here()
        self._watched = [_Watched(name, process) for name, process in servers.items()]
        self._raylet = servers.get("raylet")
        self._threads = [
            threading.Thread(target=work, name="adanat-rl cluster watch", daemon=True)
            for work in (self._look_on, self._ping_on)
        ]
        for thread in self._threads:
            thread.start()

    def __call__(self) -> None:
        """Nothing while all is well.

        Raises:
            RunError: naming the process that died or does not answer.
        """
        self._look_for_dead()
        if self._failure:
            raise RunError(self._failure)

    @property
    def has_failed(self) -> bool:
        """Whether calls of Ray are of no more use: they may hang, or end this process."""
        self._look_for_dead()
        return bool(self._failure)

    def close(self) -> None:
        """Looks no longer; to be called before Ray is left, whose client would end the process for want of a GCS."""
        self._closed.set()
        for thread in self._threads:
            thread.join(timeout=_CLOSING_S)

    def _look_for_dead(self) -> None:
        for watched in self._watched:
            if not self._failure and watched.has_ended():
                self._failure = f"{watched.describe()} died; the system may have ended it for want of memory"

    def _find_agents(self) -> None:
        """Takes the raylet's agents in as well: they start behind it."""
        known = {watched.name for watched in self._watched}
        if self._raylet is not None and not known.issuperset(_AGENTS.values()):
            found = agents_of(self._raylet)
            self._watched += [_Watched(name, process) for name, process in found.items() if name not in known]

    def _look_on(self) -> None:
        """Adds up the time in which something is stopped or silent."""
        answers, last = 0, time.monotonic()
        while not self._closed.wait(_LOOK_INTERVAL_S) and not self._failure:
            now = time.monotonic()
            passed, last = min(now - last, _LONGEST_LOOK_S), now
            self._find_agents()
            self._look_for_dead()
            for watched in self._watched:
                watched.stopped_s = watched.stopped_s + passed if watched.status() in _STOPPED else 0.0
            self._silent_s = self._silent_s + passed if self._answers == answers else 0.0
            answers = self._answers
            self._judge()

    def _judge(self) -> None:
        stopped = [watched for watched in self._watched if watched.stopped_s > self._timeout_s]
        limit = f"for resources.cluster_timeout_s = {self._timeout_s:g} s"
        if self._failure:
            return
        if stopped:
            self._failure = f"{stopped[0].describe()} has been stopped {limit}"
        elif self._node_is_dead:
            self._failure = "Ray's GCS holds this node for dead: its raylet did not answer"
        elif self._silent_s > self._timeout_s + _PING_INTERVAL_S:
            self._failure = f"Ray's GCS has given no answer {limit}"

    def _ping_on(self) -> None:
        """Asks the GCS again and again whether this node is alive."""
        from ray._raylet import GcsClient, NodeID  # type: ignore[attr-defined]

        context = ray.get_runtime_context()
        node = NodeID.from_hex(context.get_node_id())
        client = GcsClient(address=context.gcs_address)
        while not self._closed.wait(_PING_INTERVAL_S) and not self._failure:
            with suppress(Exception):  # no answer, of whatever kind
                alive = client.check_alive([node], timeout=self._timeout_s)
                self._node_is_dead = not alive[0]
                self._answers += 1


def agents_of(raylet: psutil.Process) -> Mapping[str, psutil.Process]:
    """The agents that a raylet has started so far, by name."""
    found = {}
    with suppress(psutil.Error):
        for child in raylet.children():
            with suppress(psutil.Error):
                name = _AGENTS.get((child.cmdline() or [""])[0])
                if name is not None:
                    found[name] = child
    return found


def servers_here() -> Mapping[str, psutil.Process]:
    """Raylet and GCS of this process's Ray session that run on this machine, by name; needs a connected Ray."""
    node = ray._private.worker._global_node
    session = node.get_session_dir_path()
    found = {}
    for process in psutil.process_iter(["name", "cmdline"]):
        name = _SERVERS.get(process.info["name"] or "")
        if name is not None and any(session in argument for argument in process.info["cmdline"] or ()):
            found[name] = process
    return found
