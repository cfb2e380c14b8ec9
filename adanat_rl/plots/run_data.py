"""What a run folder holds, read for a report: whatever is not there yet is None or empty, what is damaged is noted."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from adanat_rl.config.comparison_file import read_comparison
from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import load_saved
from adanat_rl.config.metric_keys import (
    EVAL,
    ITERATION,
    decision_key,
)
from adanat_rl.config.metric_rows import read_metric_rows
from adanat_rl.config.paths import resolve_path
from adanat_rl.config.plain_files import require_plain_files
from adanat_rl.config.run_paths import RunPaths
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.config.text_files import read_text
from adanat_rl.evaluation.judge import FD_A, JudgeNames, judge_names
from adanat_rl.evaluation.probe_design import find_probe
from adanat_rl.evaluation.reference import References, load_references
from adanat_rl.generation.build import base_schedule
from adanat_rl.generation.decisions import effective_entries
from adanat_rl.generation.masked.schedules import DECISION_NAMES, masked_token_decisions
from adanat_rl.plots.decisions import DecisionSummary, summarise_decisions

T = TypeVar("T")
Row = Mapping[str, Any]
# Axes of the arrays in samples/decisions.npz and samples/gallery.npz.
_DECIDED = {"decisions": 3, "context": 1}
_PICTURED = {"images": 4, "steps": 5, "decisions": 3, "context": 1, "seeds": 1}


@dataclass(frozen=True)
class Gallery:
    """Images with how they came about.

    Args:
        images: uint8 `[B, H, W, C]`. steps: uint8 `[B, T, H, W, C]` after each step. decisions: `[B, T, K]`.
        context, seeds: `[B]`.
    """

    images: np.ndarray
    steps: np.ndarray
    decisions: np.ndarray
    context: np.ndarray
    seeds: np.ndarray


@dataclass(frozen=True)
class RunData:
    """A run as far as it has come.

    Args:
        path: its folder. config, config_text: its settings, and the file they come from.
        environment: revision, packages, hardware, command. rows: of metrics.jsonl.
        comparison: `Comparison.as_dict()`, None before the end. compared_at: iteration of the policy in it, if known.
        decisions: what the policy decides, None without any evaluation. passes: NAT passes `[N]` of the images of the
            comparison's first seed, None before the end or where an older version has not kept them.
        gallery: None before the end. samples: PNG grid by iteration. references: None if there are none.
        probe: content of probe.json, None if none was made.
        has_policy: whether a policy has been exported. notes: what could not be read, one line each.
    """

    path: Path
    config: ExperimentConfig
    config_text: str
    environment: Mapping[str, Any]
    rows: tuple[Row, ...]
    comparison: Mapping[str, Any] | None
    compared_at: int | None
    decisions: DecisionSummary | None
    passes: np.ndarray | None
    gallery: Gallery | None
    samples: Mapping[int, Path]
    references: References | None
    probe: Mapping[str, Any] | None
    has_policy: bool
    notes: tuple[str, ...]

    @property
    def iteration(self) -> int:
        """The last iteration with a row; 0 without any."""
        return int(self.rows[-1][ITERATION]) if self.rows else 0

    @property
    def judge_names(self) -> JudgeNames:
        """What the distances are called."""
        return judge_names(self.config.evaluation)

    @property
    def evaluations(self) -> list[Row]:
        """Rows with an evaluation."""
        return [row for row in self.rows if EVAL + FD_A in row]

    @property
    def is_finished(self) -> bool:
        """Whether all iterations are done and the comparison is of the last one."""
        return (
            self.comparison is not None
            and self.iteration >= self.config.training.num_iterations
            and not self.is_outdated
        )

    @property
    def is_outdated(self) -> bool:
        """Whether training has gone on since the comparison."""
        return self._is_of_earlier and not self.is_of_best

    @property
    def is_of_best(self) -> bool:
        """Whether the comparison is of the best evaluation, which was not the last one."""
        return self._is_of_earlier and self.config.checkpoints.final == "best"

    @property
    def _is_of_earlier(self) -> bool:
        return self.comparison is not None and self.compared_at is not None and self.compared_at < self.iteration

    def total(self, key: str) -> float:
        """The last value of a running total; 0 if it has not begun."""
        return next((float(row[key]) for row in reversed(self.rows) if key in row), 0.0)

    def series(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Iterations and values of a metric, for the rows that have it."""
        rows = [row for row in self.rows if key in row]
        return np.array([row[ITERATION] for row in rows], float), np.array([row[key] for row in rows], float)


