"""How wide a printed table is: as wide as the terminal, or as it needs to be where there is none."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

_WIDTH = 160  # where there is no terminal to ask


def print_table(table: Table) -> None:
    """Prints a table on standard output."""
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)
