"""What is done to a running command at the instant, and which exit statuses it may end with then."""

from __future__ import annotations

import errno
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.disk import SmallDisk
from benchmarks.chaos.processes import send
from benchmarks.chaos.server import TrackingServer
from benchmarks.chaos.shim import Control
from benchmarks.chaos.starting import Place, Started
from benchmarks.chaos.tearing import Damage, tear
from benchmarks.chaos.workloads import RUN, Workload

DONE, FAILED, REFUSED, INTERRUPTED, TERMINATED, KILLED = 0, 1, 2, 130, 143, 137
_ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EROFS": errno.EROFS}
_JUMPS_S = (-86400, -3600, -30, 30, 3600, 86400, 10 * 365 * 86400)
_DELETING_S = 10.0


@dataclass
class Attack:
    """A running command that is about to be struck.

    Args:
        victim: the process to strike; the driver's for what strikes no process. chance: for what is random.
        notes: what was done, for people. undo: what is put right when the first start has ended.
    """

    workload: Workload
    place: Place
    started: Started
    victim: int
    chance: random.Random
    server: TrackingServer | None = None
    control: Control | None = None
    disk: SmallDisk | None = None
    notes: list[str] = field(default_factory=list)
    undo: list[Callable[[], object]] = field(default_factory=list)
    damage: Damage | None = None
    faults: list[str] = field(default_factory=list)

    @property
    def strikes_driver(self) -> bool:
        """Whether the victim is the driver itself."""
        return self.victim == self.started.pid

    @property
    def result(self) -> Path:
        """What the command makes."""
        return self.place.inside / self.workload.result

    def send(self, number: signal.Signals) -> None:
        """A signal to the victim, or to the server that is struck."""
        if self.server is not None and not self.strikes_driver:
            self.server.send(number)
        else:
            send(self.victim, number)
        self.notes.append(number.name)


Action = Callable[[Attack], set[int]]


def kill(attack: Attack) -> set[int]:
    """SIGKILL."""
    attack.send(signal.SIGKILL)
    if attack.strikes_driver:
        return {KILLED}
    if attack.server is not None:
        attack.undo.append(attack.server.start)
        if attack.chance.random() < 0.5:
            time.sleep(attack.chance.uniform(0, 10))
            attack.server.start()
            attack.notes.append("started again")
        return {DONE}
    return {DONE, FAILED}


def freeze(attack: Attack) -> set[int]:
    """SIGSTOP for a while."""
    attack.send(signal.SIGSTOP)
    time.sleep(attack.chance.uniform(0.5, 8))
    attack.send(signal.SIGCONT)
    return {DONE} if attack.strikes_driver or attack.server is not None else {DONE, FAILED}


def freeze_for_ever(attack: Attack) -> set[int]:
    """SIGSTOP; a driver that hangs so keeps its folder until somebody kills it."""
    attack.send(signal.SIGSTOP)
    if attack.server is not None:
        attack.undo.append(lambda: attack.send(signal.SIGCONT))
        return {DONE}
    if not attack.strikes_driver:
        return {DONE, FAILED}
    if (attack.result / "run.lock").exists():
        _expect_refusal(attack, by_frozen=True)
    attack.send(signal.SIGKILL)
    return {KILLED}


def terminate(attack: Attack) -> set[int]:
    """SIGTERM."""
    attack.send(signal.SIGTERM)
    return {TERMINATED} if attack.strikes_driver else {DONE, FAILED}


def interrupt(attack: Attack) -> set[int]:
    """Ctrl-C."""
    attack.send(signal.SIGINT)
    return {INTERRUPTED}


def interrupt_twice(attack: Attack) -> set[int]:
    """Ctrl-C by somebody impatient."""
    attack.send(signal.SIGINT)
    time.sleep(attack.chance.uniform(0.05, 2.0))
    attack.send(signal.SIGINT)
    return {INTERRUPTED}


def terminate_twice(attack: Attack) -> set[int]:
    """What schedulers do that tell a whole group and then the process: the same signal again within 0.4 s."""
    attack.send(signal.SIGTERM)
    time.sleep(attack.chance.uniform(0.02, 0.4))
    attack.send(signal.SIGTERM)
    return {TERMINATED}


def second_driver(attack: Attack) -> set[int]:
    """The same command once more while it runs."""
    _expect_refusal(attack, by_frozen=False)
    return {DONE}


def delete_folder(attack: Attack) -> set[int]:
    """Somebody cleans up, and again where a file was written meanwhile and the folder could not be removed."""
    attack.notes.append("deleted" if attack.result.exists() else "nothing there yet")
    status = {FAILED} if attack.result.exists() else {DONE}  # the command that goes on begins from zero then
    until = time.monotonic() + _DELETING_S
    while attack.result.exists() and time.monotonic() < until:
        shutil.rmtree(attack.result, ignore_errors=True)
    return status


