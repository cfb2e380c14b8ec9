"""Addresses of the dashboard's pages: MLflow opens on an empty page for language models unless it is told otherwise."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

_SHOWS_TRAINING = "workflowType=machine_learning"
_EXPERIMENTS = """
    SELECT e.experiment_id, e.name, count(r.run_uuid) AS num_runs
    FROM experiments e JOIN runs r ON r.experiment_id = e.experiment_id AND r.lifecycle_stage = 'active'
    WHERE e.lifecycle_stage = 'active'
    GROUP BY e.experiment_id ORDER BY max(r.start_time) DESC
"""


@dataclass(frozen=True)
class ExperimentPage:
    """The page of an experiment's runs; `path` goes behind the address of the server."""

    name: str
    num_runs: int
    path: str


def experiment_pages(database: Path) -> list[ExperimentPage]:
    """The experiments of a store that have runs, the one with the newest run first.

    Raises:
        sqlite3.Error: the file is no store of MLflow, or is held by another process.
    """
    with closing(sqlite3.connect(database, timeout=10.0)) as connection:
        rows = connection.execute(_EXPERIMENTS).fetchall()
    return [
        ExperimentPage(str(name), int(count), f"/#/experiments/{number}/runs?{_SHOWS_TRAINING}")
        for number, name, count in rows
    ]
