"""Reference numbers: baselines that need a search or a training, kept as decisions so that they are evaluated anew.

A file is JSON: what data set it is for, the command that makes it, and one entry per baseline with its decisions
(`[T][K]` for a schedule, `[C][T][K]` per class) and the numbers that were published with them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from adanat_rl.config.errors import UserError
from adanat_rl.config.json_files import read_json
from adanat_rl.generation.masked.schedules import DECISION_NAMES, check_schedule, load_schedule
from adanat_rl.generation.policies.base import ClassSchedulePolicy, GenerationPolicy, SchedulePolicy

STORED_DIGITS = 5  # of a decision, behind the point
_FORMAT = 1


@dataclass(frozen=True)
class Baseline:
    """One baseline.

    Args:
        name: short name, unique in its file. title: for tables. how: how it was found, one sentence.
        decisions: `[T, K]` or `[C, T, K]`.
        settings: its parameters, if it has a formula.
        numbers: published numbers by metric: mean and sd.
    """

    name: str
    title: str
    how: str
    decisions: np.ndarray
    settings: Mapping[str, float] = field(default_factory=dict)
    numbers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def horizon(self) -> int:
        """T."""
        return int(self.decisions.shape[-2])

    @property
    def policy(self) -> GenerationPolicy:
        """The generation policy that these decisions are."""
        decisions = torch.from_numpy(np.asarray(self.decisions, np.float32))
        return SchedulePolicy(decisions) if decisions.dim() == 2 else ClassSchedulePolicy(decisions)


@dataclass(frozen=True)
class References:
    """All baselines of a data set.

    Args:
        dataset: its name. command: makes the file again. trained: numbers over several training seeds, by run kind.
    """

    dataset: str
    command: str
    baselines: tuple[Baseline, ...]
    trained: Mapping[str, Any] = field(default_factory=dict)


def load_references(path: Path) -> References:
    """Reads a reference file.

    Raises:
        UserError: it is missing, damaged or of another format.
    """
    content = read_json(path, "reference file")
    found = content.get("format") if isinstance(content, dict) else None
    if found != _FORMAT or isinstance(found, bool):
        raise UserError(f"{path} has format {found!r}, expected {_FORMAT}")
    try:
        whole = _CONTENT.validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise UserError(f"reference file {path} cannot be read: {where}: {problem['msg']}") from None
    baselines = tuple(_baseline(path, row) for row in whole.baselines)
    return References(whole.dataset, whole.command, baselines, whole.trained)


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class _Row:
    """A baseline as it stands in a file."""

    name: str
    title: str
    how: str
    decisions: list[Any]
    settings: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Content:
    dataset: str
    command: str
    baselines: list[_Row]
    trained: dict[str, Any] = field(default_factory=dict)


_CONTENT = TypeAdapter(_Content)


def _baseline(path: Path, row: _Row) -> Baseline:
    """A row with its decisions as numbers of the right shape and range."""
    try:
        decisions = np.array(row.decisions, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"reference file {path} cannot be read: decisions of {row.name}: {error}") from None
    if decisions.ndim not in (2, 3):
        raise UserError(f"{path}: decisions of {row.name} have {decisions.ndim} axes, expected [T, K] or [C, T, K]")
    if decisions.shape[-1] != len(DECISION_NAMES):
        raise UserError(f"{path}: decisions of {row.name} have {decisions.shape[-1]} columns, expected 4")
    check_schedule(decisions, f"{path}: decisions of {row.name}")
    return Baseline(row.name, row.title, row.how, decisions.astype(np.float32), row.settings, row.numbers)


def load_baselines(path: Path) -> tuple[Baseline, ...]:
    """The baselines of a reference file, or the single one that a schedule file is.

    Raises:
        UserError: it is neither of them, missing or damaged.
    """
    content = read_json(path, "schedule file")
    if isinstance(content, dict) and "baselines" in content:
        return load_references(path).baselines
    schedule, label = load_schedule(path), _label(path)
    name, title = f"schedule_{label}", f"schedule {label}, T = {len(schedule)}"
    return (Baseline(name, title, f"as given in {path}", schedule.astype(np.float32)),)


def join_baselines(baselines: Sequence[Baseline]) -> tuple[Baseline, ...]:
    """All of them; one whose name or title came before gets a number."""
    joined: list[Baseline] = []
    for row in baselines:
        name = _unused(row.name, {other.name for other in joined}, "{}_{}")
        title = _unused(row.title, {other.title for other in joined}, "{} ({})")
        joined.append(replace(row, name=name, title=title))
    return tuple(joined)


def _unused(text: str, taken: Container[str], pattern: str) -> str:
    numbered = (pattern.format(text, number) if number > 1 else text for number in itertools.count(1))
    return next(candidate for candidate in numbered if candidate not in taken)


def _label(path: Path) -> str:
    """What tells a file from others: a search names its own `schedule.json`, so its folder has to speak for it."""
    parent = path.absolute().parent.name
    return parent if path.stem == "schedule" and parent else path.stem


def dump_references(references: References) -> str:
    """The file's text."""
    rows = [
        {**asdict(row), "decisions": np.asarray(row.decisions).round(STORED_DIGITS).tolist()}
        for row in references.baselines
    ]
    content = {
        "format": _FORMAT,
        "dataset": references.dataset,
        "command": references.command,
        "baselines": rows,
        "trained": references.trained,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
