"""How failures that no command expects become one line and an exit status."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adanat_rl.config.text_files import one_line, printable
from adanat_rl.console.streams import lost_output

EXIT_DONE, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
_IN_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
# What the operating system says of a path that cannot be one, and of a file that is not there.
_WRONG_PATH = frozenset(
    (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EEXIST, errno.EXDEV)
)
# Errors of an operating system that point to an error of this program, not to a disk, a limit or a permission.
_OURS = frozenset((errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ESRCH, errno.ECHILD, errno.EDOM, errno.ERANGE))


def complain(text: str) -> None:
    """One line on standard error, whatever stands in it."""
    print(one_line(text), file=sys.stderr)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Inside, what this package warns of is one line for people, without the place in its code."""
    before, package = warnings.showwarning, str(Path(__file__).parent.parent)

    def show(message: Warning | str, category: type[Warning], filename: str, *more: Any, **details: Any) -> None:
        if filename.startswith(package):
            complain(f"warning: {message}")
        else:
            before(message, category, filename, *more, **details)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def unexpected(prefix: str, error: Exception) -> int:
    """Prints one line; the traceback goes into a file, because this is an error of ours.

    What the operating system refuses is none: a name that cannot be a path is wrong input, a disk that fails is told.

    Args:
        prefix: of the line, the command.
    """
    if isinstance(error, OSError) and error.errno is not None and error.errno not in _OURS:
        where = f"{printable(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
        complain(f"{prefix}: {where}{error.strerror}")
        return EXIT_USAGE if error.errno in _WRONG_PATH else EXIT_FAILED
    if isinstance(error, MemoryError):
        complain(f"{prefix}: out of memory; smaller batches, or fewer workers, take less")
        return EXIT_FAILED
    first_line = (str(error).strip().splitlines() or [""])[0]
    reason = f"{prefix}: unexpected {type(error).__name__}: {first_line}"
    complain(f"{reason}; {_keep_traceback(error)}")
    return EXIT_FAILED


def status_of_output(prefix: str, status: int) -> int:
    """The exit status of a command that has ended; one whose output a full disk swallowed has failed."""
    lost = lost_output()
    if lost is None or status != EXIT_DONE:
        return status
    complain(f"{prefix}: cannot write to standard output: {lost}; what the command made is complete")
    return EXIT_FAILED


def _keep_traceback(error: Exception) -> str:
    """Where the traceback is, in words."""
    text = "".join(traceback.format_exception(error))
    if _IN_RAY_JOB in os.environ:  # its user sees the log of the job, and no file of that machine
        return f"traceback:\n{text}"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="adanat-rl-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(text)
    except OSError:
        return f"traceback:\n{text}"
    return f"traceback in {file.name}"