def read_run(folder: RunPaths) -> RunData:
    """Everything that a report can show.

    Raises:
        UserError: the folder is no run folder, its configuration is of another version, or something in it is a pipe or
            a device.
    """
    require_plain_files(folder.path)
    config_text, config = _read_config(folder)
    notes: list[str] = []
    metrics = read_metric_rows(folder.metrics_file)
    rows = metrics.rows
    notes += [f"metrics.jsonl: {problem}; it is left out." for problem in metrics.problems]
    notes += [f"metrics.jsonl: {problem}; it is shown as it stands." for problem in metrics.altered]
    comparison = _attempt(folder.evaluation_file, read_comparison, notes)
    description = _attempt(folder.path / "policy" / "policy.json", _read_json, notes)
    decided = _attempt(folder.samples / "decisions.npz", partial(_read_arrays, axes=_DECIDED), notes)
    pictured = _attempt(folder.samples / "gallery.npz", partial(_read_arrays, axes=_PICTURED), notes)
    return RunData(
        path=folder.path,
        config=config,
        config_text=config_text,
        environment=_attempt(folder.environment_file, _read_environment, notes) or {},
        rows=tuple(rows),
        comparison=comparison,
        compared_at=comparison.get(ITERATION) if comparison else None,
        decisions=_summarise(rows, config, decided),
        passes=_attempt(folder.samples / "decisions.npz", _read_passes, notes) if decided else None,
        gallery=Gallery(**pictured) if pictured else None,
        samples=_find_samples(folder.samples, rows, notes),
        references=_read_references(config, notes),
        probe=_attempt(find_probe(folder.path), _read_probe, notes),
        has_policy=description is not None,
        notes=tuple(notes),
    )


def _read_config(folder: RunPaths) -> tuple[str, ExperimentConfig]:
    if not folder.config_file.exists():
        raise UserError(f"{folder.path} is no run folder: it has no config.yaml")
    return read_text(folder.config_file, "run_dir"), load_saved(folder.config_file)


def _attempt(path: Path, read: Callable[[Path], T], notes: list[str]) -> T | None:
    """The content of a file that may be missing; a damaged one is noted."""
    if not path.exists():
        return None
    try:
        return read(path)
    except (OSError, ValueError, KeyError, EOFError, RecursionError, zipfile.BadZipFile) as error:
        notes.append(f"{path.name} cannot be read ({type(error).__name__}); what it holds is left out.")
        return None


def _read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected an object")
    return content


def _read_environment(path: Path) -> dict[str, Any]:
    content = _read_json(path)
    command, packages = content.get("command") or [], content.get("packages", {})
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        raise ValueError(f"{path}: command is no list of words")
    if not isinstance(packages, dict):
        raise ValueError(f"{path}: packages is no object")
    return content


def _read_probe(path: Path) -> dict[str, Any]:
    content = _read_json(path)
    missing = {"sites", "rewards", "sentences", "horizon", "start", "reward"} - content.keys()
    if missing:
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}")
    return content


