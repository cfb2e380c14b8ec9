"""Tables of a sweep: arms with mean and spread over seeds, trials one by one, and `summary.csv`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adanat_rl.config.metric_keys import IMAGES_PER_SECOND
from adanat_rl.evaluation.evaluator import NAT_PASSES
from adanat_rl.plots.ablation.data import OWN_REWARD, SHUFFLED, Sweep, Trial, setting_text
from adanat_rl.plots.numbers import fixed
from adanat_rl.plots.tables import Cell, Column, comparison_columns

if TYPE_CHECKING:
    import pandas as pd

TRAIN_SECONDS = "train_seconds"
_MOST_TRIALS = 8
_NOT_IN_KEYS = re.compile(r"[^\w.\- ]")  # characters that MLflow refuses, and the slash
MEASURED = (IMAGES_PER_SECOND, TRAIN_SECONDS)  # columns that differ between two runs of one seed


@dataclass(frozen=True)
class ArmLine:
    """One row of the table of arms: its name, a remark, and a cell for each column."""

    title: str
    remark: str
    cells: tuple[Cell, ...]


def arm_columns(sweep: Sweep) -> list[Column]:
    """Own reward, what the judges measured, the shuffle control behind the distance that it is of."""
    known = {key for trial in sweep.finished for key in trial.final} - {IMAGES_PER_SECOND}
    columns = [Column(OWN_REWARD, "Own reward", 3, None), *comparison_columns(sweep.judge_names, known)]
    if SHUFFLED in known:
        place = [column.key for column in columns].index(NAT_PASSES) if NAT_PASSES in known else len(columns)
        columns.insert(place, Column(SHUFFLED, f"{sweep.judge_names.short_a} shuffled", 3, None))
    return columns


def arm_lines(sweep: Sweep, columns: Sequence[Column]) -> list[ArmLine]:
    """Arms with a finished trial, best first; the best mean of a column is marked.

    Of continuous parameters, where no two trials are alike, the best trials instead.
    """
    if sweep.continuous:
        return [_trial_line(sweep, trial, columns) for trial in sweep.ranked[:_MOST_TRIALS]]
    arms = sweep.shown_arms
    best = {column.key: _best([sweep.values(arm, column.key) for arm in arms], column.best) for column in columns}
    lines = []
    for arm in arms:
        done, all_of_it = len(sweep.of(arm)), sum(trial.arm == arm for trial in sweep.trials)
        cells = tuple(_cell(sweep.values(arm, column.key), column, best[column.key]) for column in columns)
        counted = f"{done} of {all_of_it}" if done < all_of_it else str(done)
        lines.append(ArmLine(arm, f"{counted} seed{'' if counted == '1' else 's'}", cells))
    return lines


def reference_lines(sweep: Sweep, columns: Sequence[Column]) -> list[ArmLine]:
    """Base schedule and baselines, mean and spread over evaluation seeds."""
    lines = []
    for row in sweep.references:
        cells = []
        for column in columns:
            value = row["summary"].get(column.key)
            if value is None:
                cells.append(Cell("–", "", best=False, title=column.title))
            else:
                sd = fixed(value["sd"], column.digits) if value["sd"] > 0 else ""
                cells.append(Cell(fixed(value["mean"], column.digits), sd, best=False, title=column.title))
        steps = f"T = {row['horizon']}"
        lines.append(ArmLine(row["title"], "" if steps in row["title"] else steps, tuple(cells)))
    return lines


@dataclass(frozen=True)
class TrialLine:
    """A trial: what it was, how it stands, its numbers as text."""

    name: str
    arm: str
    seed: int
    status: str
    reason: str
    cells: tuple[Cell, ...]
    hacking: str


def trial_lines(sweep: Sweep, columns: Sequence[Column]) -> list[TrialLine]:
    """Every trial, in its order."""
    lines = []
    for trial in sweep.trials:
        numbers = [(trial.number(column.key) if trial.final else None, column) for column in columns]
        cells = tuple(
            Cell("–" if value is None else fixed(value, column.digits), "", best=False, title=column.title)
            for value, column in numbers
        )
        seen = f"{trial.hacking.iteration:,}" if trial.hacking is not None else ""
        lines.append(TrialLine(trial.name, trial.arm, trial.seed, trial.status, why(trial), cells, seen))
    return lines


def why(trial: Trial) -> str:
    """Why a trial has no final numbers; empty if it has."""
    if trial.reason:
        return trial.reason
    if trial.status == "finished" and not trial.final:
        return "its final evaluation is missing or cannot be read"
    at = f" at iteration {trial.run.iteration:,}" if trial.run is not None and trial.run.rows else ""
    return {
        "stopped": f"by the scheduler{at}",
        "running": at.strip(),
        "interrupted": f"{at.strip()}; it goes on with the next start".removeprefix("; "),
    }.get(trial.status, "")


def summary_frame(sweep: Sweep) -> pd.DataFrame:
    """One row a trial: what it was, its final numbers, hacking, cost; what is measured in seconds comes last."""
    import pandas as pd

    keys = list(dict.fromkeys(key for trial in sweep.trials for key in trial.final))
    settings = list(dict.fromkeys(key for trial in sweep.trials for key in trial.settings))
    rows = []
    for trial in sweep.trials:
        row: dict[str, Any] = {"name": trial.name, "arm": trial.arm, "seed": trial.seed}
        row |= {key: _plain(trial.settings[key]) if key in trial.settings else None for key in settings}
        row |= {"status": trial.status, "reason": trial.reason, OWN_REWARD: trial.own_reward}
        row |= {key: trial.final.get(key) for key in keys if key not in MEASURED}
        row["hacking_iteration"] = trial.hacking.iteration if trial.hacking is not None else None
        row["train_nat_passes"] = trial.train_nat_passes
        row |= {key: trial.final.get(key) for key in keys if key in MEASURED}
        row[TRAIN_SECONDS] = trial.train_seconds
        rows.append(row)
    frame = pd.DataFrame(rows)
    if "hacking_iteration" in frame:
        frame["hacking_iteration"] = frame["hacking_iteration"].astype("Int64")
    return frame


def arm_metrics(sweep: Sweep) -> dict[str, float]:
    """Means of the final numbers by `arm/metric`, for tracking; what is measured in seconds is left out."""
    keys = [OWN_REWARD, *dict.fromkeys(key for trial in sweep.finished for key in trial.final)]
    found: dict[str, float] = {}
    for arm in sweep.shown_arms:
        for key in keys:
            values = sweep.values(arm, key)
            if len(values) and key not in MEASURED:
                found[f"{_NOT_IN_KEYS.sub('_', arm)}/{key}"] = float(values.mean())
    return found


def _trial_line(sweep: Sweep, trial: Trial, columns: Sequence[Column]) -> ArmLine:
    values = [trial.number(column.key) for column in columns]
    cells = [
        _cell(np.array([] if value is None else [value], float), column, None)
        for value, column in zip(values, columns, strict=True)
    ]
    return ArmLine(trial.name, setting_text(trial, sweep.varied), tuple(cells))


def _cell(values: np.ndarray, column: Column, best: float | None) -> Cell:
    if not len(values):
        return Cell("–", "", best=False, title=column.title)
    mean = float(values.mean())
    sd = fixed(float(values.std(ddof=1)), column.digits) if len(values) > 1 else ""
    is_steady = len(values) > 1 and np.ptp(values) < 1e-9
    return Cell(fixed(mean, column.digits), "" if is_steady else sd, best=mean == best, title=column.title)


def _best(values: Sequence[np.ndarray], which: str | None) -> float | None:
    """The best mean; None if there is nothing to choose, or most share it."""
    means = [float(found.mean()) for found in values if len(found)]
    if which is None or len(means) < 2:
        return None
    best = min(means) if which == "min" else max(means)
    return best if 2 * means.count(best) <= len(means) else None


def _plain(value: Any) -> Any:
    """A setting as a cell: numbers and words as they are, the rest as JSON."""
    return value if isinstance(value, (str, int, float, bool)) or value is None else json.dumps(value)
