"""MS-COCO: images in a folder, several captions of each in one JSON file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adanat_rl.config.errors import UserError
from adanat_rl.config.text_files import printable, read_text
from adanat_rl.data.contexts import parse_caption, parse_json, shortened
from adanat_rl.data.sources import ImageSource, PackedStrings, file_size, listing_hash

_Id = tuple[int, str]  # number and text of an id, one of them empty; sorts numbers before texts


class CocoCaptions(ImageSource):
    """Images that have captions, by image id; captions in the order of image id and annotation id.

    `labels[i]` is the row of the first caption of image i; `first_rows[i]` … `first_rows[i + 1] - 1` are all of them.
    Captions that are damaged or belong to no image, and images without a caption or without a file, are left out.

    Args:
        folder: of the images, such as `val2014`, or one above several. annotations: such as `captions_val2014.json`.

    Raises:
        UserError: the file is missing, damaged or no captions file, or no image of it is in the folder.
    """

    def __init__(self, folder: Path, annotations: Path) -> None:
        listed = _read(annotations)
        known = {image for image, _, _ in listed.rows}
        for image, name in listed.names.items():
            if image not in known and image not in listed.robbed:
                listed.damage.append(f"image {_shown(image)} ({printable(name)}): no caption")
        files = _found(folder, {image: listed.names[image] for image in sorted(known)}, annotations, listed.damage)
        rows = [row for row in listed.rows if row[0] in files]
        images = sorted({image for image, _, _ in rows})
        self.folder = folder
        self.files = PackedStrings.pack(files[image] for image in images)
        captions = PackedStrings.pack(text for _, _, text in rows)
        place = {image: number for number, image in enumerate(images)}
        counts = np.bincount([place[image] for image, _, _ in rows], minlength=len(images))
        self.first_rows = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        digest = listing_hash("coco", self.files.blob, self.files.ends, captions.blob, captions.ends, self.first_rows)
        damaged = [f"{printable(annotations)}: {reason}" for reason in listed.damage]
        super().__init__("coco", self.first_rows[:-1].copy(), len(captions), digest, captions=captions, damaged=damaged)

    def read(self, item: int) -> bytes:
        """The encoded image `item`."""
        return (self.folder / self.files[item]).read_bytes()

    def size_of(self, item: int) -> int:
        """Bytes of the file."""
        return file_size(self.folder / self.files[item])

    def where(self, item: int) -> str:
        """Its path."""
        return printable(self.folder / self.files[item])


@dataclass
class _Listed:
    """File names by image id; image id, annotation id and text of every caption; what is damaged.

    `robbed` are images whose captions are all damaged, or whose id stands for two images: they are counted already.
    """

    names: dict[_Id, str] = field(default_factory=dict)
    rows: list[tuple[_Id, tuple[int, str, int], str]] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    robbed: set[_Id] = field(default_factory=set)


def _read(path: Path) -> _Listed:
    text = read_text(path, "data.captions")
    try:
        content: Any = parse_json(text)
    except ValueError as error:
        raise UserError(f"data.captions: {printable(path)} is damaged: {error}") from None
    images, annotations = (_rows_of(content, name) for name in ("images", "annotations"))
    if images is None or annotations is None:
        raise UserError(
            f"data.captions: {printable(path)} is no COCO captions file; expected images with id and file_name, and "
            "annotations with id, image_id and caption"
        )
    listed = _Listed()
    _take_images(images, listed)
    _take_captions(annotations, listed)
    if not listed.rows:
        first = f": {listed.damage[0]}" if listed.damage else ""
        raise UserError(f"data.captions: {printable(path)} holds no captions{first}")
    listed.rows.sort()
    return listed


def _rows_of(content: object, name: str) -> list[Any] | None:
    rows = content.get(name) if isinstance(content, dict) else None
    return rows if isinstance(rows, list) else None


def _take_images(images: list[Any], listed: _Listed) -> None:
    for place, image in enumerate(images):
        try:
            identity, name = _identity(image, "id"), image.get("file_name")
            if not isinstance(name, str) or not name or "\0" in name:
                raise ValueError(f"file_name is {shortened(name)}")
        except ValueError as error:
            listed.damage.append(f"images[{place}]: {error}")
            continue
        if listed.names.setdefault(identity, name) != name and identity not in listed.robbed:
            first = printable(listed.names[identity])
            listed.damage.append(f"image {_shown(identity)} is both {first} and {printable(name)}")
            listed.robbed.add(identity)


def _take_captions(annotations: list[Any], listed: _Listed) -> None:
    doubtful = set(listed.robbed)
    for place, row in enumerate(annotations):
        image: _Id | None = None
        try:
            image = _identity(row, "image_id")
            if image in doubtful:
                continue  # nobody can say which of the two it describes
            caption = parse_caption(row.get("caption"))
            if image not in listed.names:
                raise ValueError(f"the caption is of image {_shown(image)}, but there is no such image")
            own = _identity(row, "id") if row.get("id") is not None else (place, "")
        except ValueError as error:
            listed.damage.append(f"annotations[{place}]: {error}")
            if image is not None:
                listed.robbed.add(image)
            continue
        listed.rows.append((image, (*own, place), caption))


def _identity(row: object, key: str) -> _Id:
    """A number, also as text, or a text.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(row, dict):
        raise ValueError(f"{shortened(row)} is no JSON object")
    value = row.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value, ""
    if isinstance(value, str) and value.strip():
        text = value.strip()
        return (int(text), "") if text.isascii() and text.isdigit() and len(text) < 19 else (0, text)
    raise ValueError(f"{key} is {shortened(value)}")


def _shown(identity: _Id) -> str:
    number, text = identity
    return printable(text) or str(number)


def _found(folder: Path, names: dict[_Id, str], annotations: Path, damage: list[str]) -> dict[_Id, str]:
    """Paths below `folder` of the images whose files are there.

    A name may begin with the folder itself, and a plain name may lie in one of several folders below.
    """
    if not folder.is_dir():
        raise UserError(f"data.path: no such folder: {printable(folder)}")
    below: dict[str, list[str]] | None = None
    listings: dict[str, set[str]] = {}
    found: dict[_Id, str] = {}
    missing: list[str] = []
    for image, name in names.items():
        parent, _, last = name.rpartition("/")
        if parent not in listings:
            listings[parent] = _names_in(folder / parent)
        if last in listings[parent]:
            found[image] = name
            continue
        if below is None:
            below = _below(folder)
        others = below.get(last, [])
        if len(others) == 1:
            found[image] = others[0]
        else:
            several = f"{len(others)} files of this name below" if others else "no such file in"
            missing.append(f"image {_shown(image)} ({printable(name)}): {several} {printable(folder)}")
    if not found:
        first = printable(next(iter(names.values())))
        raise UserError(
            f"data.path: {printable(folder)} has no {first}, the first image of {printable(annotations)}, and none of "
            f"the other {len(names) - 1}"
        )
    damage += missing
    return found


def _names_in(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except OSError:
        return set()


def _below(folder: Path) -> dict[str, list[str]]:
    """Paths by the name of the file, of what lies in the folders of a folder."""
    found: dict[str, list[str]] = {}
    for inner in sorted(_names_in(folder)):
        if not inner.startswith("."):
            for name in _names_in(folder / inner):
                found.setdefault(name, []).append(f"{inner}/{name}")
    return found
