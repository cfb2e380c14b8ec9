"""Watches over Ray's own processes, raylet and GCS, which a driver needs and would wait for without end or a word.

Two things are looked at: the processes, where they are on this machine (dead or stopped), and whether the GCS answers
and believes that this node is alive. A raylet ends along with its agents, and in ending takes leave of the GCS; the
client of this process then ends the process without a word. So the death of an agent counts as that of its raylet.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import psutil
import ray

from adanat_rl.config.errors import RunError
from adanat_rl.rl.ray_processes import AGENTS, LONGEST_LOOK_S, SERVERS, RayProcess, agents_of

_LOOK_INTERVAL_S = 0.1
_PING_INTERVAL_S = 2.0
_CLOSING_S = 5.0


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
        self._watched = servers_here()
        self._raylet = next((server.process for server in self._watched if server.name == SERVERS["raylet"]), None)
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
        if self._raylet is not None and not known.issuperset(AGENTS.values()):
            self._watched += [agent for agent in agents_of(self._raylet) if agent.name not in known]

    def _look_on(self) -> None:
        """Adds up the time in which something is stopped or silent."""
        answers, last = 0, time.monotonic()
        while not self._closed.wait(_LOOK_INTERVAL_S) and not self._failure:
            now = time.monotonic()
            passed, last = min(now - last, LONGEST_LOOK_S), now
            self._find_agents()
            self._look_for_dead()
            for watched in self._watched:
                watched.look(passed)
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


def servers_here() -> list[RayProcess]:
    """Raylet and GCS of this process's Ray session that run on this machine; needs a connected Ray."""
    node = ray._private.worker._global_node
    session = node.get_session_dir_path()
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        name = SERVERS.get(process.info["name"] or "")
        if name is not None and any(session in argument for argument in process.info["cmdline"] or ()):
            found.append(RayProcess(name, process))
    return found
