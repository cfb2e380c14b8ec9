"""The contract of a source: encoded images by number, with their contexts, and nothing decoded.

A source knows its listing when it is built and reads one image at a time afterwards, from any thread.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from adanat_rl.data.strings import LazyStrings

ContextKind = Literal["class", "text"]
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif", ".jfif", ".jpe")


class ImageSource(ABC):
    """N images or captions.

    Args:
        name: kind of the source, for tables.
        labels: `[N]` int64: the class, or the row of the first caption.
        num_classes: of the labels; for text the number of captions.
        captions: all captions in the order of their rows; empty for a source without.
        class_names: what the classes are called, if that is known.
        listing_hash: SHA-256 of names, sizes and contexts, not of pixels.
        notes: what is odd about the source, for people.
        damaged: samples that are left out because the listing shows that they are damaged: where and what is wrong.
    """

    has_images = True

    def __init__(
        self,
        name: str,
        labels: np.ndarray,
        num_classes: int,
        listing_hash: str,
        *,
        captions: Sequence[str] = (),
        class_names: Sequence[str] = (),
        notes: Sequence[str] = (),
        damaged: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.labels = labels
        self.num_classes = num_classes
        self.listing_hash = listing_hash
        self.captions = captions
        self.class_names = tuple(class_names)
        self.notes = tuple(notes)
        self.damaged = damaged

    @property
    def context_kind(self) -> ContextKind:
        """What a label means."""
        return "text" if len(self.captions) else "class"

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    @abstractmethod
    def read(self, item: int) -> bytes:
        """The encoded image `item`.

        Raises:
            OSError, ValueError: it cannot be read.
        """

    def size_of(self, item: int) -> int:
        """Bytes of the encoded image `item`, -1 if it is missing; 0 where the listing hash covers sizes already."""
        return 0

    @abstractmethod
    def where(self, item: int) -> str:
        """How people find image `item`."""


class PackedStrings(LazyStrings):
    """Many strings in two arrays, which may be mapped from a file.

    Args:
        blob: all strings in UTF-8, uint8. ends: `[N]` int64, where each ends.
    """

    def __init__(self, blob: np.ndarray, ends: np.ndarray) -> None:
        self.blob = blob
        self.ends = ends

    @classmethod
    def pack(cls, strings: Iterable[str]) -> PackedStrings:
        """Packs strings; names of files keep bytes that are no UTF-8, other broken surrogates become question marks."""
        encoded = [_encoded(string) for string in strings]
        ends = np.cumsum([len(part) for part in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        """N."""
        return len(self.ends)

    def read(self, row: int) -> str:
        """String `row`."""
        start = int(self.ends[row - 1]) if row else 0
        return self.blob[start : int(self.ends[row])].tobytes().decode("utf-8", "surrogateescape")


def _encoded(string: str) -> bytes:
    try:
        return string.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return string.encode("utf-8", "replace")


def file_size(path: Path) -> int:
    """Bytes of a file, -1 if it is missing."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def listing_hash(*parts: object) -> str:
    """SHA-256 of strings, numbers and arrays, each with its length before it."""
    digest = hashlib.sha256()
    for part in parts:
        data = np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else str(part).encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
