"""The trials of a sweep that are known beforehand: every arm with every value and seed, in a fixed order."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.config.sweep_settings import Parameter, SweepConfig, trial_config
from adanat_rl.generation.seeding import Purpose, philox

ALL = "all"  # the arm of a sweep without arms and grids


@dataclass(frozen=True)
class TrialSpec:
    """One trial.

    Args:
        number: its place in the sweep, from 0. arm: what it is compared as. seed: of its run.
        settings: by dotted key, in what it differs from the others.
    """

    number: int
    arm: str
    seed: int
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Unique in the sweep; the name of its folder."""
        return f"{self.number:03d}-{slug(self.arm)}-seed{self.seed}"

    def config(self, sweep: SweepConfig, overrides: tuple[str, ...]) -> ExperimentConfig:
        """Its configuration."""
        config = trial_config(sweep, self.settings, self.seed, overrides)
        return config.model_copy(update={"name": f"{sweep.name}-{self.name}"})


def plan_trials(sweep: SweepConfig) -> list[TrialSpec]:
    """All trials, unless Optuna chooses them one by one: then none.

    Arms first, then grids, draws and seeds, so that the first trials of a sweep are one seed of everything.
    """
    if sweep.search.method in {"tpe", "cmaes"}:
        return []
    arms: Mapping[str, Mapping[str, Any]] = sweep.arms or {"": {}}
    grids = {key: parameter.values for key, parameter in sweep.parameters.items() if parameter.kind == "grid"}
    points = [dict(zip(grids, values, strict=True)) for values in itertools.product(*grids.values())]
    combinations = [
        (arm_name(arm, point), {**settings, **point, **draw})
        for draw in _draws(sweep)
        for arm, settings in arms.items()
        for point in points
    ]
    return [
        TrialSpec(number, arm, seed, settings)
        for number, (seed, (arm, settings)) in enumerate(itertools.product(sweep.seeds, combinations))
    ]


def arm_name(arm: str, point: Mapping[str, Any]) -> str:
    """What a trial is compared as: its arm and its place in the grids."""
    words = [arm] if arm else []
    words += [f"{key.rpartition('.')[2]}={_shown(value)}" for key, value in point.items()]
    return ", ".join(words) or ALL


def slug(text: str) -> str:
    """A text as part of a file name."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-").encode()[:60].decode(errors="ignore")


def draw_value(parameter: Parameter, generator: np.random.Generator) -> Any:
    """A value of a parameter that is no grid."""
    if parameter.kind == "choice":
        return parameter.values[int(generator.integers(len(parameter.values)))]
    low, high = parameter.values
    if parameter.kind == "integer":
        return int(generator.integers(low, high + 1))
    if parameter.kind == "log_uniform":
        return math.exp(generator.uniform(math.log(low), math.log(high)))
    return float(generator.uniform(low, high))


def _draws(sweep: SweepConfig) -> Iterator[dict[str, Any]]:
    drawn = {key: parameter for key, parameter in sweep.parameters.items() if parameter.kind != "grid"}
    for number in range(sweep.search.num_samples if drawn else 1):
        generator = philox(Purpose.SWEEP, sweep.search.seed, number)
        yield {key: draw_value(parameter, generator) for key, parameter in drawn.items()}


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
