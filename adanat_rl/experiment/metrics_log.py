"""metrics.jsonl: one row per iteration, the truth of a run; MLflow, report and progress line are made from it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from adanat_rl.config.files import append_line, json_line, write_atomically
from adanat_rl.config.metric_keys import ITERATION, is_measured
from adanat_rl.config.metric_rows import read_metric_rows


class MetricsLog:
    """Appends rows and gives them back.

    Args:
        path: the file. damaged: where a file with damaged rows is kept as it was found.
    """

    def __init__(self, path: Path, damaged: Path | None = None) -> None:
        self._path = path
        self._damaged = damaged or path.with_suffix(".damaged")

    def append(self, row: dict[str, Any]) -> None:
        """Adds one row in a single write."""
        append_line(self._path, json_line(row))

    def sync(self) -> None:
        """Puts the rows on the disk."""
        if self._path.exists():
            with self._path.open("rb") as file:
                os.fsync(file.fileno())

    def cut_after(self, iteration: int) -> list[str]:
        """Drops rows of later iterations: a resumed run writes them again. Of one iteration the last row counts.

        Returns:
            What is wrong with the rows that stay, in words: damaged ones, and iterations without a row. The file with
            damaged rows is kept beside as it was.
        """
        found = read_metric_rows(self._path)
        problems = [*found.problems, *found.altered]
        if problems:
            shutil.copyfile(self._path, self._damaged)
        pairs = zip(found.rows, found.lines, strict=True)
        lines = {row[ITERATION]: line for row, line in pairs if row[ITERATION] <= iteration}
        missing = [number for number in range(iteration + 1) if number not in lines]
        if missing:
            problems.append(f"no row of {len(missing)} iterations, the first of them {missing[0]}")
        write_atomically(self._path, b"".join(lines[number] + b"\n" for number in sorted(lines)))
        return problems

    def rows(self) -> list[dict[str, Any]]:
        """All whole rows in order."""
        return read_metric_rows(self._path).rows


def without_measurements(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what a clock or a failure decides: the same for two runs of one seed."""
    return {key: value for key, value in row.items() if not is_measured(key)}
