"""One event from its beginning to its verdict."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos import judging
from benchmarks.chaos.disk import SmallDisk
from benchmarks.chaos.processes import shared_memory_left
from benchmarks.chaos.references import Reference, References, deadline_s
from benchmarks.chaos.scenarios import Event
from benchmarks.chaos.server import TrackingServer
from benchmarks.chaos.shim import Control, NotPossibleError, build_shim
from benchmarks.chaos.starting import Ending, Place, Started
from benchmarks.chaos.strikes import ACTIONS, DONE, FAILED, NEED_DISK, NEED_SHIM, REFUSED, Attack
from benchmarks.chaos.workloads import URI, WORKLOADS, Workload

MAX_STARTS = 5
_LEFT_TIMEOUT_S = 30.0
_LATE_S = 4.0
_LOOK_S = 0.05
_ITERATIONS = 4


@dataclass
class Verdict:
    """What an event came to.

    Args:
        result: "equal bits", "done before", "not possible here" or "FAILED". notes: what was done. faults: what was
        wrong. typed: the command lines in order. folder: kept where something was wrong.
    """

    event: Event
    result: str = ""
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    typed: list[str] = field(default_factory=list)
    statuses: list[int | None] = field(default_factory=list)
    seconds: float = 0.0
    folder: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        content = {key: value for key, value in vars(self).items() if key != "event"}
        scenario = vars(self.event.scenario)
        return {"seed": self.event.seed, "number": self.event.number, **scenario, **content}


class Campaign:
    """Runs events, several at a time if one likes.

    Args:
        references: a folder of undisturbed runs to share; without one they are made anew.
    """

    def __init__(self, references: Path | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ch-"))
        self._references = References(references or self._folder / "undisturbed")
        self._shim: Path | None = None
        self._shim_lock = threading.Lock()

    def close(self) -> None:
        """Deletes what is of use to this campaign alone."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, event: Event) -> Verdict:
        """An event and its verdict; nothing of it goes on afterwards."""
        verdict, since = Verdict(event), time.time()
        workload = WORKLOADS[event.scenario.workload]
        with ExitStack() as stack:
            try:
                reference = self._references.of(workload)
                place = Place("event")
                stack.callback(place.family.kill)
                self._event(event, workload, reference, place, verdict, stack)
            except NotPossibleError as error:
                verdict.result = "not possible here"
                verdict.notes.append(str(error))
            except Exception as error:  # of the campaign itself; told like any other fault
                verdict.faults.append(f"the campaign: {type(error).__name__}: {error}")
        if left := shared_memory_left(since):
            verdict.faults.append(f"shared memory left: {', '.join(left)}")
        verdict.seconds = round(time.time() - since, 1)
        if verdict.faults:
            verdict.result, verdict.folder = "FAILED", str(place.root)
        else:
            place.remove()
        return verdict

    def _event(
        self,
        event: Event,
        workload: Workload,
        reference: Reference,
        place: Place,
        verdict: Verdict,
        stack: ExitStack,
    ) -> None:
        """Start, strike, wait, start again until it is done, compare."""
        action = event.scenario.action
        disk = server = control = None
        if action in NEED_DISK:
            disk = SmallDisk(place.work)
            stack.callback(disk.close)
            place.prefix, place.inside = disk.prefix, disk.inside
        if action in NEED_SHIM:
            control = Control(place.root / "control", place.work)
            place.environment = control.environment(self._library())
        if workload.server:
            server = TrackingServer(place.root / "s")
            stack.callback(server.close)
        self._references.prepare(workload, place.inside)
        arguments = [part.replace(URI, server.uri if server else "") for part in workload.arguments]
        timeout_s = deadline_s(workload, reference.seconds)

        started = place.start(workload.command, arguments)
        struck_at_s, victim = _wait_for_instant(event, reference, place, started)
        if victim is None:
            ending = started.wait(timeout_s)
            verdict.notes.append("ended before the instant")
            self._note(verdict, ending, {DONE}, workload, place)
        else:
            attack = Attack(workload, place, started, victim, event.chance, server, control, disk)
            expected = ACTIONS[action](attack)
            ending = started.wait(timeout_s)
            for put_right in attack.undo:
                put_right()
            verdict.notes += attack.notes
            verdict.faults += attack.faults
            if judging.is_late(ending, struck_at_s, _LATE_S):
                expected = {*expected, DONE}
            self._note(verdict, ending, expected, workload, place)
            if action != "int twice":  # the second one asks to stop at once
                verdict.faults += judging.stop_faults(ending, workload, place)
        done = self._again(workload, arguments, place, verdict, timeout_s, attack if victim is not None else None)
        if done:
            self._compare(workload, reference, place, verdict, server)
        late = victim is None and verdict.statuses[0] == DONE
        verdict.result = "done before" if late else "equal bits"

    def _again(
        self,
        workload: Workload,
        arguments: list[str],
        place: Place,
        verdict: Verdict,
        timeout_s: float,
        attack: Attack | None,
    ) -> bool:
        """The same command until it is done; whether it ever was."""
        place.environment = {}
        damage = attack.damage if attack is not None else None
        for _ in range(MAX_STARTS):
            ending = place.start(workload.command, arguments).wait(timeout_s)
            refusal = ending.status in {FAILED, REFUSED} and damage is not None and damage.file.name in ending.errors
            if refusal and damage is not None:  # told by name: right, and now somebody brings the backup
                verdict.notes.append(f"told: {ending.errors.strip().splitlines()[0][:200]}")
                damage.undo()
                damage = None
            if ending.status == REFUSED and workload.begins_anew and workload.begins_anew in ending.errors:
                verdict.notes.append("refused, deleted, begun anew")
                shutil.rmtree(place.inside / workload.result)
                continue
            complete = workload.command == "export" and "not empty" in ending.errors
            expected = {DONE, FAILED, *([REFUSED] if refusal or complete else [])}
            self._note(verdict, ending, expected, workload, place)
            if ending.status == DONE or complete:
                return True
            if ending.status not in expected:
                return False
        verdict.faults.append(f"not done after {MAX_STARTS} more starts")
        return False

    def _note(self, verdict: Verdict, ending: Ending, expected: set[int], workload: Workload, place: Place) -> None:
        verdict.typed.append(ending.typed)
        verdict.statuses.append(ending.status)
        verdict.faults += judging.ending_faults(ending, expected, workload)
        verdict.faults += judging.leftover_faults(place, _LEFT_TIMEOUT_S)

    def _compare(
        self,
        workload: Workload,
        reference: Reference,
        place: Place,
        verdict: Verdict,
        server: TrackingServer | None,
    ) -> None:
        verdict.faults += judging.outcome_faults(workload, place.inside, reference.outcome)
        verdict.faults += judging.audit_faults(workload, place, deadline_s(workload, 10))
        if workload.tracked:
            store = server.store if server is not None else f"sqlite:///{place.inside / 'mlflow.db'}"
            verdict.faults += judging.mlflow_faults(store, _ITERATIONS)
        if more := judging.temporary_files(place) - reference.temporary:
            verdict.faults.append(f"temporary files left: {', '.join(more)}")

    def _library(self) -> Path:
        with self._shim_lock:
            if self._shim is None:
                self._shim = build_shim(self._folder)
            return self._shim


def _wait_for_instant(event: Event, reference: Reference, place: Place, started: Started) -> tuple[float, int | None]:
    """Until the instant, and on until the process to strike lives; None if the command ends before."""
    since, target = time.monotonic(), event.scenario.target
    instant = event.instant * reference.seconds
    waited_for_role = False
    while started.is_running():
        elapsed = time.monotonic() - since
        if elapsed >= instant:
            if target in {"driver", "mlflow"}:
                return elapsed, started.pid if target == "driver" else -1
            if found := place.family.of_role(target):
                if waited_for_role:  # not always the moment of its birth
                    time.sleep(event.chance.uniform(0, 3))
                return time.monotonic() - since, event.chance.choice(found).pid
            waited_for_role = True
        time.sleep(_LOOK_S)
    return time.monotonic() - since, None
