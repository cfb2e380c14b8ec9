"""Tables of the page as text: the comparison with its best values marked, training seeds, changed settings."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adanat_rl.config.loading import describe_settings
from adanat_rl.config.metric_keys import IMAGES_PER_SECOND
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.evaluation.comparison import BASE_SCHEDULE, BASELINE, CONTROL, POLICY
from adanat_rl.evaluation.evaluator import NAT_PASSES
from adanat_rl.evaluation.judge import (
    ACCURACY,
    CLIP_SCORE,
    FD_A,
    FD_B,
    INCEPTION_SCORE,
    PRECISION,
    RECALL,
    JudgeNames,
)
from adanat_rl.plots.numbers import fixed

_GROUPS = {
    POLICY: "This run",
    CONTROL: "Controls: the policy’s own decisions, given to other images",
    BASE_SCHEDULE: "Where it started",
    BASELINE: "Baselines, searched or learned",
}
_NO_SPREAD = 1e-9  # what equal values may differ by
_SECRET = re.compile(r"(://)[^/@\s]+@")  # user and password in an address


@dataclass(frozen=True)
class Column:
    """A metric of the comparison.

    Args:
        key: of the metric. title: for people. digits: decimals. best: min, max, or None where best says nothing.
    """

    key: str
    title: str
    digits: int
    best: str | None

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return {"min": "↓", "max": "↑"}.get(self.best or "", "")


_COLUMNS = (
    Column(INCEPTION_SCORE, "IS", 2, "max"),
    Column(PRECISION, "Precision", 3, "max"),
    Column(RECALL, "Recall", 3, "max"),
    Column(ACCURACY, "Accuracy", 3, "max"),
    Column(CLIP_SCORE, "CLIPScore", 2, "max"),
    Column(NAT_PASSES, "NAT passes", 1, "min"),
    Column(IMAGES_PER_SECOND, "Images/s", 0, None),
)


def comparison_columns(names: JudgeNames, known: Collection[str]) -> list[Column]:
    """The columns whose metrics are known, distances first."""
    distances = (Column(FD_A, names.short_a, 3, "min"), Column(FD_B, names.short_b, 3, "min"))
    return [column for column in (*distances, *_COLUMNS) if column.key in known]


@dataclass(frozen=True)
class Cell:
    """One number: its text, its spread (empty for none) and whether it is the best of its column."""

    text: str
    spread: str
    best: bool
    title: str


@dataclass(frozen=True)
class Line:
    """One row of the comparison."""

    title: str
    how: str
    kind: str
    horizon: int
    cells: tuple[Cell, ...]


def comparison_groups(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> list[tuple[str, list[Line]]]:
    """Rows of `Comparison.as_dict()` under the titles of their kinds, in their order."""
    best = {column.key: _best(rows, column) for column in columns}
    groups: list[tuple[str, list[Line]]] = []
    for row in rows:
        title = _GROUPS.get(row["kind"], row["kind"])
        if not groups or groups[-1][0] != title:
            groups.append((title, []))
        cells = tuple(_cell(row, column, best[column.key]) for column in columns)
        how = row["how"] if row["kind"] == BASELINE else ""
        groups[-1][1].append(Line(row["title"], how, row["kind"], row["horizon"], cells))
    return groups


def _cell(row: Mapping[str, Any], column: Column, best: float | None) -> Cell:
    value = row["summary"].get(column.key)
    if value is None:  # a judge that was not asked about this row
        return Cell("–", "", best=False, title=column.title)
    spread = fixed(value["sd"], column.digits) if value["sd"] > _NO_SPREAD and column.digits > 0 else ""
    return Cell(fixed(value["mean"], column.digits), spread, value["mean"] == best, column.title)


def _best(rows: Sequence[Mapping[str, Any]], column: Column) -> float | None:
    """The best mean; None if so many rows have it that it distinguishes nobody."""
    if column.best is None or len(rows) < 2:
        return None
    means = [row["summary"][column.key]["mean"] for row in rows if column.key in row["summary"]]
    best = min(means) if column.best == "min" else max(means)
    return float(best) if 2 * means.count(best) <= len(means) else None


@dataclass(frozen=True)
class PanelCell:
    """A rival's number, and what the policy is beside it: better, worse, level, undecided."""

    rival: str
    text: str
    finding: str


