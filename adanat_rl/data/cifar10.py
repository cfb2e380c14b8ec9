"""CIFAR-10 as parquet: one column of encoded images, one of labels, as on the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adanat_rl.config.errors import UserError
from adanat_rl.config.text_files import printable
from adanat_rl.data.contexts import parse_class, shortened
from adanat_rl.data.sources import ImageSource, listing_hash

_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("label", "labels", "fine_label")
_ROW_GROUPS_KEPT = 64
_ERRORS = (OSError, ValueError, TypeError, LookupError, OverflowError, pa.ArrowException)


class ParquetImages(ImageSource):
    """Rows of some parquet files; a row group is read when the first of its images is wanted, and kept. A row without
    a class is left out as damaged.

    Raises:
        UserError: a file is damaged or has not these columns, or no row has a class.
    """

    def __init__(self, files: Sequence[Path], name: str = "cifar10") -> None:
        self.files = list(files)
        self._groups: list[tuple[int, int, str]] = []  # file, row group, image column
        starts: list[int] = [0]
        values: list[Any] = []
        class_names: Sequence[str] = ()
        for number, path in enumerate(self.files):
            try:
                file = pq.ParquetFile(path)
                image, label = (_column(file, names, path) for names in (_IMAGE_COLUMNS, _LABEL_COLUMNS))
                _check_type(file.schema_arrow.field(image), path)
                values += file.read(columns=[label])[label].to_pylist()
                class_names = class_names or _class_names(file.schema_arrow, label)
            except _ERRORS as error:
                if isinstance(error, UserError):
                    raise
                text = " ".join(str(error).split())
                raise UserError(f"data.path: {printable(path)} is damaged or no parquet: {text}") from None
            for group in range(file.num_row_groups):
                self._groups.append((number, group, image))
                starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
        self._starts = np.array(starts, np.int64)
        self._kept: dict[int, Any] = {}
        if not values:
            raise UserError(f"data.path: {printable(self.files[0])} holds no images")
        if len(values) != starts[-1]:
            raise UserError(f"data.path: {printable(self.files[0])}: {len(values)} labels of {starts[-1]} rows")
        labels, problems = _labels(values, class_names)
        damaged = [f"{self._place(row)}: {problem}" for row, problem in problems.items()]
        self._rows = np.flatnonzero(labels >= 0)
        if not len(self._rows):
            raise UserError(f"data.path: no row of {printable(self.files[0])} has a class: {damaged[0]}")
        joined = labels[self._rows]
        num_classes = len(class_names) or int(joined.max()) + 1
        names = [(file.name, file.stat().st_size) for file in self.files]
        more = [self._rows] if problems else []
        digest = listing_hash("parquet", names, joined, *more)
        super().__init__(name, joined, num_classes, digest, class_names=class_names, damaged=damaged)

    def read(self, item: int) -> bytes:
        """The encoded image `item`."""
        row = int(self._rows[item])
        group = self._group_of(row)
        column = self._kept.get(group)
        if column is None:
            number, row_group, name = self._groups[group]
            column = pq.ParquetFile(self.files[number]).read_row_group(row_group, columns=[name])[name].combine_chunks()
            if len(self._kept) >= _ROW_GROUPS_KEPT:
                self._kept.clear()
            self._kept[group] = column  # two threads may both read it; the second finds the same
        value = column[row - int(self._starts[group])].as_py()
        data = value["bytes"] if isinstance(value, dict) else value
        if not data:
            raise ValueError("the row holds no image")
        return bytes(data)

    def where(self, item: int) -> str:
        """File and row."""
        return self._place(int(self._rows[item]))

    def _group_of(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side="right")) - 1

    def _place(self, row: int) -> str:
        number = self._groups[self._group_of(row)][0]
        first = next(i for i, (other, _, _) in enumerate(self._groups) if other == number)
        return f"{printable(self.files[number])} row {row - int(self._starts[first])}"


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


def _labels(values: Sequence[object], class_names: Sequence[str]) -> tuple[np.ndarray, dict[int, str]]:
    """Class numbers `[N]` int64, -1 where a row has none, and of those rows what is wrong."""
    known = {name: number for number, name in enumerate(class_names)}
    labels = np.full(len(values), -1, np.int64)
    problems: dict[int, str] = {}
    for row, value in enumerate(values):
        try:
            label = parse_class(value)
            number = known.get(label, -1) if isinstance(label, str) else label
            if number < 0 or (class_names and number >= len(class_names)):
                raise ValueError(f"class {shortened(value)}, the file names {len(class_names)} classes")
            labels[row] = number
        except ValueError as error:
            problems[row] = str(error)
    return labels, problems


def _check_type(field: pa.Field, path: Path) -> None:
    """Refuses a column that cannot hold encoded images.

    Raises:
        UserError: naming the column and its type.
    """
    kind = field.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise UserError(
            f"data.path: {printable(path)}: column {field.name} is {field.type}; expected the bytes of encoded images, "
            "or a struct with them as the field bytes"
        )


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
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
    return names if isinstance(names, list) and all(isinstance(one, str) for one in names) else ()
