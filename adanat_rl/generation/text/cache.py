"""Embeddings of prompts kept on disk, one small file per encoder and caption, so that a prompt is encoded once.

Files lie under `ENCODER_HASH/CAPTION_HASH.safetensors`. They hold what a caption table would hold, so a prompt gives
the same context from the cache, from a table and at its first use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from adanat_rl.config.files import write_atomically
from adanat_rl.generation.text.encoder import TextEncoder
from adanat_rl.generation.text.table import HIDDEN_DTYPE, POOLED_DTYPE, CaptionTable
from adanat_rl.generation.text.table_writer import to_stored

_Row = tuple[np.ndarray, np.ndarray]


class EmbeddingCache:
    """Encodes only what is not known yet, in this process or on the disk.

    Args:
        folder: of the files; None keeps embeddings in memory alone.
        encoder: is called for unknown captions only, so one that loads lazily may never load.
    """

    def __init__(self, folder: Path | None, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._folder = None if folder is None else folder / encoder.fingerprint
        self._known: dict[str, _Row] = {}

    def table(self, captions: Sequence[str]) -> CaptionTable:
        """A caption table in memory; row i belongs to `captions[i]`, the last one to the empty prompt."""
        rows = self._rows([*captions, ""])
        return CaptionTable(list(captions), np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows]))

    def _rows(self, captions: Sequence[str]) -> list[_Row]:
        for caption in captions:
            if caption not in self._known and (row := self._read(caption)) is not None:
                self._known[caption] = row
        unknown = list(dict.fromkeys(caption for caption in captions if caption not in self._known))
        if unknown:
            hidden, pooled = to_stored(self._encoder(unknown))
            for number, caption in enumerate(unknown):
                self._known[caption] = hidden[number], pooled[number]
                self._write(caption, self._known[caption])
        return [self._known[caption] for caption in captions]

    def _path(self, caption: str) -> Path | None:
        name = hashlib.sha256(caption.encode()).hexdigest()
        return None if self._folder is None else self._folder / f"{name}.safetensors"

    def _read(self, caption: str) -> _Row | None:
        """What the disk has; a damaged file counts as none and is written anew."""
        path = self._path(caption)
        if path is None:
            return None
        try:
            tensors = load(path.read_bytes())
            hidden, pooled = tensors["hidden"], tensors["pooled"]
        except (SafetensorError, KeyError, OSError):
            return None
        shapes = (self._encoder.length, self._encoder.width), (self._encoder.pooled_width,)
        dtypes = HIDDEN_DTYPE, POOLED_DTYPE
        fits = (hidden.shape, pooled.shape) == shapes and (hidden.dtype, pooled.dtype) == dtypes
        return (hidden, pooled) if fits else None

    def _write(self, caption: str, row: _Row) -> None:
        path = self._path(caption)
        if path is not None:
            content = save({"hidden": np.ascontiguousarray(row[0]), "pooled": row[1].copy()})
            with suppress(OSError):  # a cache that cannot be written is done without
                write_atomically(path, content)
