"""The file of a sweep: what its trials share, in what they differ, who chooses and who stops them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError, field_validator, model_validator

from adanat_rl.config.errors import UserError, nearest
from adanat_rl.config.loading import leaf_fields, load_file, one_line, resolve
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.config.section import Section, setting

Value = Any  # of a setting, as YAML holds it
_NOT_SWEPT = {"seed": "use `seeds`", "run_dir": "each trial has its own", "name": "each trial has its own"}


class Parameter(Section):
    """The values of one setting: exactly one of these."""

    grid: tuple[Value, ...] | None = setting(None, "Every value, with every value of the other grids.")
    choice: tuple[Value, ...] | None = setting(None, "One of these values, drawn.")
    uniform: tuple[float, float] | None = setting(None, "A number between two.")
    log_uniform: tuple[float, float] | None = setting(None, "A number between two, uniform in its logarithm.")
    integer: tuple[int, int] | None = setting(None, "A whole number between two, both included.")

    @field_validator("grid", "choice", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        """YAML takes 1e-4, without a point, for a word."""
        return tuple(map(_read_number, value)) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _exactly_one(self) -> Parameter:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            have = ", ".join(given) or "none"
            raise ValueError(f"expected exactly one of {', '.join(type(self).model_fields)}, got {have}")
        values = getattr(self, given[0])
        if not values:
            raise ValueError(f"{given[0]}: [] is not accepted: expected at least one value")
        if given[0] in {"uniform", "log_uniform", "integer"} and not values[0] < values[1]:
            raise ValueError(f"{given[0]}: {list(values)} is not accepted: the first must be less than the second")
        if given[0] == "log_uniform" and values[0] <= 0:
            raise ValueError(f"log_uniform: {list(values)} is not accepted: both must be positive")
        return self

    @property
    def kind(self) -> str:
        """Which of them it is."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def values(self) -> tuple[Value, ...]:
        """What is behind it."""
        return tuple(getattr(self, self.kind))


class SearchMethod(Section):
    """Who chooses the values of parameters that are no grids."""

    method: Literal["grid", "random", "tpe", "cmaes"] = setting(
        "grid",
        "grid: nothing is left to choose; random: drawn beforehand; tpe, cmaes: Optuna's samplers, which learn from "
        "the trials before.",
    )
    num_samples: int = setting(1, "Draws of the parameters that are no grids.", unit="draws", ge=1)
    seed: int = setting(0, "Seed of the draws.", ge=0, lt=2**31)


class Scheduler(Section):
    """Who stops trials early, or lets them take over from better ones."""

    kind: Literal["none", "asha", "pbt"] = setting(
        "none", "asha: stops the worse trials at each rung; pbt: worse trials go on from better ones, changed a little."
    )
    grace_iterations: int = setting(
        50, "Iterations before the first rung (asha), or between changes (pbt).", unit="iterations", ge=1
    )
    reduction_factor: float = setting(3.0, "One in so many goes on at a rung (asha).", gt=1)
    quantile: float = setting(0.25, "Part of the trials that takes over, and that is taken over (pbt).", gt=0, le=0.5)
    resample_probability: float = setting(0.25, "How often a changed parameter is drawn anew (pbt).", ge=0, le=1)
    seed: int = setting(0, "Seed of its draws.", ge=0, lt=2**31)


class SweepResources(Section):
    """What a trial takes beside what its settings say of env runners, reward actors, learners and GPUs."""

    cpus_per_trial: float = setting(1.0, "CPUs of a trial's driver.", unit="CPUs", gt=0)
    max_concurrent: int | None = setting(None, "Trials at once; null: as many as there is room for.", ge=1)


