"""How wide a printed table is: as wide as the terminal, or what COLUMNS says, or 80 where there is neither."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

NARROW = 80  # where nobody says how wide it is: in a pipe, in a log
_LEAST = 40


def output_width() -> int:
    """Columns of standard output."""
    if not sys.stdout.isatty() and not os.environ.get("COLUMNS", "").isdigit():
        return NARROW
    return max(_LEAST, shutil.get_terminal_size((NARROW, 24)).columns)


def print_table(table: Table | Callable[[int], Table]) -> None:
    """Prints a table on standard output.

    Args:
        table: as it is, its cells wrap; or made for a width, by leaving out what does not fit (`evaluation.fitting`).
    """
    width = output_width()
    Console(width=width).print(table(width) if callable(table) else table)
