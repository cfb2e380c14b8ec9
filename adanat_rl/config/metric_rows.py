"""Reading metrics.jsonl, the truth of a run: the rows that are whole, and what is wrong with the others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adanat_rl.config.files import scan_json_lines
from adanat_rl.config.metric_keys import BATCH_HASH, ITERATION


@dataclass(frozen=True)
class MetricRows:
    """The rows of a metrics file.

    Args:
        rows: whole ones, in order. problems: a line of text for each that is not: damaged, or with a value that no
            run writes. unfinished: whether the last line breaks off, because its writer was killed.
    """

    rows: list[dict[str, Any]]
    problems: list[str]
    unfinished: bool


def read_metric_rows(path: Path) -> MetricRows:
    """Rows of a metrics file, none if it is missing; a row that is not whole costs only itself."""
    lines = scan_json_lines(path)
    rows, problems = [], list(lines.damaged)
    for row in lines.rows:
        problem = row_problem(row)
        if problem is None:
            rows.append(row)
        else:
            problems.append(problem)
    return MetricRows(rows, problems, lines.unfinished)


def row_problem(row: dict[str, Any]) -> str | None:
    """What is wrong with a row: it needs a whole iteration number, and finite numbers everywhere but in the hash."""
    iteration = row.get(ITERATION)
    if not isinstance(iteration, int) or isinstance(iteration, bool) or iteration < 0:
        return f"a row without an iteration number ({iteration!r})"
    for key, value in row.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        right = isinstance(value, str) if key == BATCH_HASH else is_number and math.isfinite(value)
        if not right:
            return f"row of iteration {iteration}: {key} is {str(value)[:40]!r}"
    return None
