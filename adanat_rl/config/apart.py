"""Tries somebody's code in a process of its own: what hangs, crashes or ends its process is a broken rule, in a line.

The process is handed an order on standard input and answers in JSON lines: the phase that it is in, findings, or why it
cannot begin. What the code prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.findings import Finding, Status, failed

START = "start"
"""The phase before the check has named one."""
_LINE = 2**16

Check = Callable[[Any, Callable[[str], None]], list[Finding]]
"""What runs in the process: takes the order, and what it tells the name of each phase to."""


def check_apart(check: str, order: Any, limit_of: Callable[[str], tuple[str, float]], what: str) -> list[Finding]:
    """The findings of a check.

    Args:
        check: `module:function`, a `Check`. order: its first argument, as JSON.
        limit_of: the setting that limits a phase, and its seconds. what: is checked, such as "reward", for messages.

    Raises:
        UserError: a setting or a file is wrong. RunError: the check itself failed.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", "from adanat_rl.config.apart import answer; answer()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([path for path in sys.path if path])},
        start_new_session=True,  # what the code starts is ended along with it
    )
    assert process.stdin is not None
    try:
        with process.stdin as pipe:
            pipe.write(json.dumps({"check": check, "order": order}).encode())
        return _listen(process, limit_of, what)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _listen(process: subprocess.Popen[bytes], limit_of: Callable[[str], tuple[str, float]], what: str) -> list[Finding]:
    """Follows the phases, each with a deadline, to the findings or the end of the process."""
    phase, buffer = START, b""
    key, limit_s = limit_of(phase)
    deadline = time.monotonic() + limit_s
    with selectors.DefaultSelector() as selector:
        assert process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return [_broken(phase, f"no end within {key} = {limit_s:g} s")]
            found = os.read(process.stdout.fileno(), _LINE)
            if not found:
                return [_broken(phase, _describe_end(process.wait(), what))]
            *lines, buffer = (buffer + found).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if "findings" in message:
                    return [Finding(row["rule"], Status(row["status"]), row["detail"]) for row in message["findings"]]
                if "user_error" in message:
                    raise UserError(message["user_error"])
                if "run_error" in message:
                    raise RunError(message["run_error"])
                phase = message["phase"]
                key, limit_s = limit_of(phase)
                deadline = time.monotonic() + limit_s


def _broken(phase: str, detail: str) -> Finding:
    return failed("constructor" if phase == START else phase, detail)


def _describe_end(status: int, what: str) -> str:
    if status >= 0:
        return f"ended the process with status {status} (os._exit?); a {what} raises what is wrong"
    name = signal.Signals(-status).name
    return f"the process was ended by {name}" + (" (want of memory?)" if name == "SIGKILL" else "")


# --- in the process


def answer() -> None:
    """Reads what to check from standard input and answers on what was standard output."""
    asked = json.loads(sys.stdin.buffer.read())
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def tell(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")

    try:
        module, _, name = asked["check"].partition(":")
        check: Check = getattr(importlib.import_module(module), name)
        tell(findings=[asdict(finding) for finding in check(asked["order"], lambda phase: tell(phase=phase))])
    except UserError as error:
        tell(user_error=str(error))
    except RunError as error:
        tell(run_error=error.message)
    answers.flush()
    os._exit(0)  # threads of the code may go on for ever
