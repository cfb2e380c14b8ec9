"""Images in folders, one folder per class, as ImageNet comes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from adanat_rl.config.errors import UserError, nearest
from adanat_rl.data.sources import IMAGE_SUFFIXES, ImageSource, PackedStrings, file_size, listing_hash


class ImageTree(ImageSource):
    """Images under `root`; classes are its folders, sorted by name, or numbered by a class list.

    A folder without folders is one class. Files that are no images are left out; so is what begins with a dot.

    Args:
        root: the folder. class_list: see `read_class_list`; None: the folders that are there. name: for tables.

    Raises:
        UserError: there are no images, a class folder is empty or not in the list, or images lie beside the folders.
    """

    def __init__(self, root: Path, class_list: Path | None = None, name: str = "image_folder") -> None:
        if not root.is_dir():
            raise UserError(f"data.path: no such folder: {root}")
        folders, beside = _folders(root)
        if folders and beside:
            raise UserError(f"data.path: {root} has {len(beside)} images beside its class folders, such as {beside[0]}")
        if not folders and not beside:
            raise UserError(f"data.path: {root} has neither class folders nor images")
        listed = read_class_list(class_list) if class_list else dict.fromkeys(folders or [root.name], "")
        numbers = {folder: number for number, folder in enumerate(listed)}
        unknown = [folder for folder in folders if folder not in numbers]
        if unknown:
            raise UserError(
                f"data.class_names: {class_list} does not list {unknown[0]} "
                f"({len(unknown)} of {len(folders)} folders){nearest(unknown[0], numbers)}"
            )
        paths: list[str] = list(beside)
        counts = [len(beside)] if beside else []
        for folder in folders:
            found = [f"{folder}/{path}" for path in sorted(_images(root / folder))]
            if not found:
                raise UserError(f"data.path: class folder {root / folder} has no images")
            paths += found
            counts.append(len(found))
        self.root = root
        self.paths = PackedStrings.pack(paths)
        classes = [numbers[folder] for folder in folders] or [0]
        labels = np.repeat(np.array(classes, np.int64), counts)
        digest = listing_hash("image tree", self.paths.blob, self.paths.ends, labels)
        super().__init__(
            name, labels, len(listed), digest, class_names=[text or folder for folder, text in listed.items()]
        )

    def read(self, item: int) -> bytes:
        """The encoded image `item`."""
        return (self.root / self.paths[item]).read_bytes()

    def size_of(self, item: int) -> int:
        """Bytes of the file."""
        return file_size(self.root / self.paths[item])

    def where(self, item: int) -> str:
        """Its path."""
        return str(self.root / self.paths[item])


def read_class_list(path: Path) -> dict[str, str]:
    """Folder names in the order of their numbers, with what people call them ("" if the list does not say).

    A JSON object {folder: name}, a JSON list of folders, or a text file with a folder a line, a name behind it or not.

    Raises:
        UserError: the file is missing or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = json.loads(text) if path.suffix == ".json" else None
    except OSError as error:
        raise UserError(f"data.class_names: {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"data.class_names: {path} is damaged: {error}") from None
    if content is None:
        rows = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
        content = [row[0] for row in rows]
        names = {row[0]: row[1].strip() if len(row) > 1 else "" for row in rows}
    elif isinstance(content, dict):
        names = {folder: name if isinstance(name, str) else "" for folder, name in content.items()}
    else:
        names = {str(folder): "" for folder in content} if isinstance(content, list) else {}
    if not names or len(names) < len(content):
        raise UserError(
            f"data.class_names: {path}: expected each class folder once, as a JSON object, a JSON list or lines"
        )
    return names


def _folders(root: Path) -> tuple[list[str], list[str]]:
    """Names of the folders in `root` and of the images in it, sorted."""
    folders, images = [], []
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                images.append(entry.name)
    return sorted(folders), sorted(images)


def _images(folder: Path, prefix: str = "") -> Iterator[str]:
    """Paths of all images below `folder`."""
    folders, images = _folders(folder)
    yield from (prefix + image for image in images)
    for inner in folders:
        yield from _images(folder / inner, f"{prefix}{inner}/")


def count_classes(root: Path, class_list: Path | None = None) -> int:
    """How many classes an `ImageTree` of the same arguments has, by the names of its folders alone.

    Raises:
        UserError: the folder or the list is missing.
    """
    if class_list is not None:
        return len(read_class_list(class_list))
    try:
        return max(1, len(_folders(root)[0]))
    except OSError as error:
        raise UserError(f"data.path: {root}: {error.strerror or error}") from None
