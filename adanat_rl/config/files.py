"""Writing files so that a reader, or a run killed half-way, never meets half of one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

CHECKSUM = "crc32"  # the last key of a sealed JSON line
_LEFTOVER = re.compile(r"\..+\.\d+\.tmp")  # names that `write_atomically` writes under


def file_sha256(path: Path) -> str:
    """SHA-256 in hex of a file, which need not fit into memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _encoded(text: str) -> bytes:
    """UTF-8; half a surrogate pair, as JSON of others may hold it, stays the escape that it was."""
    return text.encode("utf-8", "backslashreplace")


def write_atomically(path: Path, content: bytes | str, *, durable: bool = True, parents: bool = True) -> None:
    """Writes a file under another name beside it and renames it.

    Args:
        parents: whether folders that are missing are made; without, a folder that was moved away is not made again.
        durable: whether the content is on the disk, not only in the kernel's cache, before this returns. Without it a
            power cut may leave an empty file under the name: only for what can be made again.
    """
    data = _encoded(content) if isinstance(content, str) else content
    if parents:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Deletes the unfinished files that writers of `write_atomically` left in a folder when they were killed.

    Call it where nobody else writes: with the lock on the folder.
    """
    for leftover in folder.glob(".*.tmp"):
        if is_leftover(leftover):
            leftover.unlink(missing_ok=True)


def is_leftover(path: Path) -> bool:
    """Whether a file is an unfinished one of `write_atomically`."""
    return _LEFTOVER.fullmatch(path.name) is not None and path.is_file()


@dataclass(frozen=True)
class JsonLines:
    """What a JSON-lines file holds.

    Args:
        rows: its objects in order, without their checksums. lines: the bytes of each, without their end.
        damaged: `line 3: …` for each line that is no JSON object. altered: `line 3: …` for each object that is not what
            was written. unfinished: whether the last line breaks off: its writer was killed.
    """

    rows: list[dict[str, Any]]
    lines: list[bytes]
    damaged: list[str]
    altered: list[str]
    unfinished: bool


def scan_json_lines(path: Path) -> JsonLines:
    """Reads a JSON-lines file; nothing if it is missing. A damaged line costs only itself."""
    found = JsonLines([], [], [], [], unfinished=False)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return found
    lines = content.split(b"\n")
    last = len(lines)  # empty where the file ends as it should
    for number, line in enumerate(lines, start=1):
        row, as_written = read_json_line(line)
        if row is not None:
            found.rows.append(row)
            found.lines.append(line)
            if not as_written:
                found.altered.append(f"line {number}: not as it was written (its checksum differs)")
        elif line.strip() and number < last:
            found.damaged.append(f"line {number}: no JSON object ({line[:40].decode(errors='replace')!r}…)")
    return replace(found, unfinished=bool(lines[-1]) and _json_object(lines[-1]) is None)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSON-lines file, none if it is missing; `scan_json_lines` tells of damaged lines."""
    return scan_json_lines(path).rows


def json_line(row: Mapping[str, Any]) -> str:
    """A row as one line of JSON that ends with the CRC-32 of the row, so that a reader sees a turned bit.

    Args:
        row: not empty, finite.
    """
    text = json.dumps(dict(row), allow_nan=False)
    return f'{text[:-1]}, "{CHECKSUM}": "{zlib.crc32(text.encode()):08x}"}}'


def read_json_line(line: bytes) -> tuple[dict[str, Any] | None, bool]:
    """The object of a line without its checksum, None if it is no object; and whether it is as it was written, which
    also holds for lines without a checksum, as older versions wrote them.
    """
    row = _json_object(line)
    if row is None or CHECKSUM not in row:
        return row, True
    checksum = row.pop(CHECKSUM)
    content = line[: line.rfind(f', "{CHECKSUM}": '.encode())] + b"}"
    return row, checksum == f"{zlib.crc32(content):08x}"


def append_line(path: Path, line: str) -> None:
    """Adds a line in a single write; a write that fails half-way, on a full disk, leaves the file as it was.

    Args:
        line: without its end.
    """
    with path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        data = _encoded(line) + b"\n"
        try:
            written = file.write(data)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError as error:
            file.truncate(before)
            raise OSError(error.errno, error.strerror, str(path)) from None


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # not UTF-8, no JSON, or hostile nesting
        return None
    return row if isinstance(row, dict) else None


def sync_folder(folder: Path) -> None:
    """Puts a folder's entries on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
