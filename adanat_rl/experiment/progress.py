"""What a running command shows: one live line on a terminal, plain lines elsewhere, JSON lines, or nothing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from adanat_rl.config.metric_keys import (
    EVAL,
    HACKING_DETECTED,
    HACKING_ITERATION,
    PANEL_AHEAD,
    PANEL_BEHIND,
    REWARD_MEAN,
)
from adanat_rl.console.tables import print_table
from adanat_rl.evaluation.judge import FD_A
from adanat_rl.evaluation.table import comparison_table

_PLAIN_INTERVAL_S = 15.0
_WARNING = "warning: "


class Display(Protocol):
    """Receives rows and messages."""

    def row(self, done: int, total: int, row: dict[str, Any]) -> None:
        """A finished unit of work with its numbers."""
        ...

    def message(self, text: str) -> None:
        """One line that stays."""
        ...

    def warning(self, text: str) -> None:
        """Something that went wrong and that the command goes on from: shown however quiet a display is."""
        ...

    def table(self, comparison: dict[str, Any]) -> None:
        """The final comparison."""
        ...


class QuietDisplay:
    """Shows nothing but warnings, on standard error."""

    def row(self, done: int, total: int, row: dict[str, Any]) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""

    def warning(self, text: str) -> None:
        """A line on standard error."""
        print(_warning(text), file=sys.stderr, flush=True)

    def table(self, comparison: dict[str, Any]) -> None:
        """Nothing."""


class JsonDisplay:
    """One JSON object per line on standard output."""

    def row(self, done: int, total: int, row: dict[str, Any]) -> None:
        """The row as it is."""
        print(json.dumps(row), flush=True)

    def message(self, text: str) -> None:
        """`{"message": …}`."""
        print(json.dumps({"message": text}), flush=True)

    def warning(self, text: str) -> None:
        """`{"warning": …}`."""
        print(json.dumps({"warning": text.removeprefix(_WARNING)}), flush=True)

    def table(self, comparison: dict[str, Any]) -> None:
        """`{"comparison": …}`."""
        print(json.dumps({"comparison": comparison}), flush=True)


class PlainDisplay:
    """A line now and then, for logs: at the first and last row, every evaluation, and at least every 15 seconds.

    Args:
        write: takes a line; standard output by default.
    """

    def __init__(self, write: Callable[[str], None] | None = None) -> None:
        self._write = write or partial(print, flush=True)
        self._start = self._last = time.monotonic()
        self._first_done: int | None = None
        self._total: int | None = None

    def row(self, done: int, total: int, row: dict[str, Any]) -> None:
        """A line if it is time for one."""
        now = time.monotonic()
        if self._first_done is None or total != self._total:  # another length is another piece of work
            self._first_done, self._total, self._start = done, total, now
        due = done in (self._first_done, total) or is_evaluation(row) or now - self._last >= _PLAIN_INTERVAL_S
        if not due:
            return
        self._last = now
        rate = (now - self._start) / max(1, done - self._first_done)
        eta = f"  ETA {_clock(rate * (total - done))}" if done > self._first_done else ""
        self._write(f"{done}/{total}{eta}{_numbers(row)}")

    def message(self, text: str) -> None:
        """The line."""
        self._write(text)

    def warning(self, text: str) -> None:
        """The line, with what it is."""
        self._write(_warning(text))

    def table(self, comparison: dict[str, Any]) -> None:
        """The table, as wide as the output is."""
        print_table(lambda width: comparison_table(comparison, width))


class LiveDisplay:
    """One line that is drawn again and again: bar, elapsed, ETA, reward, FD."""

    def __init__(self, progress: Progress, label: str) -> None:
        self._progress = progress
        self._task = progress.add_task(label, total=None, numbers="")
        self._latest: dict[str, Any] = {}

    def row(self, done: int, total: int, row: dict[str, Any]) -> None:
        """Moves the bar; numbers that are not in every row stay."""
        self._latest |= row
        self._progress.update(self._task, completed=done, total=total, numbers=_numbers(self._latest))

    def message(self, text: str) -> None:
        """A line above the bar."""
        self._progress.console.print(text, highlight=False, markup=False)

    def warning(self, text: str) -> None:
        """The same, with what it is."""
        self.message(_warning(text))

    def table(self, comparison: dict[str, Any]) -> None:
        """The table above the bar."""
        console = self._progress.console
        console.print(comparison_table(comparison, console.width))


@contextmanager
def open_display(label: str, *, quiet: bool = False, log_json: bool = False) -> Iterator[Display]:
    """The display that fits the options and the output."""
    if quiet:
        yield QuietDisplay()
    elif log_json:
        yield JsonDisplay()
    elif sys.stdout.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
        )
        with Progress(*columns, console=Console()) as progress:
            yield LiveDisplay(progress, label)
    else:
        yield PlainDisplay()


def _numbers(row: dict[str, Any]) -> str:
    """The numbers worth a place in one line."""
    shown = [
        (REWARD_MEAN, "reward {:.3f}"),
        ("loss", "loss {:.3f}"),
        ("distance", "FD {:.3f}"),
    ]
    if PANEL_AHEAD not in row:
        shown.insert(1, (EVAL + FD_A, "FD {:.3f}"))
    parts = [text.format(row[key]) for key, text in shown if key in row]
    if PANEL_AHEAD in row:
        parts.append(f"panel: {row[PANEL_AHEAD]:.0f} better, {row[PANEL_BEHIND]:.0f} worse than at first")
    if row.get(HACKING_DETECTED):
        parts.append(f"reward hacked since iteration {row[HACKING_ITERATION]:.0f}")
    return "".join("  " + part for part in parts)


def _warning(text: str) -> str:
    """The line of a warning, whether or not it says that it is one."""
    return text if text.startswith(_WARNING) else _WARNING + text


def is_evaluation(row: dict[str, Any]) -> bool:
    """Whether a row holds an evaluation."""
    return EVAL + FD_A in row


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
