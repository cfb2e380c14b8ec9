"""metrics.jsonl: one row per iteration, the truth of a run; MLflow, report and progress line are made from it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from adanat_rl.config.files import write_atomically

ITERATION = "iteration"
UNIX_TIME = "unix_time_s"
TIME_PREFIX = "time/"  # measured durations: the only numbers that differ between two runs of one seed


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
        rows = [row for row in read_metrics(self._path) if row[ITERATION] <= iteration]
        write_atomically(self._path, "".join(json.dumps(row) + "\n" for row in rows), durable=True)

    def rows(self) -> list[dict[str, Any]]:
        """All rows in order."""
        return read_metrics(self._path)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics file; a last line that was cut off is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what is measured by a clock."""
    return {key: value for key, value in row.items() if not key.startswith(TIME_PREFIX) and key != UNIX_TIME}
