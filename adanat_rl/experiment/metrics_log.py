"""metrics.jsonl: one row per iteration, the truth of a run; MLflow, report and progress line are made from it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from adanat_rl.config.files import read_json_lines, write_atomically
from adanat_rl.config.metric_keys import ITERATION, is_measured


class MetricsLog:
    """Appends rows and gives them back.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, row: dict[str, Any]) -> None:
        """Adds one row in a single write."""
        line = json.dumps(row, allow_nan=False) + "\n"
        with self._path.open("a") as file:
            file.write(line)

    def sync(self) -> None:
        """Puts the rows on the disk."""
        if self._path.exists():
            with self._path.open("rb") as file:
                os.fsync(file.fileno())

    def cut_after(self, iteration: int) -> None:
        """Drops rows of later iterations: a resumed run writes them again."""
        rows = [row for row in read_json_lines(self._path) if row[ITERATION] <= iteration]
        write_atomically(self._path, "".join(json.dumps(row) + "\n" for row in rows), durable=True)

    def rows(self) -> list[dict[str, Any]]:
        """All rows in order."""
        return read_json_lines(self._path)


def without_measurements(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what a clock or a failure decides: the same for two runs of one seed."""
    return {key: value for key, value in row.items() if not is_measured(key)}
