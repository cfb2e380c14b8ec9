"""Commands in processes that are forked from one which has the slow imports behind it: half the time of a fresh one.

What a command does is what `python -m adanat_rl.COMMAND` does; `tests/cluster` starts that itself.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import connection
from pathlib import Path

from adanat_rl.experiment.cluster import quiet_environment

IMPORTED_BEFORE = (
    "torch._dynamo",
    "matplotlib.figure",
    "adanat_rl.experiment.training",
    "adanat_rl.experiment.sweep.run",
    "adanat_rl.plots.ablation.report",
)
# What a cluster in the process of the tests leaves behind; Ray has read its mode long before in a forked process.
OF_OTHER_CLUSTERS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(list(IMPORTED_BEFORE))
# Starting one command looks at the ends of all others, and an end can be read once only: threads take turns.
_TURN = threading.Lock()


class ForkedCommand:
    """A running `adanat-rl COMMAND` in a session of its own, with those methods of `subprocess.Popen` that tests use.

    Args:
        command: its name. arguments: what is typed behind it. cwd: where it runs. environment: all of it.
    """

    def __init__(self, command: str, arguments: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> None:
        quiet_environment()  # the imports are made in a process that inherits it
        self.args = [f"adanat_rl.{command}", *arguments]
        self._folder = tempfile.TemporaryDirectory(prefix="adanat-test-")
        self._outputs = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        self._process = _CONTEXT.Process(target=_run, args=(self.args, cwd, dict(environment), self._outputs))
        with _TURN:
            self._process.start()
        self.pid: int = self._process.pid or 0
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, negative after a signal.

        Raises:
            subprocess.TimeoutExpired: it is still running.
        """
        if not connection.wait([self._process.sentinel], timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        with _TURN:
            self._process.join()
        self.returncode = self._process.exitcode
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits; what it printed, and its errors."""
        self.wait(timeout)
        output, errors = (path.read_text() for path in self._outputs)
        return output, errors

    def send_signal(self, number: int) -> None:
        """To this process alone."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it at once."""
        self.send_signal(signal.SIGKILL)


def _run(args: Sequence[str], cwd: Path, environment: Mapping[str, str], outputs: Sequence[Path]) -> None:
    """What `python -m MODULE ARGUMENTS` does, in the forked process."""
    os.setsid()
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.environ.clear()
    os.environ.update({name: value for name, value in environment.items() if name not in OF_OTHER_CLUSTERS})
    os.chdir(cwd)
    tempfile.tempdir = None  # an import may have asked for it, with another TMPDIR
    sys.path[:0] = [str(cwd), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [args[0], *args[1:]]
    try:
        runpy.run_module(args[0], run_name="__main__", alter_sys=True)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
