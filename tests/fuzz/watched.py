"""Runs a scenario in this process or as a command, and says what is wrong with what came out."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from adanat_rl.cli import COMMANDS, main
from adanat_rl.config.errors import RunError, UserError
from tests.forking import ForkedCommand

CPU_S = 10.0  # a refusal takes no more
MEMORY_MB = 1000  # nor more memory than this beyond what the process had before
HANG_S = 90.0  # of the clock, on a machine that does other things too
_LIMIT_MB = 6000  # address space beyond what is in use; what wants more fails instead of taking the machine along
MODULES = frozenset(COMMANDS)
"""What can be started as a process."""
_STATUSES = (0, 1, 2)
_INTERNAL = re.compile(r"^adanat-rl [\w-]+: unexpected ", re.MULTILINE)  # what console/failures.py begins with
_MOST_LINES = {1: 4, 2: 1}  # a failure says what is safe and how to go on
_ASIDE = ("warning", "note", "  ")  # lines of other kinds that may stand beside the one


class Hang(BaseException):
    """Raised in a scenario that does not end; no command catches it."""


@dataclass(frozen=True)
class Outcome:
    """What came out. peak_mb: memory beyond that before. hung: it had to be ended."""

    status: int
    output: str
    errors: str
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    hung: bool = False
    raised: str = ""

    def problem(self) -> str | None:
        """What is wrong with it, None for nothing; begins with words that are the same for all problems of a kind."""
        if self.hung:
            return f"hangs: no end in {HANG_S:g} s"
        if self.raised:
            return f"raises {self.raised}"
        if _INTERNAL.search(self.errors):
            return f"internal error: {_line_with('unexpected ', self.errors)}"
        if "Traceback (most recent call last)" in self.errors + self.output:
            return f"traceback: {self.errors.strip().splitlines()[-1]}"
        if self.status not in _STATUSES:
            return f"status {self.status}"
        if self.cpu_s > CPU_S and self.status:
            return f"slow: status {self.status} after {self.cpu_s:.0f} s of CPU"
        if self.peak_mb > MEMORY_MB:
            return f"large: {self.peak_mb:.0f} MB for status {self.status}"
        return self._wrong_words()

    def _wrong_words(self) -> str | None:
        if not self.status:
            return None
        lines = [line for line in self.errors.splitlines() if line.strip()]
        if not lines and not self.output.strip():
            return f"silent: status {self.status} without a word"
        told = [line for line in lines if not line.startswith(_ASIDE) and ": took " not in line]
        if len(told) > _MOST_LINES[self.status]:
            return f"wordy: status {self.status} with {len(told)} lines"
        return None


def _line_with(words: str, text: str) -> str:
    return next(line for line in text.splitlines() if words in line)


def in_process(call: Callable[[], int], folder: Path) -> Outcome:
    """Runs a call in `folder`, as watched as a process would be."""
    output, errors = _text_stream(), _text_stream()
    status, hung, raised = 1, False, ""
    _forget_peak()
    before_mb, before_s = _status_mb("VmRSS"), time.process_time()
    try:
        with (
            _limits(),
            contextlib.chdir(folder),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
        ):
            status = call()
    except Hang:
        hung = True
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except (UserError, RunError) as error:
        status = 2 if isinstance(error, UserError) else 1
        print(error, file=errors)
    except Exception as error:
        raised = f"{type(error).__name__} in {_place(error)}: {str(error)[:300]}"
    return Outcome(
        status,
        _text_of(output),
        _text_of(errors),
        time.process_time() - before_s,
        max(0.0, _status_mb("VmHWM") - before_mb),
        hung,
        raised,
    )


def command_in_process(argv: tuple[str, ...], folder: Path) -> Outcome:
    """`adanat-rl ARGV` without a process."""
    return in_process(lambda: main(list(argv)), folder)


def command_as_process(argv: tuple[str, ...], folder: Path) -> Outcome:
    """`python -m adanat_rl.COMMAND ARGV`, with the slow imports already made."""
    process = ForkedCommand(argv[0].replace("-", "_"), argv[1:], folder, dict(os.environ))
    peak_mb, end = 0.0, time.monotonic() + HANG_S
    while True:
        try:
            output, errors = process.communicate(timeout=0.05)
        except subprocess.TimeoutExpired:
            peak_mb = max(peak_mb, _status_mb("VmRSS", process.pid))
            if time.monotonic() < end:
                continue
            process.kill()
            process.wait()
            return Outcome(-9, "", "", hung=True)
        return Outcome(process.returncode or 0, output, errors, peak_mb=max(0.0, peak_mb - _FORKED_MB))


_FORKED_MB = 700.0  # of a forked process before it does anything: torch and Ray


def _text_stream() -> io.TextIOWrapper:
    """Behaves as the streams of a process do: with a buffer of bytes below."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _text_of(stream: io.TextIOWrapper) -> str:
    raw = stream.detach()
    return raw.getvalue().decode(errors="replace") if isinstance(raw, io.BytesIO) else ""


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """An alarm for what hangs, and a bound on address space for what takes memory without end."""

    def ring(number: int, frame: object) -> None:
        raise Hang

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, HANG_S, 1.0)  # rings on: a handler may run where its exception is swallowed
    resource.setrlimit(resource.RLIMIT_AS, (int((_status_mb("VmSize") + _LIMIT_MB) * 2**20), hard))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _forget_peak() -> None:
    """The kernel's mark of the largest resident size starts again from the present one."""
    ctypes.CDLL(None).malloc_trim(0)  # what earlier scenarios freed is given back, so that it hides nothing
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _status_mb(key: str, pid: int | str = "self") -> float:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1]) / 1024
    return 0.0


def _place(error: Exception) -> str:
    """The deepest line of ours that the error came through."""
    place, trace = "", error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if f"{os.sep}adanat_rl{os.sep}" in name or f"{os.sep}envs{os.sep}" in name:
            place = f"{name.rpartition(f'{os.sep}adanat_rl{os.sep}')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
