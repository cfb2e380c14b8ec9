"""Images in folders, one folder per class, as ImageNet comes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from adanat_rl.config.errors import UserError
from adanat_rl.config.text_files import printable
from adanat_rl.data.class_list import read_class_list, read_classes
from adanat_rl.data.sources import IMAGE_SUFFIXES, ImageSource, PackedStrings, file_size, listing_hash

__all__ = ["ImageTree", "read_class_list"]

# Folders and files that systems put beside what people keep; those of macOS inside archives begin with a dot
_SYSTEM_FOLDERS = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "icon\r"}


class ImageTree(ImageSource):
    """Images under `root`; classes are its folders, sorted by name, or numbered by a class list.

    A folder without folders is one class. What begins with a dot, and what systems put there, is left out; of other
    files that are no images a note tells.

    Args:
        root: the folder. class_list: see `class_list`; None: the folders that are there. name: for tables.

    Raises:
        UserError: there are no images, a class folder is empty or not in the list, or images lie beside the folders.
    """

    def __init__(self, root: Path, class_list: Path | None = None, name: str = "image_folder") -> None:
        if not root.is_dir():
            raise UserError(f"data.path: no such folder: {printable(root)}")
        try:
            top = _list(root)
            folders, beside = top.folders, top.images
            if folders and beside:
                raise UserError(
                    f"data.path: {printable(root)} has {len(beside)} images beside its class folders, such as "
                    f"{printable(beside[0])}"
                )
            if not folders and not beside:
                raise UserError(f"data.path: {printable(root)} has neither class folders nor images")
            left_out = list(top.others)
            groups = [(root.name, beside)] if beside else []
            for folder in folders:
                found = [f"{folder}/{path}" for path in sorted(_images(root / folder, left_out))]
                if not found:
                    raise UserError(f"data.path: class folder {printable(root / folder)} has no images")
                groups.append((folder, found))
        except OSError as error:
            raise UserError(f"data.path: {printable(error.filename or root)}: {error.strerror or error}") from None
        numbers, class_names = _numbers(folders, root.name, class_list)
        self.root = root
        self.paths = PackedStrings.pack(path for _, paths in groups for path in paths)
        classes = [numbers[folder] for folder, _ in groups]
        labels = np.repeat(np.array(classes, np.int64), [len(paths) for _, paths in groups])
        digest = listing_hash("image tree", self.paths.blob, self.paths.ends, labels)
        notes = [*_left_out(root, left_out), *_twins(folders)]
        super().__init__(name, labels, len(class_names), digest, class_names=class_names, notes=notes)

    def read(self, item: int) -> bytes:
        """The encoded image `item`."""
        return (self.root / self.paths[item]).read_bytes()

    def size_of(self, item: int) -> int:
        """Bytes of the file."""
        return file_size(self.root / self.paths[item])

    def where(self, item: int) -> str:
        """Its path."""
        return printable(self.root / self.paths[item])


def _numbers(folders: Sequence[str], root: str, class_list: Path | None) -> tuple[dict[str, int], list[str]]:
    """The class of each folder, and what the classes are called; without folders the whole is class 0."""
    if class_list is None:
        names = list(folders) or [root]
        return {folder: number for number, folder in enumerate(names)}, names
    listed = read_classes(class_list)
    return (listed.numbers_of(folders) if folders else {root: 0}), listed.shown


@dataclass
class _Listing:
    """What is in a folder: names, sorted."""

    folders: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def _list(folder: Path) -> _Listing:
    found = _Listing()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _SYSTEM_FOLDERS:
                continue
            if entry.is_dir():
                found.folders.append(entry.name)
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                found.images.append(entry.name)
            elif entry.name.lower() not in _SYSTEM_FILES:
                found.others.append(entry.path)
    for names in (found.folders, found.images, found.others):
        names.sort()
    return found


def _images(
    folder: Path, left_out: list[str], prefix: str = "", above: tuple[tuple[int, int], ...] = ()
) -> Iterator[str]:
    """Paths of all images below `folder`; `above` are the folders that lead there, so that a link in a circle shows."""
    status = folder.stat()
    identity = status.st_dev, status.st_ino
    if identity in above:
        raise UserError(f"data.path: {printable(folder)} is a link to a folder that it lies in")
    listing = _list(folder)
    left_out += listing.others
    yield from (prefix + image for image in listing.images)
    for inner in listing.folders:
        yield from _images(folder / inner, left_out, f"{prefix}{inner}/", (*above, identity))


def _left_out(root: Path, others: Sequence[str]) -> list[str]:
    if not others:
        return []
    return [
        f"{len(others)} files below {printable(root)} are no images and are left out, such as {printable(others[0])}"
    ]


def _twins(folders: Sequence[str]) -> list[str]:
    """A note of folders that differ only in case, which may be one class spelt in two ways."""
    first: dict[str, str] = {}
    twins = [(first[name.lower()], name) for name in folders if first.setdefault(name.lower(), name) != name]
    if not twins:
        return []
    return [f"class folders {twins[0][0]} and {twins[0][1]} differ only in upper and lower case; they are two classes"]


def count_classes(root: Path, class_list: Path | None = None) -> int:
    """How many classes an `ImageTree` of the same arguments has, by the names of its folders alone.

    Raises:
        UserError: the folder or the list is missing.
    """
    if class_list is not None:
        return len(read_classes(class_list))
    try:
        return max(1, len(_list(root).folders))
    except OSError as error:
        raise UserError(f"data.path: {printable(root)}: {error.strerror or error}") from None