def _read_arrays(path: Path, axes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Arrays of a `.npz` by name, with as many axes as they must have, and of as many images each."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in axes}
    if any(arrays[name].ndim != count for name, count in axes.items()) or len({*map(len, arrays.values())}) != 1:
        raise ValueError(f"{path} holds arrays of other shapes")
    return arrays


def _read_passes(path: Path) -> np.ndarray | None:
    with np.load(path, allow_pickle=False) as file:
        if "nat_passes" not in file:
            return None
        passes: np.ndarray = file["nat_passes"]
    if passes.ndim != 1 or passes.dtype.kind not in "iu" or not len(passes) or passes.min() < 0:
        raise ValueError(f"{path} holds passes of another kind")
    return passes


def _read_references(config: ExperimentConfig, notes: list[str]) -> References | None:
    if config.evaluation.reference is None:
        return None
    try:
        return load_references(resolve_path(config.evaluation.reference, "evaluation.reference"))
    except UserError as error:
        notes.append(f"Reference numbers are left out: {error}.")
        return None


def _find_samples(folder: Path, rows: list[dict[str, Any]], notes: list[str]) -> dict[int, Path]:
    """Grids of the evaluations that count; a run that went back to a checkpoint may have left later ones."""
    last = rows[-1][ITERATION] if rows else -1
    found = {}
    for path in sorted(folder.glob("iteration_*.png")):
        match = re.fullmatch(r"iteration_(\d{6,})\.png", path.name)
        if match is not None and int(match[1]) <= last and _attempt(path, _is_picture, notes):
            found[int(match[1])] = path
    return found


def _is_picture(path: Path) -> bool:
    """Whether a picture can be decoded.

    Raises:
        ValueError: it cannot.
    """
    try:
        with Image.open(path) as file:
            file.load()
    except Exception as error:  # Pillow raises of many kinds
        raise ValueError(f"{path}: {error}") from None
    return True


def _summarise(
    rows: list[dict[str, Any]], config: ExperimentConfig, decided: dict[str, np.ndarray] | None
) -> DecisionSummary | None:
    """Decisions of the final evaluation, or else mean and spread of the last one in training."""
    evaluated = [row for row in rows if EVAL + FD_A in row]
    names, horizon = _decision_names(evaluated), config.generator.horizon
    known = {row.name: row for row in masked_token_decisions()}
    effective = np.ones((horizon, len(names)), bool)
    for column, name in enumerate(names):
        if name in known:
            effective[:, column] = effective_entries([known[name]], horizon)[:, 0]
    base = _base_of(config, evaluated, names)
    if decided is not None:
        return summarise_decisions(names, decided["decisions"], decided["context"], effective, base)
    if not evaluated:
        return None
    mean, sd = (_logged(evaluated[-1], names, horizon, which) for which in ("mean", "sd"))
    return DecisionSummary(names, mean, sd, effective, base) if mean is not None and sd is not None else None


def _base_of(config: ExperimentConfig, evaluated: list[dict[str, Any]], names: tuple[str, ...]) -> np.ndarray | None:
    """The base schedule as its settings say it; of another generator, or without its file, what the start decided.

    The start decides within the floors of the decision space, so that a guidance of 0 is not quite 0 there.
    """
    if names == DECISION_NAMES:
        try:
            return base_schedule(config.decisions.base, config.generator.horizon)
        except UserError:
            pass
    is_start = bool(evaluated) and evaluated[0][ITERATION] == 0
    return _logged(evaluated[0], names, config.generator.horizon, "mean") if is_start else None


def _decision_names(evaluated: list[dict[str, Any]]) -> tuple[str, ...]:
    """Names in the order of the generator, as logged."""
    found = (re.fullmatch(r"decisions/(.+)/step_0_mean", key) for key in (evaluated[0] if evaluated else {}))
    return tuple(match.group(1) for match in found if match) or DECISION_NAMES


def _logged(row: Row, names: tuple[str, ...], horizon: int, which: str) -> np.ndarray | None:
    """Logged mean or sd `[T, K]`, None if the row has none."""
    keys = [[decision_key(step, name, which) for name in names] for step in range(horizon)]
    if not all(key in row for line in keys for key in line):
        return None
    return np.array([[row[key] for key in line] for line in keys], float)
