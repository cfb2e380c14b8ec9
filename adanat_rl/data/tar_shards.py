"""Webdataset shards: `.tar` files whose members of one sample share a key.

Random access needs the place of every image: an index of all shards is built once and cached (`index_cache`). A sample
`KEY` has an image `KEY.jpg` (or another kind), and `KEY.cls` or `KEY.cls.txt` (a class), `KEY.txt` (a caption) or
`KEY.json` (with "caption" and "label" or "cls"). Compressed shards cannot be read at random and are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from adanat_rl.config.errors import UserError, nearest
from adanat_rl.config.text_files import printable
from adanat_rl.data.class_list import ClassList
from adanat_rl.data.index_cache import cached_arrays
from adanat_rl.data.sources import ImageSource, PackedStrings, listing_hash
from adanat_rl.data.tar_index import CLASS, FIRST_NAME, TEXT, index_shards


class TarShards(ImageSource):
    """Samples of all shards, in the order of the files and of their members.

    They are classes if most samples have one, captions if most have a caption, or one class if there are only images.
    A class is a number, or a name: of the class list, or else one of all names, sorted. Samples whose image, class or
    caption is damaged or missing are left out, see `damage`.

    Args:
        shards: the files. classes: what the numbers mean, if that is known. index_folder: see `cached_arrays`.

    Raises:
        UserError: a shard is damaged as a whole or compressed, or some samples have a class and others a caption.
    """

    def __init__(
        self, shards: Sequence[Path], classes: ClassList | None = None, index_folder: str | None = None
    ) -> None:
        self.shards = list(shards)
        index = cached_arrays("tar", self.shards, lambda: index_shards(self.shards), index_folder)
        self._keys = PackedStrings(index["keys"], index["key_ends"])
        damaged_texts = PackedStrings(index["damaged"], index["damaged_ends"])
        damaged = [
            f"{printable(self.shards[shard])}: {text}"
            for shard, text in zip(index["damaged_shard"].tolist(), damaged_texts, strict=True)
        ]
        kind = int(index["kind"])
        captions: Sequence[str] = ()
        names: Sequence[str] = ()
        self._rows = np.arange(len(index["shard"]))
        self._shard, self._offset, self._size = index["shard"], index["offset"], index["size"]
        digest = index["hash"].tobytes().hex()
        if kind == CLASS:
            labels, names, problems = _numbered(index, classes, self._named())
            damaged += [f"{self.where(row)}: {problem}" for row, problem in problems.items()]
            self._rows = np.setdiff1d(self._rows, np.array(sorted(problems), np.int64))
            labels = labels[self._rows]
            if not len(labels):
                raise UserError(f"data.path: no sample of {self._named()} is whole: {damaged[-1]}")
            num_classes = len(names) or int(labels.max()) + 1
            if problems:
                digest = listing_hash("part", digest, self._rows)
        elif kind == TEXT:
            captions = PackedStrings(index["captions"], index["caption_ends"])
            labels, num_classes = np.arange(len(captions)), len(captions)
        else:
            labels, num_classes = np.zeros(len(self._rows), np.int64), 1
        super().__init__(
            "webdataset",
            labels,
            num_classes,
            digest,
            captions=captions,
            class_names=names,
            notes=list(PackedStrings(index["notes"], index["notes_ends"])),
            damaged=damaged,
        )

    def read(self, item: int) -> bytes:
        """The encoded image `item`."""
        row = self._rows[item]
        return read_part(self.shards[self._shard[row]], int(self._offset[row]), int(self._size[row]))

    def where(self, item: int) -> str:
        """Shard and key."""
        row = int(self._rows[item])
        return f"{printable(self.shards[self._shard[row]])}: {printable(self._keys[row])}"

    def _named(self) -> str:
        first = printable(self.shards[0])
        return first if len(self.shards) == 1 else f"{first} … {printable(self.shards[-1].name)}"


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


def _numbered(
    index: dict[str, np.ndarray], classes: ClassList | None, named: str
) -> tuple[np.ndarray, Sequence[str], dict[int, str]]:
    """Class numbers by row, what the classes are called, and rows whose class is none, with the reason.

    Without a class list the names that occur are the classes, sorted, where most samples have a name.
    """
    labels = np.array(index["label"])
    names = list(PackedStrings(index["names"], index["names_ends"]))
    named_rows = labels <= FIRST_NAME
    problems: dict[int, str] = {}
    if classes is not None:
        known, shown = classes.by_name(), classes.shown
    elif 2 * int(named_rows.sum()) > len(labels):
        known, shown = {name: number for number, name in enumerate(names)}, names
        for row in np.flatnonzero(~named_rows).tolist():
            problems[row] = f"class {labels[row]} is a number, most classes of {named} are names"
    else:
        known, shown = {}, []
    for row in np.flatnonzero(named_rows).tolist():
        name = names[FIRST_NAME - int(labels[row])]
        if name in known:
            labels[row] = known[name]
        elif classes is None:
            problems[row] = f"{printable(name)} is no class number; data.class_names says which number a name has"
        else:
            problems[row] = f"data.class_names does not list the class {printable(name)}{nearest(name, known)}"
    if classes is not None:
        for row in np.flatnonzero(~named_rows & (labels >= len(shown))).tolist():
            problems[row] = f"class {labels[row]}, data.class_names lists {len(shown)} (0 … {len(shown) - 1})"
    return labels, shown, problems
