"""Webdataset shards: `.tar` files whose members of one sample lie together and share a key.

Random access needs the place of every image: an index of all shards is built once and cached (`index_cache`). A sample
`KEY` has an image `KEY.jpg` (or another kind), and `KEY.cls` (a class number), `KEY.txt` (a caption) or `KEY.json`
(with "caption" and "label" or "cls"). Compressed shards cannot be read at random and are refused.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from adanat_rl.config.errors import UserError
from adanat_rl.data.index_cache import Arrays, cached_arrays
from adanat_rl.data.sources import IMAGE_SUFFIXES, ImageSource, PackedStrings, listing_hash

_NO_LABEL = -1


class TarShards(ImageSource):
    """Samples of all shards, in the order of the files and of their members.

    They are classes if every sample has a class number, captions if every sample has a caption, or one class if none
    has either. Samples without an image are left out, with a note.

    Args:
        shards: the files. class_names: of the numbers, if they are known. index_folder: see `cached_arrays`.

    Raises:
        UserError: a shard is damaged or compressed, or some samples have a context and others do not.
    """

    def __init__(
        self, shards: Sequence[Path], class_names: Sequence[str] = (), index_folder: str | None = None
    ) -> None:
        self.shards = list(shards)
        index = cached_arrays("tar", self.shards, lambda: _index(self.shards), index_folder)
        self._shard, self._offset, self._size = index["shard"], index["offset"], index["size"]
        self._keys = PackedStrings(index["keys"], index["key_ends"])
        if not len(self._shard):
            raise UserError(f"data.path: no sample of {self._named()} has an image")
        labels, has_caption = np.array(index["label"]), index["has_caption"]
        captions: Sequence[str] = ()
        if (labels != _NO_LABEL).all():
            num_classes = len(class_names) or int(labels.max()) + 1
            if labels.min() < 0 or labels.max() >= num_classes:
                raise UserError(
                    f"data.path: {self._named()}: labels {labels.min()} … {labels.max()}, {num_classes} classes"
                )
        elif has_caption.all() and (labels == _NO_LABEL).all():
            captions = PackedStrings(index["captions"], index["caption_ends"])
            labels, num_classes = np.arange(len(labels)), len(labels)
        elif not has_caption.any() and (labels == _NO_LABEL).all():
            labels, num_classes = np.zeros(len(labels), np.int64), 1
        else:
            raise UserError(
                f"data.path: {self._named()}: {int((labels != _NO_LABEL).sum())} samples of {len(labels)} have a class "
                f"and {int(has_caption.sum())} a caption; expected all or none"
            )
        skipped = int(index["skipped"])
        notes = [f"{skipped} samples of {self._named()} have no image and are left out"] if skipped else []
        super().__init__(
            "webdataset",
            labels,
            num_classes,
            index["hash"].tobytes().hex(),
            captions=captions,
            class_names=class_names if not len(captions) else (),
            notes=notes,
        )

    def read(self, item: int) -> bytes:
        """The encoded image `item`."""
        return read_part(self.shards[self._shard[item]], int(self._offset[item]), int(self._size[item]))

    def where(self, item: int) -> str:
        """Shard and key."""
        return f"{self.shards[self._shard[item]]}: {self._keys[item]}"

    def _named(self) -> str:
        return str(self.shards[0]) if len(self.shards) == 1 else f"{self.shards[0]} … {self.shards[-1].name}"


def read_part(path: Path, offset: int, size: int) -> bytes:
    """`size` bytes of a file.

    Raises:
        OSError: it cannot be read. ValueError: it ends before.
    """
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise ValueError(f"the file ends within the image ({len(data)} of {size} bytes)")
    return data


@dataclass
class _Sample:
    key: str
    offset: int = 0
    size: int = _NO_LABEL
    label: int = _NO_LABEL
    caption: str | None = None


def _index(shards: Sequence[Path]) -> Arrays:
    samples: list[_Sample] = []
    shard_of: list[int] = []
    skipped = 0
    for number, shard in enumerate(shards):
        for sample in _samples(shard):
            if sample.size < 0:
                skipped += 1
                continue
            samples.append(sample)
            shard_of.append(number)
    keys = PackedStrings.pack(sample.key for sample in samples)
    captions = PackedStrings.pack(sample.caption or "" for sample in samples)
    arrays: Arrays = {
        "shard": np.array(shard_of, np.int32),
        "offset": np.array([sample.offset for sample in samples], np.int64),
        "size": np.array([sample.size for sample in samples], np.int64),
        "label": np.array([sample.label for sample in samples], np.int64),
        "has_caption": np.array([sample.caption is not None for sample in samples], np.bool_),
        "keys": keys.blob,
        "key_ends": keys.ends,
        "captions": captions.blob,
        "caption_ends": captions.ends,
        "skipped": np.array(skipped),
    }
    names = [(shard.name, shard.stat().st_size) for shard in shards]
    digest = listing_hash("tar", names, *(arrays[name] for name in sorted(arrays)))
    return {**arrays, "hash": np.frombuffer(bytes.fromhex(digest), np.uint8)}


def _samples(shard: Path) -> Iterator[_Sample]:
    """Samples of one shard, members that follow each other with the same key together."""
    try:
        with tarfile.open(shard, "r:") as archive:
            members = (member for member in archive if member.isfile() and not Path(member.name).name.startswith("."))
            for key, group in groupby(members, key=lambda member: _split(member.name)[0]):
                yield _sample(key, group, archive, shard)
            last = max((m.offset_data + m.size for m in archive.getmembers()), default=0)
            if shard.stat().st_size < last:
                raise UserError(f"data.path: {shard} is cut off: {shard.stat().st_size} bytes of at least {last}")
    except tarfile.TarError as error:
        raise UserError(
            f"data.path: {shard} is damaged or no plain .tar (compressed ones are refused): {error}"
        ) from None
    except OSError as error:
        raise UserError(f"data.path: {shard}: {error.strerror or error}") from None


def _sample(key: str, members: Iterator[tarfile.TarInfo], archive: tarfile.TarFile, shard: Path) -> _Sample:
    sample = _Sample(key)
    for member in members:
        suffix = _split(member.name)[1].lower()
        if f".{suffix}" in IMAGE_SUFFIXES:
            sample.offset, sample.size = member.offset_data, member.size
        elif suffix in _READERS:
            stream = archive.extractfile(member)
            try:
                _READERS[suffix](sample, (stream.read() if stream else b"").decode())
            except ValueError as error:
                raise UserError(f"data.path: {shard}: {member.name}: {error}") from None
    return sample


def _split(name: str) -> tuple[str, str]:
    """Key and suffix of a member: the key goes to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return folder + slash + stem, suffix


def _read_class(sample: _Sample, text: str) -> None:
    sample.label = int(text)
    if sample.label < 0:
        raise ValueError(f"{sample.label} is no class number")


def _read_caption(sample: _Sample, text: str) -> None:
    sample.caption = text.strip()


def _read_json(sample: _Sample, text: str) -> None:
    content: Any = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("expected a JSON object")
    if isinstance(content.get("caption"), str) and sample.caption is None:
        sample.caption = content["caption"].strip()
    for name in ("label", "cls"):
        value = content.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and sample.label == _NO_LABEL:
            _read_class(sample, str(value))


_READERS: dict[str, Callable[[_Sample, str], None]] = {"cls": _read_class, "txt": _read_caption, "json": _read_json}
