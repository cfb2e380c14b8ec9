"""Work in a thread beside the caller, who stays free for signals, deadlines and news of other processes.

Python hears a signal only between two steps of its main thread. What may hang (Ray, somebody's reward) therefore runs
here; when it does not come back it is given up, and the caller goes on without it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from adanat_rl.config.errors import RunError

_TICK_S = 0.02
_LONGEST_TICK_S = 1.0  # a longer one means that the whole process was stopped: that time does not count
_GIVEN_UP = "given up: "

Result = TypeVar("Result")


class DeadlineError(Exception):
    """The work did not end in time; its thread was given up."""


class _Task(Generic[Result]):
    def __init__(self, work: Callable[[], Result]) -> None:
        self.done = threading.Event()
        self._work = work
        self._result: Any = None
        self.error: BaseException | None = None

    def do(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # handed to who waits, whatever it is
            self.error = error
        self.done.set()

    def result(self) -> Result:
        if self.error is not None:
            raise self.error
        result: Result = self._result
        return result


class SideThread:
    """A thread that does one piece of work after another for a caller who waits and watches.

    Args:
        name: of the thread. grace_s: how long work may go on, in seconds, after `check` has said to stop.
        grace_after_failure_s: the same where `check` has found a failure (`RunError`); None: no other.
    """

    def __init__(self, name: str, grace_s: float = 3.0, grace_after_failure_s: float | None = None) -> None:
        self._name = name
        self._grace_s = grace_s
        self._grace_after_failure_s = grace_s if grace_after_failure_s is None else grace_after_failure_s
        self._tasks: queue.SimpleQueue[_Task[Any]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(
        self,
        work: Callable[[], Result],
        *,
        timeout_s: float | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Result:
        """The result of `work`, or what it raises. Called from within the thread, it is a plain call.

        Args:
            timeout_s: the work is given up after this time; None: never.
            check: asked in every tick. What it, or the handler of a signal, raises is raised here after a grace; work
                that ends well meanwhile counts.

        Raises:
            DeadlineError: the work did not end in time.
        """
        if threading.current_thread() is self._thread:
            return work()
        task: _Task[Result] = _Task(work)
        try:
            self._begin(task)
            self._watch(task, timeout_s, check)
        except BaseException:
            if not task.done.is_set():
                self._give_up()
            raise
        return task.result()

    def _watch(self, task: _Task[Result], timeout_s: float | None, check: Callable[[], None]) -> None:
        waited = 0.0
        last = time.monotonic()
        while True:
            try:  # the wait raises too: that is how the main thread hears of a signal
                if task.done.wait(_TICK_S):
                    return
                check()
            except BaseException as stop:
                has_failed = isinstance(stop, RunError)
                grace_s = self._grace_after_failure_s if has_failed else self._grace_s
                if task.done.wait(grace_s) and task.error is None:
                    return
                raise stop from task.error
            now = time.monotonic()
            waited += min(now - last, _LONGEST_TICK_S)
            last = now
            if timeout_s is not None and waited > timeout_s:
                raise DeadlineError(f"no end within {timeout_s:g} s")

    def _begin(self, task: _Task[Any]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=_work_off, args=(self._tasks,), name=self._name, daemon=True)
            self._thread.start()
        self._tasks.put(task)

    def _give_up(self) -> None:
        """Leaves the thread to itself; the next work gets a fresh one."""
        if self._thread is not None:
            self._thread.name = _GIVEN_UP + self._name
        self._thread = None
        self._tasks = queue.SimpleQueue()


def _work_off(tasks: queue.SimpleQueue[_Task[Any]]) -> None:
    while True:
        tasks.get().do()


def any_given_up() -> bool:
    """Whether a thread of this process was given up and may still be at work: the interpreter cannot end in order."""
    return any(thread.name.startswith(_GIVEN_UP) for thread in threading.enumerate())
