"""One event from its beginning to its verdict."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable
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
from benchmarks.chaos.tearing import Damage
from benchmarks.chaos.workloads import URI, WORKLOADS, Workload

MAX_STARTS = 5
_LEFT_TIMEOUT_S = 30.0
_LATE_S = 4.0
_LOOK_S = 0.05
_LOOK_FOR_ROLES_S = 0.25
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
        """An event and its verdict; no process of it goes on afterwards."""
        verdict, since = Verdict(event), time.time()
        place = Place("event")
        with ExitStack() as stack:
            stack.callback(place.family.kill)
            try:
                _Trial(event, self._references, place, verdict, stack).run(self._library)
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

    def _library(self) -> Path:
        with self._shim_lock:
            if self._shim is None:
                self._shim = build_shim(self._folder)
            return self._shim


class _Trial:
    """One event: armed, struck, given again until it is done, compared.

    Args:
        verdict: filled on the way. stack: of what is put away at the end.
    """

    def __init__(self, event: Event, references: References, place: Place, verdict: Verdict, stack: ExitStack) -> None:
        self._event, self._place, self._verdict, self._stack = event, place, verdict, stack
        self._workload: Workload = WORKLOADS[event.scenario.workload]
        self._references = references
        self._reference = references.of(self._workload)
        self._timeout_s = deadline_s(self._workload, self._reference.seconds)
        self._disk: SmallDisk | None = None
        self._control: Control | None = None
        self._server: TrackingServer | None = None
        self._damage: Damage | None = None
        self._arguments: list[str] = []

    def run(self, library: Callable[[], Path]) -> None:
        """All of it.

        Args:
            library: builds what is preloaded.

        Raises:
            NotPossibleError: this machine cannot do it.
        """
        self._arm(library)
        struck = self._first_start()
        if self._again():
            self._compare()
        self._verdict.result = "equal bits" if struck else "done before"

    def _arm(self, library: Callable[[], Path]) -> None:
        action, place = self._event.scenario.action, self._place
        if action in NEED_DISK:
            self._disk = SmallDisk(place.work)
            self._stack.callback(self._disk.close)
            self._stack.callback(self._keep_disk)
            place.prefix, place.inside = self._disk.prefix, self._disk.inside
        if action in NEED_SHIM:
            self._control = Control(place.root / "control", place.work)
            place.environment = self._control.environment(library())
        if self._workload.server:
            self._server = TrackingServer(place.root / "s")
            self._stack.callback(self._server.close)
        self._references.prepare(self._workload, place.inside)
        uri = self._server.uri if self._server is not None else ""
        self._arguments = [part.replace(URI, uri) for part in self._workload.arguments]

    def _first_start(self) -> bool:
        """Starts and strikes; whether it came to that."""
        event, verdict, place = self._event, self._verdict, self._place
        started = place.start(self._workload.command, self._arguments)
        struck_at_s, victim = _wait_for_instant(event, self._reference, place, started)
        if victim is None:
            verdict.notes.append("ended before the instant")
            self._note(started.wait(self._timeout_s), {DONE})
            return False
        attack = Attack(self._workload, place, started, victim, event.chance, self._server, self._control, self._disk)
        expected = ACTIONS[event.scenario.action](attack)
        ending = started.wait(self._timeout_s)
        for put_right in attack.undo:
            put_right()
        self._damage = attack.damage
        verdict.notes += attack.notes
        verdict.faults += attack.faults
        if judging.is_late(ending, struck_at_s, _LATE_S):
            expected = {*expected, DONE}
        self._note(ending, expected)
        if event.scenario.action != "int twice":  # the second one asks to stop at once
            verdict.faults += judging.stop_faults(ending, self._workload, place)
        return True

    def _again(self) -> bool:
        """The same command until it is done; whether it ever was."""
        workload, verdict = self._workload, self._verdict
        self._place.environment = {}
        for _ in range(MAX_STARTS):
            ending = self._place.start(workload.command, self._arguments).wait(self._timeout_s)
            if ending.status == REFUSED and workload.begins_anew and workload.begins_anew in ending.errors:
                verdict.notes.append("refused, deleted, begun anew")
                shutil.rmtree(self._place.inside / workload.result)
                continue
            complete = workload.command == "export" and "not empty" in ending.errors
            refusals = {REFUSED} if complete or self._told_by_name(ending) else set()
            self._note(ending, {DONE, FAILED, *refusals})
            if ending.status == DONE or complete:
                return True
            if ending.status not in {FAILED, *refusals}:
                return False
        verdict.faults.append(f"not done after {MAX_STARTS} more starts")
        return False

    def _told_by_name(self, ending: Ending) -> bool:
        """Whether a torn file was named; then somebody brings the backup."""
        damage = self._damage
        if damage is None or ending.status not in {FAILED, REFUSED} or damage.file.name not in ending.errors:
            return False
        self._verdict.notes.append(f"told: {ending.errors.strip().splitlines()[0][:200]}")
        damage.undo()
        self._damage = None
        return True

    def _note(self, ending: Ending, expected: set[int]) -> None:
        verdict = self._verdict
        verdict.typed.append(ending.typed)
        verdict.statuses.append(ending.status)
        verdict.faults += judging.ending_faults(ending, expected, self._workload)
        verdict.faults += judging.leftover_faults(self._place, _LEFT_TIMEOUT_S)

    def _compare(self) -> None:
        place, workload, faults = self._place, self._workload, self._verdict.faults
        audited = judging.audit_faults(workload, place, deadline_s(workload, 10))
        damage = self._damage
        if damage is not None and damage.is_only_copy and any(damage.called in fault for fault in audited):
            self._verdict.notes.append("told by audit")  # the run went on without it; again somebody brings the backup
            damage.undo()
            audited = judging.audit_faults(workload, place, deadline_s(workload, 10))
        faults += audited
        faults += judging.outcome_faults(workload, place.inside, self._reference.outcome)
        if workload.tracked:
            store = self._server.store if self._server is not None else f"sqlite:///{place.inside / 'mlflow.db'}"
            faults += judging.mlflow_faults(store, _ITERATIONS)
        if more := judging.temporary_files(place) - self._reference.temporary:
            faults.append(f"temporary files left: {', '.join(more)}")

    def _keep_disk(self) -> None:
        """What lies on the small disk goes away with it: a copy is there to be looked at."""
        shutil.copytree(self._place.inside, self._place.root / "disk", ignore=shutil.ignore_patterns(".ballast"))


def _wait_for_instant(event: Event, reference: Reference, place: Place, started: Started) -> tuple[float, int | None]:
    """Until the instant, and on until the process to strike lives; None if the command ends before.

    Raises:
        RuntimeError: a process of that role has never lived, so the scenario proves nothing.
    """
    since, target = time.monotonic(), event.scenario.target
    instant = event.instant * reference.seconds
    by_role = target not in {"driver", "mlflow"}
    seen, waited = not by_role, False
    while started.is_running():
        found = place.family.of_role(target) if by_role else []
        seen = seen or bool(found)
        elapsed = time.monotonic() - since
        if elapsed >= instant:
            if not by_role:
                return elapsed, started.pid if target == "driver" else -1
            if found:
                if waited:  # not always the moment of its birth
                    time.sleep(event.chance.uniform(0, 3))
                return time.monotonic() - since, event.chance.choice(found).pid
            waited = True
        time.sleep(_LOOK_FOR_ROLES_S if by_role else _LOOK_S)
    if not seen:
        raise RuntimeError(f"no {target} has ever lived")
    return time.monotonic() - since, None
