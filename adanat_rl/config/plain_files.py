"""Opens files that somebody else named: only plain ones, so that a pipe or a device can neither block nor flood."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from adanat_rl.config.errors import UserError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def require_plain_file(path: Path, name: str | None = None) -> int:
    """The size in bytes of a file that can be read from beginning to end.

    Args:
        name: what it is called in messages; None: its path.

    Raises:
        UserError: it is missing, cannot be looked at, or is a folder, a pipe, a socket or a device.
    """
    shown = str(path) if name is None else name
    try:
        facts = path.stat()
    except FileNotFoundError:
        raise UserError(f"no such file: {path}" if name is None else f"{name}: No such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{shown}: {getattr(error, 'strerror', None) or error}") from None
    kind = _kind(facts.st_mode)
    if kind is not None:
        raise UserError(f"{shown} is {kind}, expected a file")
    return facts.st_size


def require_plain_files(folder: Path) -> None:
    """Looks through a folder that a command is about to read; what cannot be looked at is left to whoever reads it.

    Raises:
        UserError: something in it, or in a folder below, is a pipe, a socket or a device.
    """
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            try:
                kind = _kind(path.stat().st_mode)
            except OSError:
                continue
            if kind is not None:
                raise UserError(f"{path} is {kind}, expected a file; move it elsewhere")


def _kind(mode: int) -> str | None:
    """What it is in place of a plain file; None if it is one."""
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), None)


def read_plain_file(path: Path, name: str, max_bytes: int) -> bytes:
    """The content of a file of at most `max_bytes` bytes.

    Raises:
        UserError: as `require_plain_file`; it is longer, or cannot be read.
    """
    size = require_plain_file(path, name)
    if size > max_bytes:
        raise UserError(f"{name} has {size:,} bytes; accepted: at most {max_bytes:,}")
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise UserError(f"{name}: {error.strerror or error}") from None
    if len(data) > max_bytes:
        raise UserError(f"{name} has more than {max_bytes:,} bytes")
    return data
