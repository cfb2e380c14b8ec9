"""Reading text files that people and other programs wrote: UTF-8, with or without a byte order mark, any line ends."""

from __future__ import annotations

import codecs
import os
import re
from pathlib import Path

from adanat_rl.config.errors import UserError

MAX_TEXT = 4096  # characters of a setting that is text, and of a path
_OTHER_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path, what: str, *, max_bytes: int | None = None) -> str:
    """The content of a text file, without a byte order mark and with line feeds as line ends.

    Args:
        what: what the file is to whoever named it, such as a setting or an option; every message begins with it.
        max_bytes: a larger file is refused, and no more than that is read.

    Raises:
        UserError: the file cannot be read, is too large, or is no UTF-8; the line and the place of the first bad byte
            are named.
    """
    try:
        with path.open("rb") as file:
            data = file.read() if max_bytes is None else file.read(max_bytes + 1)
    except ValueError as error:  # a null byte in the name
        raise UserError(f"{what}: {str(path)!r} is no file name: {error}") from None
    except OSError as error:
        raise UserError(f"{what}: {printable(path)}: {error.strerror or error}") from None
    if max_bytes is not None and len(data) > max_bytes:
        raise UserError(f"{what}: {printable(path)} is larger than {max_bytes:,} bytes, the most that is accepted")
    return decode_text(data, f"{what}: {printable(path)}")


def decode_text(data: bytes, where: str) -> str:
    """The same for bytes that were read elsewhere, such as in an archive.

    Args:
        where: names them; every message begins with it.

    Raises:
        UserError: they are no UTF-8.
    """
    if any(data.startswith(mark) for mark in _OTHER_MARKS):
        raise UserError(f"{where} is text in UTF-16 or UTF-32, expected UTF-8; save it as UTF-8")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is no UTF-8 text: {_place(data, error.start)}") from None
    if "\0" in text:
        raise UserError(f"{where} is no text: {_place(data, data.index(0))}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def text_problem(text: str) -> str | None:
    """Why a text can be no name or path, in words; None if it can."""
    if len(text) > MAX_TEXT:
        return f"it has {len(text):,} characters, {MAX_TEXT:,} are the most"
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", text):
        return "expected one line without control characters"
    if re.search(r"[\ud800-\udfff]", text):
        return "expected UTF-8"
    try:
        Path(text).expanduser()
    except RuntimeError:
        return "there is no such user's home"
    return None


def printable(path: Path | str) -> str:
    """A path as one line that any terminal and file can hold: what cannot be printed is escaped."""
    text = os.fspath(path)
    return text if text.isprintable() and _is_unicode(text) else repr(text)[1:-1]


def one_line(text: str) -> str:
    """A text as one line without control characters: what somebody typed or wrote reaches a terminal through this."""
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _is_unicode(text: str) -> bool:
    """False for names whose bytes are no UTF-8, which Python keeps as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _place(data: bytes, start: int) -> str:
    """Where a byte stands, as an editor counts."""
    before = data[:start]
    line = before.replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n") + 1
    return f"byte {data[start]:#04x} in line {line} (byte {start + 1} of the file)"
