"""CIFAR-10 as parquet: one column of encoded images, one of labels, as on the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from adanat_rl.config.errors import UserError
from adanat_rl.data.sources import ImageSource, listing_hash

_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("label", "labels", "fine_label")
_ROW_GROUPS_KEPT = 64


class ParquetImages(ImageSource):
    """Rows of some parquet files; a row group is read when the first of its images is wanted, and kept.

    Raises:
        UserError: a file is damaged or has not these columns.
    """

    def __init__(self, files: Sequence[Path], name: str = "cifar10") -> None:
        self.files = list(files)
        labels: list[np.ndarray] = []
        self._groups: list[tuple[int, int, str]] = []  # file, row group, image column
        starts: list[int] = [0]
        class_names: Sequence[str] = ()
        for number, path in enumerate(self.files):
            try:
                file = pq.ParquetFile(path)
                image, label = (_column(file, names, path) for names in (_IMAGE_COLUMNS, _LABEL_COLUMNS))
                column = file.read(columns=[label])[label]
                if column.null_count:
                    raise UserError(f"data.path: {path}: {column.null_count} images without a {label}")
                labels.append(column.to_numpy().astype(np.int64))
                class_names = class_names or _class_names(file.schema_arrow, label)
            except (OSError, ValueError, TypeError) as error:
                if isinstance(error, UserError):
                    raise
                raise UserError(f"data.path: {path} is damaged or no parquet: {error}") from None
            for group in range(file.num_row_groups):
                self._groups.append((number, group, image))
                starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
        joined = np.concatenate(labels)
        if not len(joined):
            raise UserError(f"data.path: {self.files[0]} holds no images")
        num_classes = len(class_names) or int(joined.max()) + 1
        if joined.min() < 0 or joined.max() >= num_classes:
            raise UserError(
                f"data.path: {self.files[0]}: labels {joined.min()} … {joined.max()}, {num_classes} classes"
            )
        self._starts = np.array(starts, np.int64)
        self._kept: dict[int, Any] = {}
        names = [(file.name, file.stat().st_size) for file in self.files]
        super().__init__(name, joined, num_classes, listing_hash("parquet", names, joined), class_names=class_names)

    def read(self, item: int) -> bytes:
        """The encoded image `item`."""
        group = int(np.searchsorted(self._starts, item, side="right")) - 1
        column = self._kept.get(group)
        if column is None:
            number, row_group, name = self._groups[group]
            column = pq.ParquetFile(self.files[number]).read_row_group(row_group, columns=[name])[name].combine_chunks()
            if len(self._kept) >= _ROW_GROUPS_KEPT:
                self._kept.clear()
            self._kept[group] = column  # two threads may both read it; the second finds the same
        value = column[item - int(self._starts[group])].as_py()
        data = value["bytes"] if isinstance(value, dict) else value
        if not data:
            raise ValueError("the row holds no image")
        return bytes(data)

    def where(self, item: int) -> str:
        """File and row."""
        group = int(np.searchsorted(self._starts, item, side="right")) - 1
        number = self._groups[group][0]
        first = next(i for i, (other, _, _) in enumerate(self._groups) if other == number)
        return f"{self.files[number]} row {item - int(self._starts[first])}"


def parquet_files(path: Path) -> list[Path]:
    """The parquet files of one split: the file itself, or those of a folder, none if it has none.

    Raises:
        UserError: the folder has several splits.
    """
    if path.is_file():
        return [path]
    files = sorted(path.glob("*.parquet"))
    splits = sorted({file.stem.partition("-")[0] for file in files})
    if len(splits) > 1:
        raise UserError(f"data.path: {path} has several splits ({', '.join(splits)}); name one: {files[-1]}")
    return files


def _column(file: pq.ParquetFile, names: Sequence[str], path: Path) -> str:
    have = file.schema_arrow.names
    found = [name for name in names if name in have]
    if not found:
        raise UserError(f"data.path: {path} has the columns {', '.join(have)}; expected one of {', '.join(names)}")
    return found[0]


def _class_names(schema: Any, label: str) -> Sequence[str]:
    """Names that the file's metadata give, or none."""
    metadata = schema.metadata or {}
    if b"class_names" in metadata:
        return metadata[b"class_names"].decode().split(",")
    try:
        return list(json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"])
    except (KeyError, TypeError, ValueError):
        return ()
