"""What a sweep folder holds, read for its report: trials with their final numbers, as far as they have come."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adanat_rl.config.errors import UserError
from adanat_rl.config.metric_keys import EVAL, NAT_PASSES_TOTAL, TRAIN_SECONDS_TOTAL
from adanat_rl.config.plain_files import require_plain_files
from adanat_rl.config.run_paths import RunPaths
from adanat_rl.config.yaml_reader import parse_yaml, plain
from adanat_rl.evaluation.comparison import BASE_SCHEDULE, BASELINE
from adanat_rl.evaluation.controls import Control
from adanat_rl.evaluation.hacking import Hacking, rewards_between
from adanat_rl.evaluation.judge import FD_A, JudgeNames
from adanat_rl.evaluation.verdicts import MARGIN
from adanat_rl.plots.judges import hacking_of
from adanat_rl.plots.run_data import RunData, read_run

OWN_REWARD = "own_reward"  # mean over the iterations since the last evaluation but one
SHUFFLED = "shuffled_fd_a"  # FD A with the policy's decisions dealt to any other image
FINISHED = "finished"
_CONTINUOUS = 5  # a parameter with more different numbers is taken for a continuous one


@dataclass(frozen=True)
class Trial:
    """One training of a sweep.

    Args:
        settings: what sets it apart, by dotted key. status: as trials.json has it; reason: of a failure.
        run: its folder, None before it has one. final: numbers of the policy's row in its comparison and of its
            shuffle control, empty before the end. hacking: in its metrics, None if there was none.
    """

    name: str
    arm: str
    seed: int
    settings: Mapping[str, Any]
    status: str
    reason: str | None
    run: RunData | None
    final: Mapping[str, float]
    hacking: Hacking | None

    @property
    def is_finished(self) -> bool:
        """Whether it has run to its end and has final numbers."""
        return self.status == FINISHED and bool(self.final)

    @property
    def own_reward(self) -> float | None:
        """Mean reward since the last evaluation but one."""
        rewards = rewards_between(self.run.rows)[1] if self.run is not None else np.zeros(0)
        return float(rewards[-1]) if len(rewards) and np.isfinite(rewards[-1]) else None

    @property
    def train_seconds(self) -> float | None:
        """Training time, evaluations left out."""
        return self._total(TRAIN_SECONDS_TOTAL)

    @property
    def train_nat_passes(self) -> float | None:
        """NAT passes spent in training."""
        return self._total(NAT_PASSES_TOTAL)

    def number(self, key: str) -> float | None:
        """A final number, or the own reward; None if it is not known."""
        return self.own_reward if key == OWN_REWARD else self.final.get(key)

    def latest(self, metric: str) -> float | None:
        """A judge's number: the final one, or that of the last evaluation in training."""
        if metric in self.final:
            return self.final[metric]
        rows = [row for row in self.run.evaluations if EVAL + metric in row] if self.run is not None else []
        return float(rows[-1][EVAL + metric]) if rows else None

    def _total(self, key: str) -> float | None:
        has = self.run is not None and any(key in row for row in self.run.rows)
        return self.run.total(key) if self.run is not None and has else None


@dataclass(frozen=True)
class Sweep:
    """A sweep as far as it has come.

    Args:
        path: its folder. title: what it asks, may be empty. arms: in their order. parameters: dotted keys that vary.
        metric: of the judge, decides. minimises: whether less of it is better. trials: by number.
        sweep_text: the resolved sweep file, empty if there is none. notes: what could not be read, one line each.
    """

    path: Path
    name: str
    title: str
    arms: tuple[str, ...]
    parameters: tuple[str, ...]
    metric: str
    minimises: bool
    trials: tuple[Trial, ...]
    sweep_text: str
    notes: tuple[str, ...]
    margin: float = MARGIN  # part of the arms' median, from the sweep's file

    @property
    def finished(self) -> list[Trial]:
        """Trials with final numbers."""
        return [trial for trial in self.trials if trial.is_finished]

    def of(self, arm: str) -> list[Trial]:
        """The finished trials of an arm."""
        return [trial for trial in self.finished if trial.arm == arm]

    def values(self, arm: str, key: str) -> np.ndarray:
        """A number of the finished trials of an arm that have it, `[S]`."""
        found = [trial.number(key) for trial in self.of(arm)]
        return np.array([value for value in found if value is not None], float)

    @property
    def shown_arms(self) -> list[str]:
        """Arms with a finished trial, best first by the mean of the metric."""
        known = [arm for arm in self.arms if len(self.values(arm, self.metric))]
        sign = 1 if self.minimises else -1
        return sorted(known, key=lambda arm: sign * float(self.values(arm, self.metric).mean()))

    @property
    def ranked(self) -> list[Trial]:
        """Finished trials with the metric, best first."""
        sign = 1 if self.minimises else -1
        known = [trial for trial in self.finished if self.metric in trial.final]
        return sorted(known, key=lambda trial: (sign * trial.final[self.metric], trial.name))

    @property
    def judge_names(self) -> JudgeNames:
        """What the distances are called."""
        return next((trial.run.judge_names for trial in self.trials if trial.run is not None), JudgeNames())

    @property
    def metric_title(self) -> str:
        """The metric for people."""
        return metric_title(self.metric, self.judge_names)

    @property
    def references(self) -> list[Mapping[str, Any]]:
        """Base schedule and baselines of the comparisons, each once: a row for each name and number of steps."""
        found: dict[tuple[str, int], Mapping[str, Any]] = {}
        for trial in self.finished:
            assert trial.run is not None  # the final numbers are from there
            for row in (trial.run.comparison or {}).get("rows", ()):
                if row["kind"] in {BASE_SCHEDULE, BASELINE}:
                    found.setdefault((row["name"], row["horizon"]), row)
        return sorted(found.values(), key=lambda row: row["kind"] != BASE_SCHEDULE)

    @property
    def varied(self) -> list[str]:
        """Parameters with more than one value over the trials."""
        return [key for key in self.parameters if len(_distinct(self.trials, key)) > 1]

    @property
    def continuous(self) -> list[str]:
        """Parameters with so many different numbers that no two trials need share one."""
        return [
            key
            for key in self.varied
            if len(_distinct(self.trials, key)) > _CONTINUOUS and all(map(_is_number, _distinct(self.trials, key)))
        ]


