"""The rows of metrics.jsonl as an outbox: a row counts as taken when the reader has come back for the next one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adanat_rl.config.files import read_json_line
from adanat_rl.config.metric_rows import row_problem


class Outbox:
    """Reads complete rows in order, from where it stopped; a file that was cut or written again is read anew.

    Args:
        path: metrics.jsonl.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._last_line = b""
        self.damage = ""  # what is wrong with the line behind which nothing is read

    def rewind(self) -> None:
        """Begins anew."""
        self._offset, self._last_line = 0, b""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Rows that were not taken. A row whose handling raises is given again the next time."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(max(0, self._offset - len(self._last_line)))
            if file.read(len(self._last_line)) != self._last_line:
                self.rewind()
                file.seek(0)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                row = self._parse(line)
                if row is None:
                    return
                yield row
                self._offset += len(line)
                self._last_line = line

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        row, as_written = read_json_line(line)
        if row is None or not as_written or row_problem(row) is not None:
            self.damage = f"{self._path}: a line is damaged, and MLflow gets nothing behind it; see adanat-rl audit"
            return None
        return row
