"""Deals work to env runners and keeps the books of who lives: a batch does not depend on who drew it.

Runners take the next shard when they are free. The shard of a runner that died, raised, hangs or is late is dealt
again; the first result counts. The dealer waits in short ticks for whoever answers first and never on one runner.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.schema import ResourcesConfig
from adanat_rl.rewards.ray_errors import is_of_the_machine, reason
from adanat_rl.rl.shards import PolicyWeights, Shard, ShardKey

_TICK_S = 0.05
_PING_INTERVAL_S = 0.2
_QUEUE_DEPTH = 2  # shards in flight at one runner: hides the way to the driver and back
_LATE_FACTOR = 3.0  # a shard is late after this multiple of the median time of the others, …
_LATE_FLOOR_S = 0.5  # … but not before this


@dataclass
class DealerCounters:
    """What went wrong since the start of the run, for metrics."""

    lost_runners: int = 0
    redealt_shards: int = 0


@dataclass
class _Flight:
    runner: int
    key: ShardKey
    digest: str
    since: float


@dataclass
class _Absence:
    """A runner that is down: since when, and the ping it has not answered yet."""

    since: float
    next_ping: float
    ping: Any = None
    why: str = ""


class Dealt(Protocol):
    """What a runner brings: it says for which key and from which weights it was made."""

    @property
    def key(self) -> ShardKey:
        """Which piece of work."""
        ...

    @property
    def weights_digest(self) -> str:
        """Of what it was drawn with."""
        ...


Result = TypeVar("Result", bound=Dealt)


@dataclass
class _Job(Generic[Result]):
    """One call of `collect`: what is drawn with, and how a runner is asked for the work of a key."""

    digest: str
    ask: Callable[[Any, ShardKey], Any]
    keys: Sequence[ShardKey]
    waiting: deque[ShardKey]
    done: dict[ShardKey, Result] = field(default_factory=dict)
    deals: dict[ShardKey, int] = field(default_factory=dict)
    durations: list[float] = field(default_factory=list)
    errors: dict[ShardKey, list[str]] = field(default_factory=dict)  # what runners raised on a key

    def wants(self, flight: _Flight) -> bool:
        return flight.digest == self.digest and flight.key in self.deals and flight.key not in self.done


class ShardDealer:
    """Owns the remote runners of an env-runner group.

    Args:
        runners: actor handles by id.
        resources: deadlines and limits.
    """

    def __init__(self, runners: dict[int, Any], resources: ResourcesConfig) -> None:
        self.counters = DealerCounters()
        self._runners = runners
        self._resources = resources
        self._flights: dict[Any, _Flight] = {}  # kept over calls: a late copy may still be under way
        self._down: dict[int, _Absence] = {}
        self._last_answer: dict[int, float] = {}
        self._last_up = time.monotonic()

    def collect(
        self, weights: PolicyWeights, keys: Sequence[ShardKey], check: Callable[[], None] = lambda: None
    ) -> list[Shard]:
        """The shards of `keys`, in that order; arguments and errors as for `deal`."""
        return self.deal(weights.digest, lambda runner, key: runner.sample_shard.remote(weights, key), keys, check)

    def deal(
        self,
        digest: str,
        ask: Callable[[Any, ShardKey], Any],
        keys: Sequence[ShardKey],
        check: Callable[[], None] = lambda: None,
    ) -> list[Any]:
        """What the runners make of `keys`, in that order.

        Args:
            digest: of what is drawn with; results say it too.
            ask: a runner's handle and a key in, the reference of its answer out.
            check: called in every tick; what it raises ends the wait.

        Raises:
            RunError: a key got no result from several runners, its work raises the same wherever it is done, or no
                runner is left.
        """
        job: _Job[Any] = _Job(digest, ask, keys, deque(keys))
        self._last_up = time.monotonic()
        while len(job.done) < len(keys):
            check()
            self._revive()
            self._deal(job)
            self._deal_late_again(job)
            self._wait()
            self._gather(job)
            self._enforce_deadlines(job)
        return [job.done[key] for key in keys]

    def close(self) -> None:
        """Kills all runners; the host's own stop would wait forever on one that hangs."""
        for handle in self._runners.values():
            ray.kill(handle)
        self._flights.clear()

    # --- dealing

    def _deal(self, job: _Job[Any]) -> None:
        """Fills the queues of the runners that are up, breadth first."""
        for depth in range(_QUEUE_DEPTH):
            for runner in self._up():
                if job.waiting and len(self._flights_of(runner)) == depth:
                    self._fly(job, runner, job.waiting.popleft())

    def _deal_late_again(self, job: _Job[Any]) -> None:
        """Gives idle runners a copy of what is late, once nothing new is left to deal."""
        if job.waiting or not job.durations:
            return
        late_after = max(_LATE_FLOOR_S, _LATE_FACTOR * statistics.median(job.durations))
        for runner in self._up():
            if self._flights_of(runner):
                continue
            now = time.monotonic()
            late = [f for f in self._flights.values() if job.wants(f) and now - f.since > late_after]
            single = [f for f in late if sum(g.key == f.key for g in self._flights.values()) == 1]
            if single:
                self.counters.redealt_shards += 1
                self._fly(job, runner, min(single, key=lambda f: f.since).key)

    def _fly(self, job: _Job[Any], runner: int, key: ShardKey) -> None:
        job.deals[key] = job.deals.get(key, 0) + 1
        if job.deals[key] > self._resources.max_deals_per_shard:
            errors = job.errors.get(key)
            why = f": {errors[-1]}" if errors else f", the last one is runner {runner}"
            raise RunError(f"{_shown(key)} got no result from {self._resources.max_deals_per_shard} env runners{why}")
        reference = job.ask(self._runners[runner], key)
        self._flights[reference] = _Flight(runner, key, job.digest, time.monotonic())

    # --- waiting and gathering

    def _wait(self) -> None:
        references = [*self._flights, *(absence.ping for absence in self._down.values() if absence.ping is not None)]
        if references:
            ray.wait(references, num_returns=1, timeout=_TICK_S)
        else:
            time.sleep(_TICK_S)  # everybody is down and not yet due for a ping

    def _gather(self, job: _Job[Any]) -> None:
        if not self._flights:
            return
        ready, _ = ray.wait(list(self._flights), num_returns=len(self._flights), timeout=0)
        for reference in ready:
            flight = self._flights.get(reference)
            if flight is None:  # lost with its runner a moment ago
                continue
            try:
                shard = ray.get(reference, timeout=self._resources.shard_timeout_s)
            except RayTaskError as error:
                self._note_error(job, flight, error)
                self._take_down(job, flight.runner, reason(error), kill=True)
                continue
            except RayError as error:
                self._take_down(job, flight.runner, reason(error))
                continue
            del self._flights[reference]
            self._accept(job, flight, shard)

    def _note_error(self, job: _Job[Any], flight: _Flight, error: RayTaskError) -> None:
        """Whether what a runner raised would be raised by any other; if not, it is the runner that is broken."""
        cause = error.cause
        if isinstance(cause, RunError | UserError):
            raise cause from error
        if not job.wants(flight):
            return
        errors = job.errors.setdefault(flight.key, [])
        again = reason(error) in errors and not is_of_the_machine(error)
        errors.append(reason(error))
        if again:
            raise RunError(f"env runner {flight.runner} failed on {_shown(flight.key)}: {errors[-1]}") from error

    def _accept(self, job: _Job[Any], flight: _Flight, shard: Dealt) -> None:
        now = time.monotonic()
        job.durations.append(now - max(flight.since, self._last_answer.get(flight.runner, 0.0)))
        self._last_answer[flight.runner] = now
        if (shard.key, shard.weights_digest) != (flight.key, flight.digest):
            raise RunError(f"env runner {flight.runner} returned shard {tuple(shard.key)} for {tuple(flight.key)}")
        if job.wants(flight):  # else: of an earlier iteration, or the loser of a double deal
            job.done[flight.key] = shard
            if flight.key in job.waiting:
                job.waiting.remove(flight.key)

    def _enforce_deadlines(self, job: _Job[Any]) -> None:
        now = time.monotonic()
        for runner in {flight.runner for flight in self._flights.values()}:
            oldest = min(flight.since for flight in self._flights_of(runner))
            if now - max(oldest, self._last_answer.get(runner, 0.0)) > self._resources.shard_timeout_s:
                self._take_down(job, runner, "no answer in time", kill=True)
        if self._up():
            self._last_up = now
        elif now - self._last_up > self._resources.no_runner_timeout_s:
            reasons = ", ".join(f"{runner} ({absence.why})" for runner, absence in sorted(self._down.items()))
            raise RunError(f"no env runner for {self._resources.no_runner_timeout_s:g} s; down: {reasons}")

    # --- who lives

    def _up(self) -> list[int]:
        return [runner for runner in self._runners if runner not in self._down]

    def _flights_of(self, runner: int) -> list[_Flight]:
        return [flight for flight in self._flights.values() if flight.runner == runner]

    def _take_down(self, job: _Job[Any], runner: int, why: str, *, kill: bool = False) -> None:
        """Books a runner as down and puts its shards back; Ray restarts the actor."""
        if kill:
            ray.kill(self._runners[runner], no_restart=False)
        self.counters.lost_runners += 1
        now = time.monotonic()
        self._down[runner] = _Absence(now, now + _PING_INTERVAL_S, why=why)
        lost = self._flights_of(runner)
        self._flights = {ref: flight for ref, flight in self._flights.items() if flight.runner != runner}
        for flight in lost:
            elsewhere = any(other.key == flight.key and job.wants(other) for other in self._flights.values())
            if job.wants(flight) and not elsewhere and flight.key not in job.waiting:
                self.counters.redealt_shards += 1
                job.waiting.appendleft(flight.key)

    def _revive(self) -> None:
        """Pings runners that are down, again and again: a restarting actor refuses calls at first."""
        now = time.monotonic()
        for runner, absence in list(self._down.items()):
            if absence.ping is None and now > absence.next_ping:
                absence.ping = self._runners[runner].ping.remote()
            if absence.ping is None:
                continue
            ready, _ = ray.wait([absence.ping], timeout=0)
            if ready:
                try:
                    ray.get(ready[0], timeout=self._resources.start_timeout_s)
                    del self._down[runner]
                    continue
                except RayError as error:
                    absence.ping, absence.next_ping = None, now + _PING_INTERVAL_S
                    if not isinstance(error, ActorUnavailableError):  # else: it is still starting
                        absence.why = reason(error)
            if now - absence.since > self._resources.start_timeout_s:
                ray.kill(self._runners[runner], no_restart=False)
                self._down[runner] = _Absence(now, now + _PING_INTERVAL_S, why=absence.why)


def _shown(key: ShardKey) -> str:
    return f"shard {key.number} of iteration {key.iteration}"