def metric_title(metric: str, names: JudgeNames) -> str:
    """A metric of the judge for people."""
    return {FD_A: names.short_a, "fd_b": names.short_b}.get(metric, metric.replace("_", " "))


def middle_trial(trials: Sequence[Trial], key: Callable[[Trial], float]) -> Trial:
    """The trial in the middle by some number; of an even count the lower one of the two."""
    order = sorted(trials, key=lambda trial: (key(trial), trial.name))
    return order[(len(order) - 1) // 2]


def setting_text(trial: Trial, keys: Sequence[str]) -> str:
    """The settings of a trial in a line."""
    return ", ".join(f"{key} = {_short(trial.settings[key])}" for key in keys if key in trial.settings)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def read_sweep(path: Path) -> Sweep:
    """Everything that the report can show.

    Raises:
        UserError: the folder is no sweep folder, or something in it is a pipe or a device.
    """
    require_plain_files(path)
    file = path / "trials.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        entries = content["trials"]
        notes: list[str] = []
        text = _read_text(path / "sweep.yaml")
        return Sweep(
            path=path,
            name=str(content["name"]),
            title=str(content.get("title") or ""),
            arms=tuple(content["arms"]),
            parameters=tuple(content["parameters"]),
            metric=str(content["metric"]).removeprefix(EVAL),
            minimises=not str(content["direction"]).startswith("max"),
            trials=tuple(_read_trial(path, entry, notes) for entry in entries),
            sweep_text=text,
            notes=tuple(notes),
            margin=_margin(text),
        )
    except FileNotFoundError:
        raise UserError(f"{path} is no sweep: it has no trials.json") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be read: {type(error).__name__}: {error}") from None


def _read_trial(path: Path, entry: Mapping[str, Any], notes: list[str]) -> Trial:
    folder = RunPaths(path / entry["folder"])
    run = None
    if folder.config_file.exists():
        try:
            run = read_run(folder)
        except UserError as error:
            notes.append(f"{entry['name']} is left out: {error}.")
        else:
            notes.extend(f"{entry['name']}: {note}" for note in run.notes)
    return Trial(
        name=entry["name"],
        arm=entry["arm"],
        seed=int(entry["seed"]),
        settings=entry["settings"],
        status=entry["status"],
        reason=entry.get("reason"),
        run=run,
        final=_final_numbers(run.comparison) if run is not None and run.comparison is not None else {},
        hacking=hacking_of(run) if run is not None else None,
    )


def _final_numbers(comparison: Mapping[str, Any]) -> dict[str, float]:
    numbers = {name: float(value["mean"]) for name, value in comparison["rows"][0]["summary"].items()}
    for row in comparison["rows"]:
        if row["name"] == Control.SHUFFLED:
            numbers[SHUFFLED] = float(row["summary"][FD_A]["mean"])
    return numbers


def _margin(text: str) -> float:
    """The margin of a sweep file; the usual one in files that are older than it."""
    content = plain(parse_yaml(text, "sweep.yaml")) if text else None
    return float(content.get("margin", MARGIN)) if isinstance(content, dict) else MARGIN


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _distinct(trials: Sequence[Trial], key: str) -> list[Any]:
    values = [trial.settings[key] for trial in trials if key in trial.settings]
    return list({json.dumps(value): value for value in values}.values())


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
