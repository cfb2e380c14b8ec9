"""Ctrl-C and SIGTERM: one request to stop that every phase of every command hears, and what the exit status then is.

The first signal raises in the main thread, wherever that is: nothing of a run counts before it is committed, so any
work under way may be dropped. Where it must not be torn (`deferred`), or where somebody else's loop has to end in good
order (`polled`), the request waits. A library may swallow what is raised; the request stays and is asked for.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

EXIT_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
_DEBOUNCE_S = 5.0  # schedulers and impatient fingers send a signal twice; the second must not cost the checkpoint
_LONGEST_DEFERRAL_S = 60.0  # after this even what must not be torn can be ended by another signal
_LOOK_INTERVAL_S = 0.2
_RAISED_AGAIN_S = 0.02


class StopRequested(KeyboardInterrupt):
    """Somebody asked this process to stop. Ray passes on nothing but KeyboardInterrupt out of its waiting."""


class StopRequest:
    """Whether to stop, and why."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._since = 0.0
        self._depth = 0
        self._was_swallowed = False
        self._was_raised = False
        self._was_heard = False

    def __call__(self) -> bool:
        """Whether to stop."""
        self._was_heard |= self.received is not None
        return self.received is not None

    @property
    def exit_status(self) -> int:
        """128 + signal number; 130 where no signal came but somebody raised KeyboardInterrupt."""
        return EXIT_STATUS.get(self.received, 130) if self.received is not None else 130

    @property
    def word(self) -> str:
        """How a message calls it."""
        return "terminated" if self.received == signal.SIGTERM else "interrupted"

    def note(self) -> None:
        """Somebody has caught the KeyboardInterrupt; one that was raised without a signal is a request too."""
        self._was_heard = True
        if self.received is None:
            self.received = signal.SIGINT
            self._since = time.monotonic()

    def check(self) -> None:
        """Raises if a request has come: for the start of a phase.

        Raises:
            StopRequested: it has.
        """
        if self():
            raise StopRequested

    def is_lost(self, error: BaseException | None = None) -> bool:
        """Whether a request was raised and nobody has heard of it: C code that is in the middle of something may put an
        error of its own in its place, or none.

        Args:
            error: what came instead; one that came while the request was handled is an error of its own.
        """
        while error is not None:
            if isinstance(error, StopRequested):
                return False
            error = error.__cause__ or error.__context__
        return self._was_raised and not self._was_heard

    def handle(self, number: int, frame: FrameType | None = None) -> None:
        """The signal handler."""
        now = time.monotonic()
        if self._was_swallowed:
            self._was_swallowed = False
        elif self.received is not None:
            if now - self._since < (_LONGEST_DEFERRAL_S if self._depth else _DEBOUNCE_S):
                return
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        else:
            self.received = signal.Signals(number)
            self._since = now
        if not self._depth:
            self._was_raised = True
            raise StopRequested

    def install(self) -> None:
        """Takes the signals, again too: Ray takes SIGTERM away when it starts. Outside the main thread: nothing."""
        if threading.current_thread() is threading.main_thread():
            for number in EXIT_STATUS:
                signal.signal(number, self.handle)

    @contextmanager
    def installed(self) -> Iterator[StopRequest]:
        """Inside, the signals of this process are heard; the handlers of before come back at the end."""
        in_main = threading.current_thread() is threading.main_thread()
        before = {number: signal.getsignal(number) for number in EXIT_STATUS} if in_main else {}
        self.install()
        try:
            with self._raising_again():
                yield self
        except SystemExit as end:
            # Ray's own handler, while Ray starts, ends the process with the number of the signal as its status.
            if end.code != signal.SIGTERM:
                raise
            self.received = signal.SIGTERM
            raise StopRequested from None
        finally:
            for number, handler in before.items():
                with contextlib.suppress(TypeError):  # a handler that C code installed
                    signal.signal(number, handler)

    @contextmanager
    def _raising_again(self) -> Iterator[None]:
        """Inside, a request that Python swallowed, because nobody could have caught it, is raised once more."""
        before, main = sys.unraisablehook, threading.main_thread().ident
        timers: list[threading.Timer] = []

        def hook(unraisable: sys.UnraisableHookArgs) -> None:
            if not issubclass(unraisable.exc_type, StopRequested) or self.received is None or main is None:
                before(unraisable)
                return
            self._was_swallowed = True
            timers.append(threading.Timer(_RAISED_AGAIN_S, signal.pthread_kill, (main, self.received)))
            timers[-1].start()

        sys.unraisablehook = hook
        try:
            yield
        finally:
            sys.unraisablehook = before
            for timer in timers:
                timer.cancel()
                timer.join()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """What must not be torn: a signal takes effect when it is left."""
        with self.polled():
            yield
        self.check()

    @contextmanager
    def polled(self) -> Iterator[None]:
        """Whoever is inside asks whether to stop; a signal raises nothing."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    @contextmanager
    def watching(self, file: Path) -> Iterator[None]:
        """Inside, the request comes too when a file appears: for a process that gets no signals of its own.

        Enter it in the main thread.
        """
        done = threading.Event()
        main = threading.main_thread().ident
        before = signal.signal(signal.SIGUSR1, self.handle)

        def look() -> None:
            while not done.wait(_LOOK_INTERVAL_S):
                if file.exists() and main is not None:
                    signal.pthread_kill(main, signal.SIGUSR1)
                    return

        thread = threading.Thread(target=look, name="stop-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            signal.signal(signal.SIGUSR1, before)