class SweepConfig(Section):
    """A sweep."""

    name: str = setting("sweep", "Name of the sweep and of its folder.", pattern=r"^\w[\w.-]*$")
    title: str = setting("", "What it asks, for its report.")
    preset: str | None = setting(None, "Preset that the trials start from; null: digits.")
    config: str | None = setting(None, "File of settings instead of a preset, relative to the sweep file.")
    settings: dict[str, Value] = setting({}, "Settings of all trials, by dotted key.")
    arms: dict[str, dict[str, Value]] = setting({}, "Named sets of settings, by dotted key; each is tried.")
    parameters: dict[str, Parameter] = setting({}, "Settings that vary, by dotted key.")
    seeds: tuple[int, ...] = setting((0,), "Seeds of each combination; a number means as many, from 0.")
    search: SearchMethod = setting(SearchMethod(), "Who chooses.")
    scheduler: Scheduler = setting(Scheduler(), "Who stops.")
    metric: Literal["fd_a", "fd_b", "precision", "recall"] = setting(
        "fd_a", "Number of the judge that decides, on the fixed evaluation seed."
    )
    direction: Literal["min", "max"] | None = setting(None, "null: min for distances, max for the others.")
    margin: float = setting(
        0.02,
        "Differences of less, as a part of the arms' median, do not matter: an arm wins only where the 95 % interval "
        "of its lead lies beyond it, and is level only where the 90 % interval lies within it.",
        ge=0,
        lt=1,
    )
    resources: SweepResources = setting(SweepResources(), "What a trial takes.")

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_of_seeds(cls, value: Any) -> Any:
        return tuple(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _whole(self) -> SweepConfig:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(
                f"seeds: {list(self.seeds)} is not accepted: expected different numbers from 0, or a count"
            )
        if self.preset is not None and self.config is not None:
            raise ValueError("preset and config: give one of the two")
        drawn = [key for key, parameter in self.parameters.items() if parameter.kind != "grid"]
        method = self.search.method
        if method == "grid" and drawn:
            raise ValueError(
                f"search.method: grid chooses nothing, but {', '.join(drawn)} must be drawn; use random, tpe or cmaes"
            )
        if method != "grid" and not drawn:
            raise ValueError(f"search.method: {method} has nothing to choose: all parameters are grids")
        if method in {"tpe", "cmaes"}:
            fixed = [key for key, parameter in self.parameters.items() if parameter.kind == "grid"]
            if fixed or len(self.arms) > 1 or len(self.seeds) > 1:
                raise ValueError(f"search.method: {method} takes one seed, one arm and no grids; use choice instead")
            words = [key for key in drawn if self.parameters[key].kind == "choice"]
            if method == "cmaes" and words:
                raise ValueError(f"search.method: cmaes chooses numbers alone, but {words[0]} is a choice; use tpe")
        if self.scheduler.kind == "pbt":
            if not drawn:
                raise ValueError("scheduler.kind: pbt needs parameters that it can change: choice, uniform, …")
            if len(drawn) < len(self.parameters) or len(self.arms) > 1:
                raise ValueError("scheduler.kind: pbt cannot go on from a trial of another arm or grid; leave them out")
            if self.resources.max_concurrent is not None:
                raise ValueError(
                    "resources.max_concurrent: with pbt trials take turns, and a limit would keep the later ones out "
                    "until the earlier ones end; leave it out"
                )
            if method in {"tpe", "cmaes"}:
                raise ValueError("scheduler.kind: pbt changes parameters itself; use search.method=random")
        return self

    @property
    def minimises(self) -> bool:
        """Whether less of the metric is better."""
        return (self.direction or ("min" if self.metric.startswith("fd_") else "max")) == "min"


def _read_number(value: Any) -> Any:
    found = isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value)
    return float(value) if found else value


def load_sweep(path: Path) -> SweepConfig:
    """Reads a sweep file; the path of its settings file becomes absolute.

    Raises:
        UserError: naming key, value, what is accepted and the nearest name.
    """
    content = load_file(path)
    content.setdefault("name", path.stem)
    sweep = validate_sweep(content)
    if sweep.config is None:
        return sweep
    return sweep.model_copy(update={"config": str((path.parent / Path(sweep.config).expanduser()).resolve())})


def validate_sweep(content: dict[str, Any]) -> SweepConfig:
    """The sweep of a mapping.

    Raises:
        UserError: for the first problem found.
    """
    try:
        sweep = SweepConfig.model_validate(content)
    except ValidationError as error:
        raise UserError(one_line(error, SweepConfig)) from None
    groups = {"settings": sweep.settings, "parameters": sweep.parameters}
    groups |= {f"arms.{name}": settings for name, settings in sweep.arms.items()}
    known = [key for key, _ in leaf_fields()]
    for group, keys in groups.items():
        for key in keys:
            if key in _NOT_SWEPT and (group != "settings" or key != "name"):
                raise UserError(f"{group}: {key} is not accepted: {_NOT_SWEPT[key]}")
            if key not in known and not key.startswith("reward.args."):
                raise UserError(f"{group}: {key} is no setting{nearest(key, known)}")
    return sweep


def trial_config(
    sweep: SweepConfig, settings: Mapping[str, Value], seed: int, overrides: Sequence[str] = ()
) -> ExperimentConfig:
    """The configuration of one trial.

    Args:
        settings: of the trial, by dotted key; they win over those of the sweep. overrides: win over both.
    """
    file = None if sweep.config is None else Path(sweep.config)
    return resolve(sweep.preset, file, overrides, values={**sweep.settings, **settings, "seed": seed})
