"""Starting a command of the product in a place of its own, and what it comes to."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.processes import MARKER, Family
from tests.forking import OF_OTHER_CLUSTERS, ForkedCommand

ROOT = Path(__file__).parents[2]
_LAST_WORDS_S, _LOOK_S = 5.0, 0.1
KILLED = 128  # a shell's exit status of a process that a signal ended, less the signal's number


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    Args:
        typed: its command line. status: the exit status as a shell shows it; None if it had to be killed at the
        deadline. output, errors: what it printed. seconds: how long it ran.
    """

    typed: str
    status: int | None
    output: str
    errors: str
    seconds: float


class Place:
    """The folder of one event: `w`, where commands run, and `t`, their TMPDIR; both names are short, as Ray needs.

    Args:
        name: marks the processes of the event.
    """

    def __init__(self, name: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="ch-"))
        self.family = Family(f"{name}-{self.root.name}")
        self._marker = f"{name}-{self.root.name}"
        self.work, self.temporary = self.root / "w", self.root / "t"
        for folder in (self.work, self.temporary):
            folder.mkdir()
        self.environment: dict[str, str] = {}  # more of it, for commands of their own interpreter
        self.prefix: tuple[str, ...] = ()  # typed before the interpreter, to enter a namespace
        self.inside = self.work  # the same folder as this process reaches it

    def start(self, command: str, arguments: Sequence[str]) -> Started:
        """Starts `adanat-rl COMMAND` here."""
        environment = {
            **{name: value for name, value in os.environ.items() if name not in OF_OTHER_CLUSTERS},
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": str(ROOT),
            MARKER: self._marker,
            **self.environment,
        }
        started = Started(command, arguments, self.work, environment, self.prefix, fresh=bool(self.environment))
        self.family.add_session(started.pid)
        return started

    def remove(self) -> None:
        """Deletes the folder."""
        shutil.rmtree(self.root, ignore_errors=True)


class Started:
    """A running command; it is the first process of its session.

    Args:
        fresh: in an interpreter of its own, which a preloaded library needs; else forked from one that has the
        imports behind it. prefix: entering a namespace needs a fresh one too.
    """

    def __init__(
        self,
        command: str,
        arguments: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str],
        prefix: Sequence[str] = (),
        *,
        fresh: bool = False,
    ) -> None:
        self.typed = " ".join(["adanat-rl", command, *arguments])
        self._since = time.monotonic()
        self._process: ForkedCommand | _Fresh
        if fresh or prefix:
            self._process = _Fresh(
                [*prefix, sys.executable, "-m", f"adanat_rl.{command}", *arguments], cwd, environment
            )
        else:
            self._process = ForkedCommand(command, arguments, cwd, environment)
        self.pid = self._process.pid

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=0)
            return False
        return True

    def wait(self, timeout_s: float) -> Ending:
        """Waits for its end; at the deadline it is killed."""
        late = False
        try:
            self._process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            late = True
            self._process.kill()
        output, errors = self._process.communicate(timeout=60)
        status = self._process.returncode
        patience = time.monotonic() + _LAST_WORDS_S
        while status and not late and not errors.strip() and time.monotonic() < patience:
            time.sleep(_LOOK_S)  # its reaper speaks for it when it is gone
            output, errors = self._process.communicate(timeout=60)
        if status is not None and status < 0:
            status = KILLED - status
        seconds = time.monotonic() - self._since
        return Ending(self.typed, None if late else status, output, errors, round(seconds, 1))


@dataclass
class _Fresh:
    """As `ForkedCommand`, by an interpreter of its own."""

    args: list[str]
    cwd: Path
    environment: Mapping[str, str]
    pid: int = 0
    returncode: int | None = None
    _folder: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory)

    def __post_init__(self) -> None:
        files = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        self._outputs = files
        with files[0].open("wb") as output, files[1].open("wb") as errors:
            self._process = subprocess.Popen(
                self.args,
                cwd=self.cwd,
                env=dict(self.environment),
                stdout=output,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def wait(self, timeout: float | None = None) -> int:
        self.returncode = self._process.wait(timeout)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        output, errors = (path.read_text(errors="replace") for path in self._outputs)
        return output, errors

    def kill(self) -> None:
        self._process.kill()
