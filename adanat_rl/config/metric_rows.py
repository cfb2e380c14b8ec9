"""Reading metrics.jsonl, the truth of a run: the rows that are whole, and what is wrong with the others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adanat_rl.config.files import scan_json_lines
from adanat_rl.config.metric_keys import ITERATION, TEXTS


@dataclass(frozen=True)
class MetricRows:
    """The rows of a metrics file.

    Args:
        rows: whole ones, in order. lines: the bytes of each. problems: a line of text for each that is not: damaged, or
            with a value that no run writes. altered: a line of text for each whole row that is not as it was written.
            unfinished: whether the last line breaks off, because its writer was killed.
    """

    rows: list[dict[str, Any]]
    lines: list[bytes]
    problems: list[str]
    altered: list[str]
    unfinished: bool


def read_metric_rows(path: Path) -> MetricRows:
    """Rows of a metrics file, none if it is missing; a row that is not whole costs only itself."""
    scanned = scan_json_lines(path)
    found = MetricRows([], [], list(scanned.damaged), scanned.altered, scanned.unfinished)
    for row, line in zip(scanned.rows, scanned.lines, strict=True):
        problem = row_problem(row)
        if problem is None:
            found.rows.append(row)
            found.lines.append(line)
        else:
            found.problems.append(problem)
    return found


def row_problem(row: dict[str, Any]) -> str | None:
    """What is wrong with a row: it needs a whole iteration number, and finite numbers everywhere but in the hashes."""
    iteration = row.get(ITERATION)
    if not isinstance(iteration, int) or isinstance(iteration, bool) or iteration < 0:
        return f"a row without an iteration number ({iteration!r})"
    for key, value in row.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        right = isinstance(value, str) if key in TEXTS else is_number and math.isfinite(value)
        if not right:
            return f"row of iteration {iteration}: {key} is {str(value)[:40]!r}"
    return None
