"""Tables that fit the width there is: names stay, the less important columns go first, and the table says which."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.cells import cell_len
from rich.table import Table

_NAME_WIDTH = 24  # a name may wrap, but not further


def fitted(build: Callable[[Sequence[str], Sequence[str]], Table], columns: Sequence[str], width: int) -> Table:
    """The table with as many columns as fit.

    Args:
        build: makes it from the columns that stay, in their order, and those that are left out.
        columns: names, the most important first. width: in characters.
    """
    for count in range(len(columns), 0, -1):
        table = build(columns[:count], columns[count:])
        if _least_width(table) <= width:
            return table
    return build((), columns)


def left_out_note(titles: Sequence[str], where: str) -> str:
    """Which columns are missing, and where their numbers are; empty if none is."""
    if not titles:
        return ""
    return f"Left out for want of room: {', '.join(titles)}; they stand in {where}, or give COLUMNS=160."


def name_width(names: Sequence[str]) -> int:
    """Least width of a column of names: they wrap between words, and no word is cut."""
    longest_word = max((len(word) for name in names for word in name.split()), default=1)
    return max(longest_word, min(_NAME_WIDTH, max(map(len, names), default=1)))


def _least_width(table: Table) -> int:
    """Width below which something would be cut: of whole cells, or of the longest word where a column may wrap."""
    widths = []
    for column in table.columns:
        cells = [str(cell) for cell in (column.header, *column.cells)]
        lines = [line for cell in cells for line in cell.split("\n")]
        widths.append(max(map(cell_len, lines)) if column.no_wrap else column.min_width or name_width(cells))
    return sum(widths) + 3 * len(widths) + 1
