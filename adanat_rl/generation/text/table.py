"""The caption table: captions with their embeddings, in memory or memory-mapped, addressed by row number.

On disk a table is a folder: `captions.jsonl` (a JSON string a line), `hidden.npy` `[N+1, S, C]` and `pooled.npy`
`[N+1, P]` (row N: the empty prompt, which is the null context), `chunks.jsonl` (hashes of the rows, chunk by chunk) and
`manifest.json`. Only a finished table has a manifest; `table_writer` makes it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adanat_rl.config.errors import UserError, reason_of
from adanat_rl.config.files import file_sha256, read_json_lines
from adanat_rl.config.text_files import read_text
from adanat_rl.data.contexts import parse_json
from adanat_rl.data.strings import LazyStrings

TABLE_FORMAT = "adanat-rl caption table 1"
MANIFEST, CAPTIONS, CHUNKS = "manifest.json", "captions.jsonl", "chunks.jsonl"
HIDDEN, POOLED = "hidden.npy", "pooled.npy"
HIDDEN_DTYPE = np.dtype(np.float16)
POOLED_DTYPE = np.dtype(np.float32)
_HEADER_BYTES = 128  # of an .npy file
_DTYPES = ("float16", "float32", "float64")
_MAX_NUMBER = 1 << 40
_MAX_MANIFEST = 1 << 20  # bytes


@dataclass(frozen=True)
class TableInfo:
    """What decides the content of a table; two tables with the same values are interchangeable.

    Args:
        encoder, encoder_fingerprint: name of the text encoder, and the hash that tells encoders apart.
        captions_sha256: hex, of the file of captions.
        num_captions: N. length, width, pooled_width: S, C, P.
    """

    encoder: str
    encoder_fingerprint: str
    captions_sha256: str
    num_captions: int
    length: int
    width: int
    pooled_width: int
    hidden_dtype: str = HIDDEN_DTYPE.name
    pooled_dtype: str = POOLED_DTYPE.name

    @property
    def hidden_shape(self) -> tuple[int, int, int]:
        """`[N+1, S, C]`."""
        return self.num_captions + 1, self.length, self.width

    @property
    def pooled_shape(self) -> tuple[int, int]:
        """`[N+1, P]`."""
        return self.num_captions + 1, self.pooled_width

    def to_json(self) -> dict[str, Any]:
        """For manifests."""
        return asdict(self)


class CaptionTable:
    """N captions and the null context, addressed by `[B]` int64 rows.

    Args:
        captions: N strings.
        hidden: `[N+1, S, C]`, pooled: `[N+1, P]`, of any float type; memory-mapped arrays stay on disk.
        folder: where the table is; a copy in another process opens it there instead of carrying embeddings along.
    """

    def __init__(
        self, captions: Sequence[str], hidden: np.ndarray, pooled: np.ndarray, folder: Path | None = None
    ) -> None:
        if not len(captions) + 1 == len(hidden) == len(pooled):
            raise ValueError(f"{len(captions)} captions need one row more, got {len(hidden)} and {len(pooled)}")
        self.captions = captions
        self._hidden = hidden
        self._pooled = pooled
        self._folder = folder

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def num_contexts(self) -> int:
        """N."""
        return len(self.captions)

    @property
    def null_index(self) -> int:
        """The row of the empty prompt, N."""
        return len(self.captions)

    @property
    def context_shape(self) -> tuple[int, int]:
        """S, C."""
        return self._hidden.shape[1], self._hidden.shape[2]

    @property
    def pooled_width(self) -> int:
        """P."""
        return int(self._pooled.shape[1])

    def hidden(self, index: Tensor) -> Tensor:
        """Last hidden states `[B, S, C]` float32 of rows `[B]`, on the device of `index`."""
        return self._rows(self._hidden, index)

    def pooled(self, index: Tensor) -> Tensor:
        """Projected embeddings `[B, P]` float32 of rows `[B]`, on the device of `index`; not normalised."""
        return self._rows(self._pooled, index)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        if self._folder is not None:
            return open_caption_table, (self._folder,)
        return CaptionTable, (self.captions, self._hidden, self._pooled)

    def _rows(self, array: np.ndarray, index: Tensor) -> Tensor:
        rows = index.cpu().numpy()
        outside = rows[(rows < 0) | (rows > self.null_index)]
        if outside.size:  # a negative row would silently count from the end
            raise IndexError(f"row {int(outside[0])} of a caption table of {self.null_index} captions and the null row")
        return torch.from_numpy(np.asarray(array[rows], np.float32)).to(index.device)


class CaptionLines(LazyStrings):
    """The captions of a JSON-lines file, each read from disk when it is asked for."""

    noun = "caption"

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            self._bytes: mmap.mmap | bytes = (
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
            )
        ends = np.flatnonzero(np.frombuffer(self._bytes, np.uint8) == ord("\n"))
        self._starts = np.concatenate([[0], ends + 1]).astype(np.int64)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def read(self, row: int) -> str:
        """Caption `row`."""
        return str(json.loads(self._bytes[self._starts[row] : self._starts[row + 1]]))

    def __reduce__(self) -> tuple[type[CaptionLines], tuple[Path]]:
        return CaptionLines, (self._path,)


def table_bytes(num_captions: int, length: int = 77, width: int = 1280, pooled_width: int = 1280) -> int:
    """Bytes that a table takes on disk, apart from the captions themselves; the defaults are CLIP ViT-bigG's."""
    row = length * width * HIDDEN_DTYPE.itemsize + pooled_width * POOLED_DTYPE.itemsize
    return (num_captions + 1) * row + 2 * _HEADER_BYTES


