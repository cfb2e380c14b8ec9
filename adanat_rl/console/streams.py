"""Standard output and error that no encoding and no reader that went away can turn into an error of the command."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
import unicodedata
from pathlib import Path
from typing import Any, TextIO

_GONE = {errno.EPIPE, errno.EIO, errno.ESHUTDOWN, errno.ECONNRESET}  # a pipe, terminal or socket that nobody reads
_ERROR_HANDLER = "adanat_rl.plain"
# Characters of messages, tables and help pages, in letters that every terminal has.
_PLAIN = {
    "×": "x", "…": "...", "–": "-", "—": "-", "−": "-", "±": "+-", "≥": ">=", "≤": "<=", "∝": "~", "·": "*", "π": "pi",
    "→": "->", "←": "<-", "“": '"', "”": '"', "‘": "'", "’": "'", "ß": "ss", "━": "-", "╸": "-", "╺": "-", "•": "*",
}  # fmt: skip


def settle_streams() -> None:
    """Makes the standard streams of this process safe; may be called again.

    A closed stream becomes the null device. What an encoding lacks is written in plain letters. When nobody reads any
    more, as behind `| head -1`, the rest is dropped in silence and the command goes on.
    """
    codecs.register_error(_ERROR_HANDLER, _in_plain_letters)
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - stays open
        elif stream is getattr(sys, f"__{name}__") and not isinstance(getattr(stream, "buffer", None), _Buffer):
            setattr(sys, name, _surviving(stream))
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors=_ERROR_HANDLER)


def lost_output() -> str | None:
    """Why a part of standard output did not get where it was sent, such as a full disk; None if all of it did."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        return str(error)
    buffer = getattr(sys.stdout, "buffer", None)
    return buffer.raw.lost if isinstance(buffer, _Buffer) and isinstance(buffer.raw, _Descriptor) else None


def can_print(text: str) -> bool:
    """Whether the encoding of standard output has every character of a text."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


class _Descriptor(io.FileIO):
    """A file descriptor that drops what nobody reads, and remembers why anything else could not be written."""

    lost: str | None = None
    is_gone = False

    def write(self, data: Any) -> int:
        """Writes, or takes the bytes and does nothing."""
        if self.is_gone:
            return memoryview(data).nbytes
        try:
            written: Any = super().write(data)  # None where a write would have to wait
            return written
        except OSError as error:
            self.is_gone = True
            if error.errno not in _GONE:
                self.lost = error.strerror or str(error)
            return memoryview(data).nbytes


class _Buffer(io.BufferedWriter):
    """Tells a stream that is settled already."""


def _surviving(stream: TextIO) -> TextIO:
    """The same stream over a descriptor that survives; the stream itself where it has none."""
    try:
        stream.flush()
        raw = _Descriptor(stream.fileno(), "w", closefd=False)
    except (OSError, ValueError):
        return stream
    errors = stream.errors if stream.errors not in (None, "strict", "backslashreplace") else _ERROR_HANDLER
    line_buffering = bool(getattr(stream, "line_buffering", False)) or stream is sys.__stderr__
    return io.TextIOWrapper(_Buffer(raw), encoding=stream.encoding, errors=errors, line_buffering=line_buffering)


def _in_plain_letters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = "".join(map(_plain_letter, error.object[error.start : error.end]))
    try:
        letters.encode(error.encoding)
    except (UnicodeEncodeError, LookupError):
        letters = "?" * len(letters)
    return letters, error.end


def _plain_letter(character: str) -> str:
    if character in _PLAIN:
        return _PLAIN[character]
    decomposed = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return decomposed or "?"
