"""MS-COCO: images in a folder, several captions of each in one JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from adanat_rl.config.errors import UserError
from adanat_rl.data.sources import ImageSource, PackedStrings, file_size, listing_hash


class CocoCaptions(ImageSource):
    """Images that have captions, by image id; captions in the order of image id and annotation id.

    `labels[i]` is the row of the first caption of image i; `first_rows[i]` … `first_rows[i + 1] - 1` are all of them.

    Args:
        folder: of the images, such as `val2014`. annotations: such as `captions_val2014.json`.

    Raises:
        UserError: the file is missing, damaged or no captions file, or the first image is not in the folder.
    """

    def __init__(self, folder: Path, annotations: Path) -> None:
        names, rows = _read(annotations)
        with_captions = sorted({image for image, _, _ in rows})
        unknown = [image for image in with_captions if image not in names]
        if unknown:
            raise UserError(f"data.captions: {annotations} has captions of image {unknown[0]} but no such image")
        self.folder = folder
        self.files = PackedStrings.pack(names[image] for image in with_captions)
        if not (folder / self.files[0]).is_file():
            raise UserError(f"data.path: {folder} has no {self.files[0]}, the first image of {annotations}")
        captions = PackedStrings.pack(text for _, _, text in rows)
        counts = np.unique(np.array([image for image, _, _ in rows]), return_counts=True)[1]
        self.first_rows = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        digest = listing_hash("coco", self.files.blob, self.files.ends, captions.blob, captions.ends, self.first_rows)
        left_out = len(names) - len(with_captions)
        notes = [f"{left_out} images of {annotations} have no caption and are left out"] if left_out else []
        super().__init__("coco", self.first_rows[:-1].copy(), len(captions), digest, captions=captions, notes=notes)

    def read(self, item: int) -> bytes:
        """The encoded image `item`."""
        return (self.folder / self.files[item]).read_bytes()

    def size_of(self, item: int) -> int:
        """Bytes of the file."""
        return file_size(self.folder / self.files[item])

    def where(self, item: int) -> str:
        """Its path."""
        return str(self.folder / self.files[item])


def _read(path: Path) -> tuple[dict[int, str], list[tuple[int, int, str]]]:
    """File names by image id; image id, annotation id and text of every caption, sorted."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"data.captions: {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"data.captions: {path} is damaged: {error}") from None
    try:
        names = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
        rows = sorted((int(row["image_id"]), int(row["id"]), row["caption"].strip()) for row in content["annotations"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"data.captions: {path} is no COCO captions file ({type(error).__name__}: {error}); expected images with "
            "id and file_name, and annotations with id, image_id and caption"
        ) from None
    if not rows:
        raise UserError(f"data.captions: {path} holds no captions")
    return names, rows
