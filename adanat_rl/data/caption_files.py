"""Captions without images: text files with one a line, and tables of captions and addresses as CC3M is published."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from adanat_rl.config.errors import UserError
from adanat_rl.config.text_files import decode_text, printable, read_text
from adanat_rl.data.sources import ImageSource, PackedStrings, listing_hash

_CAPTION_HEADS, _ADDRESS_HEADS = {"caption", "text"}, {"url", "image_url"}
_ADDRESS = re.compile(r"(?:https?|ftp|s3|gs)://\S+", re.IGNORECASE)
_LOOKED_AT = 1 << 16  # bytes at the beginning of a table that show its kind


class CaptionList(ImageSource):
    """Captions without images: prompts to draw from."""

    has_images = False

    def __init__(
        self,
        captions: Sequence[str],
        name: str = "captions",
        notes: Sequence[str] = (),
        damaged: Sequence[str] = (),
    ) -> None:
        packed = PackedStrings.pack(captions)
        digest = listing_hash("captions", packed.blob, packed.ends)
        super().__init__(
            name, np.arange(len(packed)), len(packed), digest, captions=packed, notes=notes, damaged=damaged
        )

    def read(self, item: int) -> bytes:
        """There is nothing to read."""
        raise ValueError("captions only: there are no images")

    def where(self, item: int) -> str:
        """The row."""
        return f"caption {item}"


def open_captions(path: Path, name: str = "captions") -> CaptionList:
    """The captions of a file; lines that are no text are left out as damaged.

    Raises:
        UserError: it cannot be read, or holds none.
    """
    lines, damaged = _lines(path, "data.path")
    captions, notes = _captions(lines, path, "data.path")
    return CaptionList(captions, name, notes, damaged)


def read_captions(path: Path, key: str = "data.path") -> list[str]:
    """Captions of a text file, one a line without blank ones, or of a table of captions and addresses.

    Raises:
        UserError: it cannot be read, is no UTF-8, or holds none.
    """
    return _captions(read_text(path, key).split("\n"), path, key)[0]


def is_validation_table(file: Path) -> bool:
    """Whether a `.tsv` holds captions and addresses in two columns, with the header that says so or without.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with file.open("rb") as stream:
            head = stream.read(_LOOKED_AT).removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise UserError(f"data.path: {printable(file)}: {error.strerror or error}") from None
    lines = [line.decode("utf-8", "replace").rstrip("\r") for line in head.split(b"\n")]
    whole = lines[:-1] if len(head) == _LOOKED_AT and len(lines) > 1 else lines
    return _caption_column([line for line in whole if line.strip()]) is not None


def _lines(path: Path, key: str) -> tuple[list[str], list[str]]:
    """The lines of a file; of one that is no text throughout, those that are, and where the others are."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{key}: {printable(path)}: {error.strerror or error}") from None
    try:
        return decode_text(data, f"{key}: {printable(path)}").split("\n"), []
    except UserError:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise
    found: list[str] = []
    damaged: list[str] = []
    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).splitlines(), 1):
        try:
            found.append(decode_text(line, f"{printable(path)} line {number}"))
        except UserError as error:
            damaged.append(str(error))
    return found, damaged


def _captions(lines: Sequence[str], path: Path, key: str) -> tuple[list[str], list[str]]:
    """Captions of lines, and notes.

    Raises:
        UserError: there are none, or they hold addresses.
    """
    filled = [line for line in lines if line.strip()]
    column = _caption_column(filled)
    notes: list[str] = []
    if column is not None:
        filled = filled[_is_header(filled[0]) :]
        columns = [line.split("\t") for line in filled]
        filled = [row[column] if len(row) == 2 else row[0] for row in columns]
        notes = [f"{printable(path)} is a table of captions and addresses; the addresses are left out"]
    captions = [line.strip() for line in filled if line.strip()]
    if not captions:
        raise UserError(f"{key}: {printable(path)} holds no captions; expected one a line")
    with_address = [caption for caption in captions if _ADDRESS.search(caption)]
    if 2 * len(with_address) > len(captions):
        raise UserError(
            f"{key}: {printable(path)}: {len(with_address)} of {len(captions)} lines hold an address, such as "
            f"{with_address[0][:80]!r}; expected captions, one a line, or a table of captions and addresses with tabs"
        )
    return captions, notes


def _caption_column(lines: Sequence[str]) -> int | None:
    """Which of two columns is the caption, where a header or most lines say that the other one is an address."""
    if not lines:
        return None
    head = [part.strip().lower() for part in lines[0].split("\t")[:2]]
    if len(head) == 2 and _is_header(lines[0]):
        return 0 if head[0] in _CAPTION_HEADS else 1
    rows = [line.split("\t") for line in lines]
    for caption, address in ((0, 1), (1, 0)):
        fitting = sum(len(row) == 2 and _ADDRESS.fullmatch(row[address].strip()) is not None for row in rows)
        if 2 * fitting > len(rows):
            return caption
    return None


def _is_header(line: str) -> bool:
    head = [part.strip().lower() for part in line.split("\t")[:2]]
    return len(head) == 2 and any(
        head[caption] in _CAPTION_HEADS and head[1 - caption] in _ADDRESS_HEADS for caption in (0, 1)
    )
