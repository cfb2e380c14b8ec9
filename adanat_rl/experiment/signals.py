"""Ctrl-C and SIGTERM: the run is told, stops at the next safe point, and the exit status says which it was."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}


class InterruptGuard:
    """Remembers the first signal; a second one ends the process the usual way."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.received is not None

    @property
    def exit_status(self) -> int:
        """128 + signal number, or 0 if none came."""
        return EXIT_STATUS[self.received] if self.received is not None else 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.received = signal.Signals(number)


@contextmanager
def interrupt_guard() -> Iterator[InterruptGuard]:
    """Installs the guard; enter it after Ray has started, which installs handlers of its own."""
    guard = InterruptGuard()
    before = {number: signal.signal(number, guard.handle) for number in EXIT_STATUS}
    try:
        yield guard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
