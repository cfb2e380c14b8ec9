"""What all measurements share: where they write, what machine they ran on, how they print."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from adanat_rl.config.files import write_atomically
from adanat_rl.experiment.environment import describe_environment

RESULTS = Path(__file__).parent / "results"


def write_result(name: str, content: dict[str, Any]) -> None:
    """Writes `results/NAME.json` with date and machine."""
    environment = describe_environment()
    machine = {
        key: environment[key] for key in ("processor", "num_cpus", "memory_gb", "python", "packages", "git_revision")
    }
    dated = {"measured_on": datetime.date.today().isoformat(), "machine": machine, **content}
    path = RESULTS / f"{name}.json"
    write_atomically(path, json.dumps(dated, indent=1, ensure_ascii=False) + "\n")
    print(f"numbers: {path}")


def seconds(call: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def print_ratios(title: str, columns: Mapping[str, str], measured: Mapping[int, Mapping[str, float]]) -> None:
    """A line per number of trajectories.

    Args:
        columns: key of a number and its heading. measured: the numbers, by trajectories.
    """
    rows = [[f"{count:,}", *(f"{numbers[key]:.3f}" for key in columns)] for count, numbers in measured.items()]
    print_rows(title, ["trajectories", *columns.values()], rows)


def print_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on the terminal."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=140).print(table)
