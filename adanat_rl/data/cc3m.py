"""CC3M as `.tsv` with images inside: name, index, caption, base64 of a JPEG; no header.

A file is hundreds of gigabytes, so the place of every line is looked up once and cached (`index_cache`). Tables of
captions and addresses, as CC3M is published, are read by `caption_files`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from adanat_rl.config.errors import UserError
from adanat_rl.config.text_files import printable
from adanat_rl.data.caption_files import CaptionList, is_validation_table, read_captions
from adanat_rl.data.contexts import parse_caption, parse_text
from adanat_rl.data.index_cache import Arrays, cached_arrays
from adanat_rl.data.sources import ImageSource, PackedStrings, listing_hash
from adanat_rl.data.tar_shards import read_part

__all__ = ["CC3MTable", "CaptionList", "decode_base64", "is_validation_table", "read_captions"]

_NUM_COLUMNS = 4
_FOLDED = (64, 76)  # characters of a line where base64 is folded, as PEM and MIME do
_BASE64 = re.compile(rb"[A-Za-z0-9+/_=-]+")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


class CC3MTable(ImageSource):
    """Image and caption of every line of some files; blank lines are no rows.

    A line without four columns, without an image or without a caption is left out as damaged.

    Raises:
        UserError: a file holds no lines of this kind.
    """

    def __init__(self, files: Sequence[Path], index_folder: str | None = None) -> None:
        self.files = list(files)
        index = cached_arrays("cc3m", self.files, lambda: _index(self.files), index_folder)
        self._file, self._line = index["file"], index["line"]
        self._offset, self._size = index["offset"], index["size"]
        captions = PackedStrings(index["captions"], index["caption_ends"])
        places = zip(index["damaged_file"].tolist(), index["damaged_line"].tolist(), strict=True)
        reasons = PackedStrings(index["damaged"], index["damaged_ends"])
        damaged = [f"{self._place(*place)}: {reason}" for place, reason in zip(places, reasons, strict=True)]
        count = len(self._file)
        if not count:
            first = f"; {damaged[0]}" if damaged else ""
            raise UserError(
                f"data.path: {printable(self.files[0])} is no CC3M table: expected name, index, caption and base64 "
                f"image, separated by tabs, without a header{first}"
            )
        digest = index["hash"].tobytes().hex()
        super().__init__("cc3m_tsv", np.arange(count), count, digest, captions=captions, damaged=damaged)

    def read(self, item: int) -> bytes:
        """The encoded image `item`."""
        return decode_base64(read_part(self.files[self._file[item]], int(self._offset[item]), int(self._size[item])))

    def where(self, item: int) -> str:
        """File and line, from 1."""
        return self._place(int(self._file[item]), int(self._line[item]))

    def _place(self, file: int, line: int) -> str:
        return f"{printable(self.files[file])} line {line}"


def decode_base64(data: bytes) -> bytes:
    """Bytes of base64 in the usual or the URL-safe alphabet, with white space in it or not, padded or not.

    Raises:
        ValueError: it is none.
    """
    compact = b"".join(data.split()).translate(_URL_SAFE).rstrip(b"=")
    try:
        return base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"no base64: {error}") from None


@dataclass
class _Rows:
    """Rows of all files so far."""

    places: list[list[int]] = field(default_factory=list)  # file, line, offset, size
    captions: list[str] = field(default_factory=list)
    damage: list[tuple[int, int, str]] = field(default_factory=list)  # file, line, reason


def _index(files: Sequence[Path]) -> Arrays:
    rows = _Rows()
    for number, file in enumerate(files):
        try:
            _read_lines(number, file, rows)
        except OSError as error:
            raise UserError(f"data.path: {printable(file)}: {error.strerror or error}") from None
    table = np.array(rows.places, np.int64).reshape(-1, 4)
    captions = PackedStrings.pack(rows.captions)
    reasons = PackedStrings.pack(reason for _, _, reason in rows.damage)
    damaged = np.array([(file, line) for file, line, _ in rows.damage], np.int64).reshape(-1, 2)
    names = [(file.name, file.stat().st_size) for file in files]
    more = [damaged, reasons.blob] if len(damaged) else []
    digest = listing_hash("cc3m", names, table, captions.blob, captions.ends, *more)
    return {
        "file": table[:, 0].astype(np.int32),
        "line": table[:, 1].copy(),
        "offset": table[:, 2].copy(),
        "size": table[:, 3].copy(),
        "captions": captions.blob,
        "caption_ends": captions.ends,
        "damaged_file": damaged[:, 0].copy(),
        "damaged_line": damaged[:, 1].copy(),
        "damaged": reasons.blob,
        "damaged_ends": reasons.ends,
        "hash": np.frombuffer(bytes.fromhex(digest), np.uint8),
    }


def _read_lines(number: int, file: Path, rows: _Rows) -> None:
    offset, folded = 0, 0  # characters of the line before, if its base64 may go on in the next one
    with file.open("rb") as stream:
        for line_number, line in enumerate(stream, 1):
            content = line.rstrip(b"\r\n")
            if folded and 0 < len(content) <= folded and _BASE64.fullmatch(content):
                rows.places[-1][3] = offset + len(content) - rows.places[-1][2]
                folded = folded if len(content) == folded else 0
            elif content.strip():
                folded = _read_row(number, line_number, offset, content, rows)
            offset += len(line)


def _read_row(number: int, line_number: int, offset: int, content: bytes, rows: _Rows) -> int:
    """Takes a line as a row; returns the length of its base64 if that may go on in the next line, else 0."""
    columns = content.split(b"\t")
    try:
        if len(columns) != _NUM_COLUMNS:
            raise ValueError(f"{len(columns)} columns, expected {_NUM_COLUMNS}")
        caption = parse_caption(parse_text(columns[2]))
        if not columns[3].strip():
            raise ValueError("no image")
    except ValueError as error:
        rows.damage.append((number, line_number, str(error)))
        return 0
    start = offset + sum(len(column) + 1 for column in columns[:3])
    rows.places.append([number, line_number, start, len(columns[3])])
    rows.captions.append(caption)
    return len(columns[3]) if len(columns[3]) in _FOLDED else 0
