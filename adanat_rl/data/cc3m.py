"""CC3M as `.tsv`: a training file with images inside, or a validation file with captions and addresses.

Training: name, index, caption, base64 of a JPEG; no header. Validation: a header `caption`, `url`; captions only. A
training file is hundreds of gigabytes, so the place of every line is looked up once and cached (`index_cache`).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from adanat_rl.config.errors import UserError
from adanat_rl.data.index_cache import Arrays, cached_arrays
from adanat_rl.data.sources import ImageSource, PackedStrings, listing_hash
from adanat_rl.data.tar_shards import read_part

_HEADER = [b"caption", b"url"]
_NUM_COLUMNS = 4


class CC3MTable(ImageSource):
    """Image and caption of every line of some training files; blank lines are left out.

    A line without four columns stays in the numbering and fails when it is read, so that it counts as damaged.

    Raises:
        UserError: a file holds no lines of this kind.
    """

    def __init__(self, files: Sequence[Path], index_folder: str | None = None) -> None:
        self.files = list(files)
        index = cached_arrays("cc3m", self.files, lambda: _index(self.files), index_folder)
        self._file, self._line = index["file"], index["line"]
        self._offset, self._size = index["offset"], index["size"]
        captions = PackedStrings(index["captions"], index["caption_ends"])
        count = len(self._file)
        broken = int((self._size < 0).sum())
        if not count or broken == count:
            raise UserError(
                f"data.path: {self.files[0]} is no CC3M table: expected name, index, caption and base64 image, "
                "separated by tabs, without a header"
            )
        notes = [f"{broken} lines have not {_NUM_COLUMNS} columns, first: {self._first_broken()}"] if broken else []
        digest = index["hash"].tobytes().hex()
        super().__init__("cc3m_tsv", np.arange(count), count, digest, captions=captions, notes=notes)

    def read(self, item: int) -> bytes:
        """The encoded image `item`."""
        size = int(self._size[item])
        if size < 0:
            raise ValueError(f"the line has not {_NUM_COLUMNS} columns")
        return base64.b64decode(read_part(self.files[self._file[item]], int(self._offset[item]), size), validate=True)

    def where(self, item: int) -> str:
        """File and line, from 1."""
        return f"{self.files[self._file[item]]} line {self._line[item]}"

    def _first_broken(self) -> str:
        return self.where(int(np.argmax(self._size < 0)))


class CaptionList(ImageSource):
    """Captions without images: prompts to draw from."""

    has_images = False

    def __init__(self, captions: Sequence[str], name: str = "captions") -> None:
        packed = PackedStrings.pack(captions)
        digest = listing_hash("captions", packed.blob, packed.ends)
        super().__init__(name, np.arange(len(packed)), len(packed), digest, captions=packed)

    def read(self, item: int) -> bytes:
        """There is nothing to read."""
        raise ValueError("captions only: there are no images")

    def where(self, item: int) -> str:
        """The row."""
        return f"caption {item}"


def is_validation_table(file: Path) -> bool:
    """Whether a `.tsv` begins with the header of captions and addresses."""
    try:
        with file.open("rb") as stream:
            return stream.readline(1 << 16).rstrip(b"\r\n").split(b"\t")[:2] == _HEADER
    except OSError as error:
        raise UserError(f"data.path: {file}: {error.strerror or error}") from None


def read_captions(path: Path, key: str = "data.path") -> list[str]:
    """Captions of a text file, one a line without blank ones, or of a validation `.tsv`.

    Raises:
        UserError: it cannot be read, or holds none.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"{key}: {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{key}: {path} is no text in UTF-8") from None
    if lines[0].rstrip("\r").split("\t")[:2] == [name.decode() for name in _HEADER]:
        lines = [line.split("\t")[0] for line in lines[1:]]
    captions = [line.strip() for line in lines if line.strip()]
    if not captions:
        raise UserError(f"{key}: {path} holds no captions; expected one a line")
    return captions


def _index(files: Sequence[Path]) -> Arrays:
    rows: list[tuple[int, int, int, int]] = []  # file, line, offset, size
    captions: list[str] = []
    for number, file in enumerate(files):
        offset = 0
        with file.open("rb") as stream:
            for line_number, line in enumerate(stream, 1):
                columns = line.rstrip(b"\r\n").split(b"\t")
                if len(columns) == _NUM_COLUMNS:
                    start = offset + sum(len(column) + 1 for column in columns[:3])
                    rows.append((number, line_number, start, len(columns[3])))
                    captions.append(columns[2].decode("utf-8", "replace").strip())
                elif line.strip():
                    rows.append((number, line_number, offset, -1))
                    captions.append("")
                offset += len(line)
    table = np.array(rows, np.int64).reshape(-1, 4)
    packed = PackedStrings.pack(captions)
    names = [(file.name, file.stat().st_size) for file in files]
    digest = listing_hash("cc3m", names, table, packed.blob, packed.ends)
    return {
        "file": table[:, 0].astype(np.int32),
        "line": table[:, 1].copy(),
        "offset": table[:, 2].copy(),
        "size": table[:, 3].copy(),
        "captions": packed.blob,
        "caption_ends": packed.ends,
        "hash": np.frombuffer(bytes.fromhex(digest), np.uint8),
    }
