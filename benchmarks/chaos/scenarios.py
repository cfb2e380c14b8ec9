"""Which event happens to which command, and how the events of a seed are drawn."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.chaos.workloads import WORKLOADS


@dataclass(frozen=True)
class Scenario:
    """Args:
    workload: name of what is struck. action: what happens. target: to which process of it.
    """

    workload: str
    action: str
    target: str = "driver"

    @property
    def kind(self) -> str:
        """For tables."""
        return f"{self.action}: {self.target}"


@dataclass(frozen=True)
class Event:
    """One of the events of a seed; the pair says everything that is random about it.

    Args:
        instant: as a part of the undisturbed command's length.
    """

    seed: int
    number: int
    scenario: Scenario
    instant: float

    @property
    def chance(self) -> random.Random:
        """For all else that is random."""
        return random.Random(f"{self.seed}/{self.number}/chance")


_STOPS = ("kill", "term", "int")
_SIGNALS = ("kill", "kill", "term", "int", "int twice", "term twice")
_ON_WORKERS = ("kill", "freeze", "freeze for ever")
_DISK = ("EIO", "ENOSPC", "EROFS")

SCENARIOS: tuple[Scenario, ...] = (
    *(Scenario("train", action) for action in (*_SIGNALS, "freeze", "freeze for ever", *_DISK)),
    *(Scenario("train", action) for action in ("clock", "full disk", "read-only disk", "second driver")),
    *(Scenario("train", action) for action in ("folder deleted", "torn file", "torn only copy")),
    *(Scenario("train", action, target) for target in ("raylet", "gcs") for action in _ON_WORKERS),
    *(Scenario("train", "kill", target) for target in ("agent", "reaper")),
    *(
        Scenario("train with actors", action, target)
        for target in ("runner", "reward", "learner")
        for action in (*_ON_WORKERS, "term")
    ),
    *(Scenario("train with actors", action) for action in ("kill", "term", "int", "EIO")),
    *(Scenario("train with actors", "kill", target) for target in ("raylet", "gcs")),
    *(Scenario("train tracked", action) for action in (*_STOPS, "EIO", "ENOSPC", "clock", "torn file")),
    *(Scenario("train tracked by a server", action, "mlflow") for action in _ON_WORKERS),
    Scenario("train tracked by a server", "kill"),
    *(Scenario("resume", action) for action in (*_SIGNALS, *_DISK, "torn file", "torn only copy", "second driver")),
    *(Scenario("resume", "kill", target) for target in ("raylet", "gcs")),
    *(Scenario("sweep", action) for action in (*_SIGNALS, "freeze", "ENOSPC", "EIO", "torn file", "second driver")),
    *(Scenario("sweep", "kill", target) for target in ("trial", "raylet", "gcs")),
    Scenario("sweep", "freeze for ever", "trial"),
    *(Scenario("search", action) for action in (*_SIGNALS, *_DISK, "freeze", "torn file", "second driver")),
    *(Scenario("pretrain", action) for action in (*_STOPS, "term twice", "EIO", "ENOSPC", "full disk")),
    *(Scenario("export", action) for action in (*_STOPS, "EIO", "ENOSPC")),
    *(Scenario("evaluate", action) for action in (*_STOPS, "EIO", "ENOSPC")),
    *(Scenario("report", action) for action in (*_STOPS, "ENOSPC")),
)


def draw(seed: int, number: int, workloads: Sequence[str] = tuple(WORKLOADS)) -> Event:
    """An event of a seed: in each round every scenario happens once, in an order of chance.

    Args:
        number: counts from 0. workloads: only events of these; the numbers belong to the choice.
    """
    scenarios = [scenario for scenario in SCENARIOS if scenario.workload in workloads]
    turn, place = divmod(number, len(scenarios))
    order = random.Random(f"{seed}/round {turn}").sample(scenarios, len(scenarios))
    return Event(seed, number, order[place], random.Random(f"{seed}/{number}").random())


def some_workloads(seed: int, count: int) -> tuple[str, ...]:
    """A few workloads by chance, in their own order: a short campaign measures each undisturbed one first."""
    chosen = set(random.Random(f"{seed}/workloads").sample(sorted(WORKLOADS), min(count, len(WORKLOADS))))
    return tuple(name for name in WORKLOADS if name in chosen)