def open_caption_table(folder: Path, *, verify_rows: bool = False) -> CaptionTable:
    """A finished table, memory-mapped.

    Args:
        verify_rows: also hash every row; without it, sizes and everything but the embeddings are checked.

    Raises:
        UserError: missing, unfinished or damaged, naming the file.
    """
    folder = Path(folder).absolute()  # for copies in processes that work elsewhere
    info, chunks_sha256 = _read_manifest(folder)
    for name, wanted in ((CAPTIONS, info.captions_sha256), (CHUNKS, chunks_sha256)):
        if not (folder / name).is_file() or file_sha256(folder / name) != wanted:
            raise UserError(
                f"{folder / name} is missing or damaged: its hash is not the manifest's; make the table anew"
            )
    hidden = _open_array(folder / HIDDEN, info.hidden_shape, np.dtype(info.hidden_dtype))
    pooled = _open_array(folder / POOLED, info.pooled_shape, np.dtype(info.pooled_dtype))
    if verify_rows:
        for chunk in read_json_lines(folder / CHUNKS):
            for name, array in ((HIDDEN, hidden), (POOLED, pooled)):
                if array_sha256(array[chunk["start"] : chunk["stop"]]) != chunk[name]:
                    rows = f"rows {chunk['start']} to {chunk['stop'] - 1}"
                    raise UserError(f"{folder / name} is damaged in {rows}; make the table anew")
    captions = CaptionLines(folder / CAPTIONS)
    if len(captions) != info.num_captions:
        raise UserError(f"{folder / CAPTIONS} has {len(captions)} captions, the manifest says {info.num_captions}")
    return CaptionTable(captions, hidden, pooled, folder)


def table_info(folder: Path) -> TableInfo:
    """The manifest of a finished table.

    Raises:
        UserError: no such table, unfinished or damaged.
    """
    return _read_manifest(folder)[0]


def checked_info(table: Mapping[str, Any]) -> TableInfo:
    """What a manifest says of a table.

    Raises:
        TypeError, ValueError: it says something else.
    """
    info = TableInfo(**table)
    for name in ("num_captions", "length", "width", "pooled_width"):
        value = getattr(info, name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MAX_NUMBER:
            raise ValueError(f"{name} is {value!r}")
    for name, dtype in (("hidden_dtype", info.hidden_dtype), ("pooled_dtype", info.pooled_dtype)):
        if dtype not in _DTYPES:
            raise ValueError(f"{name} is {dtype!r}, expected one of {', '.join(_DTYPES)}")
    return info


def array_sha256(array: np.ndarray) -> str:
    """SHA-256 in hex of an array's bytes, C order."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _read_manifest(folder: Path) -> tuple[TableInfo, str]:
    path = folder / MANIFEST
    if not path.is_file():
        unfinished = (folder / CHUNKS).exists()
        state = "is not finished; the command that makes it goes on where it stopped" if unfinished else "is none"
        raise UserError(f"caption table {folder} {state} (no {MANIFEST})")
    try:
        manifest = parse_json(read_text(path, "caption table", max_bytes=_MAX_MANIFEST))
        if manifest["format"] != TABLE_FORMAT:
            raise UserError(f"{path} has format {manifest['format']!r}, expected {TABLE_FORMAT!r}")
        return checked_info(manifest["table"]), str(manifest["chunks_sha256"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged: {type(error).__name__}: {reason_of(error)}") from None


def _open_array(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is missing or damaged: {error}") from None
    if array.shape != shape or array.dtype != dtype:
        found = f"{list(array.shape)} {array.dtype}"
        raise UserError(f"{path} holds {found}, the manifest says {list(shape)} {dtype}; make the table anew")
    return array