@dataclass(frozen=True)
class PanelLine:
    """One value of the panel; one that a reward was paid in is shown and not counted."""

    title: str
    arrow: str
    ours: str
    cells: tuple[PanelCell, ...]
    is_counted: bool


def panel_lines(comparison: Mapping[str, Any]) -> list[PanelLine]:
    """What unlike judges say, a line for each value; none for a comparison without a panel."""
    panel = comparison.get("panel")
    if panel is None:
        return []
    rows = {row["name"]: row for row in comparison["rows"]}
    policy, *_ = comparison["rows"]
    lines = []
    for value in panel["values"]:
        key = value["key"]
        cells = tuple(
            PanelCell(rows[name]["title"], fixed(rows[name]["summary"][key]["mean"]), found["findings"][key])
            for name, found in panel["against"].items()
        )
        not_counted = {name for found in panel["against"].values() for name in found["not_counted"]}
        ours = fixed(policy["summary"][key]["mean"])
        lines.append(PanelLine(value["title"], "↓" if value["minimises"] else "↑", ours, cells, key not in not_counted))
    return lines


@dataclass(frozen=True)
class Trainings:
    """Numbers of one kind of policy over several trainings.

    Args:
        kind: for people. count: trainings, 0 if unknown. is_ours: whether this run is of that kind.
        cells: title, mean, sd and the mean of this run (empty unless it is of that kind) of each metric.
    """

    kind: str
    count: int
    is_ours: bool
    cells: tuple[tuple[str, str, str, str], ...]


def over_trainings(
    trained: Mapping[str, Any], kind: str, policy: Mapping[str, Any] | None, columns: Sequence[Column]
) -> list[Trainings]:
    """Published numbers over training seeds beside those of this run.

    Args:
        trained: of the reference file. kind: of this run's policy. policy: its row in the comparison, None before that.
    """
    result = []
    for name, numbers in trained.items():
        cells = []
        for column in columns:
            value = numbers.get(column.key)
            if not isinstance(value, Mapping):
                continue
            here = policy["summary"][column.key]["mean"] if policy is not None and name == kind else None
            shown = "" if here is None else fixed(here, column.digits)
            cells.append((column.title, fixed(value["mean"], column.digits), fixed(value["sd"], column.digits), shown))
        count = int(numbers.get("training_seeds", 0))
        result.append(Trainings(name.replace("_", " "), count, name == kind, tuple(cells)))
    return result


@dataclass(frozen=True)
class Setting:
    """A setting that is not at its default."""

    key: str
    value: str
    default: str
    help: str


def changed_settings(config: ExperimentConfig) -> list[Setting]:
    """Settings that differ from their defaults, in order; where the run lies and how its NAT was made are none."""
    result = []
    values = config.model_dump(mode="json")
    for row in describe_settings():
        value: Any = values
        for part in row.key.split("."):
            value = value[part]
        text = json.dumps(value, ensure_ascii=False)
        is_of_run = row.key not in {"run_dir", "name"} and not row.key.startswith("pretraining.")
        if text != row.default and is_of_run:
            unit = f" {row.unit}" if row.unit else ""
            result.append(Setting(row.key, without_secrets(text.strip('"')) + unit, row.default.strip('"'), row.help))
    return result


def command_again(argv: Sequence[str]) -> str:
    """The command line behind `sys.argv`, as one types it."""
    if not argv:
        return "adanat-rl train"
    program = Path(argv[0])
    if program.name == "adanat-rl":
        start = ["adanat-rl"]
    elif program.suffix == ".py" and program.parent.name == "adanat_rl":
        start = ["python", "-m", f"adanat_rl.{program.stem}"]
    else:
        start = ["python", argv[0]] if program.suffix == ".py" else [argv[0]]
    return without_secrets(shlex.join([*start, *argv[1:]]))


def without_secrets(text: str) -> str:
    """A text with user and password in addresses replaced by asterisks; reports are passed on."""
    return _SECRET.sub(r"\1***@", text)