def tear_file(attack: Attack) -> set[int]:
    """Killed, and a file that can be made again is damaged before the next start."""
    return _kill_and_tear(attack, only_copies=False)


def tear_only_copy(attack: Attack) -> set[int]:
    """Killed, and a file that nothing gives back is damaged before the next start."""
    return _kill_and_tear(attack, only_copies=True)


def break_disk(name: str) -> Action:
    """File operations in the folder fail."""

    def action(attack: Attack) -> set[int]:
        control = attack.control
        assert control is not None
        times, one_in = attack.chance.choice((1, 3, -1)), attack.chance.choice((1, 3, 10))
        control.fail(_ERRORS[name], times=times, one_in=one_in)
        attack.notes.append(f"{'all' if times < 0 else times} of each {one_in} operations")
        attack.undo += [lambda: attack.notes.append(f"{control.failures} failed"), control.heal]
        return _statuses_of_a_broken_disk(attack)

    return action


def jump_clock(attack: Attack) -> set[int]:
    """The time of day jumps, forth or back."""
    assert attack.control is not None
    seconds = attack.chance.choice(_JUMPS_S)
    attack.control.jump(seconds)
    attack.notes.append(f"{seconds:+d} s")
    attack.undo.append(attack.control.heal)
    return {DONE}


def fill_disk(attack: Attack) -> set[int]:
    """No byte is left."""
    assert attack.disk is not None
    attack.disk.fill()
    attack.undo.append(attack.disk.free)
    return _statuses_of_a_broken_disk(attack)


def read_only_disk(attack: Attack) -> set[int]:
    """Killed, and the next start finds a disk that cannot be written."""
    disk = attack.disk
    assert disk is not None
    attack.send(signal.SIGKILL)
    attack.started.wait(60)
    attack.place.family.wait_for_end(30)
    disk.set_writable(writable=False)
    ending = attack.place.start(attack.workload.command, attack.workload.arguments).wait(120)
    attack.notes.append(f"read-only: status {ending.status}, {ending.errors.strip()[:160]}")
    if ending.status not in {FAILED, REFUSED} or "unexpected" in ending.errors or "Traceback" in ending.errors:
        attack.faults.append(f"on a read-only disk: status {ending.status}: {ending.errors.strip()[-300:]}")
    disk.set_writable(writable=True)
    return {KILLED}


ACTIONS: dict[str, Action] = {
    "kill": kill,
    "freeze": freeze,
    "freeze for ever": freeze_for_ever,
    "term": terminate,
    "int": interrupt,
    "int twice": interrupt_twice,
    "term twice": terminate_twice,
    "second driver": second_driver,
    "folder deleted": delete_folder,
    "torn file": tear_file,
    "torn only copy": tear_only_copy,
    "clock": jump_clock,
    "full disk": fill_disk,
    "read-only disk": read_only_disk,
    **{name: break_disk(name) for name in _ERRORS},
}
NEED_SHIM = frozenset({"clock", *_ERRORS})
NEED_DISK = frozenset({"full disk", "read-only disk"})


def _statuses_of_a_broken_disk(attack: Attack) -> set[int]:
    """Who has written nothing yet may refuse the place instead."""
    result = attack.result
    begun = result.is_file() or (result.is_dir() and any(entry.name != "run.lock" for entry in result.iterdir()))
    return {DONE, FAILED} if begun else {DONE, FAILED, REFUSED}


def _kill_and_tear(attack: Attack, *, only_copies: bool) -> set[int]:
    attack.send(signal.SIGKILL)
    attack.started.wait(60)
    attack.place.family.wait_for_end(30)
    attack.damage = tear(attack.place.inside / RUN, attack.chance, only_copies=only_copies)
    attack.notes.append(attack.damage.what if attack.damage else "nothing to tear yet")
    return {KILLED}


def _expect_refusal(attack: Attack, *, by_frozen: bool) -> None:
    """The same command is refused while the first one runs or hangs; one that has ended meanwhile refuses nobody."""
    second = attack.place.start(attack.workload.command, attack.workload.arguments).wait(120)
    attack.notes.append(f"second driver: status {second.status}")
    over = not by_frozen and not attack.started.is_running()
    if second.status == REFUSED and "in use" in second.errors:
        return
    if not (over and second.status == DONE):
        attack.faults.append(f"a second driver: status {second.status}: {second.errors.strip()[-300:]}")
