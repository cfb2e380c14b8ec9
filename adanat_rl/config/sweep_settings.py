"""The file of a sweep: what its trials share, in what they differ, who chooses and who stops them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import leaf_fields, one_line, resolve
from adanat_rl.config.problems import hint_for_key, shown
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.config.section import MAX_FLOAT, Section, check_name, setting
from adanat_rl.config.typed_settings import named_plain, section_of, typed_settings, typed_value
from adanat_rl.config.yaml_reader import Entries, Items, Node, read_yaml

Value = Any  # of a setting, as YAML holds it
Bound = Annotated[float, Field(ge=-MAX_FLOAT, le=MAX_FLOAT)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
WholeBound = Annotated[int, Field(ge=-(2**53), le=2**53)]
_MOST_SEEDS, _MOST_TRIALS = 1_000, 10_000
_NOT_SWEPT = {"seed": "use `seeds`", "run_dir": "each trial has its own", "name": "each trial has its own"}


class Parameter(Section):
    """The values of one setting: exactly one of these."""

    grid: tuple[Value, ...] | None = setting(None, "Every value, with every value of the other grids.")
    choice: tuple[Value, ...] | None = setting(None, "One of these values, drawn.")
    uniform: tuple[Bound, Bound] | None = setting(None, "A number between two.")
    log_uniform: tuple[Bound, Bound] | None = setting(None, "A number between two, uniform in its logarithm.")
    integer: tuple[WholeBound, WholeBound] | None = setting(None, "A whole number between two, both included.")

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
    num_samples: int = setting(1, "Draws of the parameters that are no grids.", unit="draws", ge=1, le=10_000)
    seed: int = setting(0, "Seed of the draws.", ge=0, lt=2**31)


class Scheduler(Section):
    """Who stops trials early, or lets them take over from better ones."""

    kind: Literal["none", "asha", "pbt"] = setting(
        "none", "asha: stops the worse trials at each rung; pbt: worse trials go on from better ones, changed a little."
    )
    grace_iterations: int = setting(
        50,
        "Iterations before the first rung (asha), or between changes (pbt).",
        unit="iterations",
        ge=1,
        le=1_000_000_000,
    )
    reduction_factor: float = setting(3.0, "One in so many goes on at a rung (asha).", gt=1, le=1000)
    quantile: float = setting(0.25, "Part of the trials that takes over, and that is taken over (pbt).", gt=0, le=0.5)
    resample_probability: float = setting(0.25, "How often a changed parameter is drawn anew (pbt).", ge=0, le=1)
    seed: int = setting(0, "Seed of its draws.", ge=0, lt=2**31)


class SweepResources(Section):
    """What a trial takes beside what its settings say of env runners, reward actors, learners and GPUs."""

    cpus_per_trial: float = setting(1.0, "CPUs of a trial's driver.", unit="CPUs", gt=0, le=4096)
    max_concurrent: int | None = setting(None, "Trials at once; null: as many as there is room for.", ge=1, le=10_000)


class SweepConfig(Section):
    """A sweep."""

    _free_text: ClassVar[frozenset[str]] = frozenset({"title"})
    name: str = setting("sweep", "Name of the sweep and of its folder.", pattern=r"^\w[\w.-]*$")
    title: str = setting("", "What it asks, for its report.")
    preset: str | None = setting(None, "Preset that the trials start from; null: that of the file, or digits.")
    config: str | None = setting(None, "File of settings over the preset, relative to the sweep file.")
    settings: dict[str, Value] = setting({}, "Settings of all trials, by dotted key.")
    arms: dict[str, dict[str, Value]] = setting({}, "Named sets of settings, by dotted key; each is tried.")
    parameters: dict[str, Parameter] = setting({}, "Settings that vary, by dotted key.")
    seeds: tuple[Seed, ...] = setting((0,), "Seeds of each combination; a number means as many, from 0.")
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

    @field_validator("name")
    @classmethod
    def _name_of_a_folder(cls, name: str) -> str:
        return check_name(name, most_bytes=100)

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_of_seeds(cls, value: Any) -> Any:
        count = int(value) if isinstance(value, float) and value.is_integer() else value
        if not isinstance(count, int) or isinstance(count, bool):
            return value
        if count > _MOST_SEEDS:
            raise ValueError(f"seeds: {shown(count)} is not accepted: {_MOST_SEEDS:,} are the most")
        return tuple(range(count))

    @model_validator(mode="after")
    def _whole(self) -> SweepConfig:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(
                f"seeds: {list(self.seeds)} is not accepted: expected different numbers from 0, or a count"
            )
        if len(self.seeds) > _MOST_SEEDS:
            raise ValueError(f"seeds: {len(self.seeds):,} of them are not accepted: {_MOST_SEEDS:,} are the most")
        drawn = [key for key, parameter in self.parameters.items() if parameter.kind != "grid"]
        grids = math.prod(len(one.values) for one in self.parameters.values() if one.kind == "grid")
        draws = self.search.num_samples if drawn else 1
        if (trials := grids * draws * max(1, len(self.arms)) * len(self.seeds)) > _MOST_TRIALS:
            raise ValueError(
                f"parameters: {max(1, len(self.arms)):,} arms × {grids:,} points of the grids × {draws:,} draws × "
                f"{len(self.seeds):,} seeds are {trials:,} trials; {_MOST_TRIALS:,} are the most"
            )
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


def load_sweep(path: Path) -> SweepConfig:
    """Reads a sweep file; the path of its settings file becomes absolute.

    Raises:
        UserError: naming key, value, what is accepted and the nearest name.
    """
    content = read_sweep(path, "FILE.yaml")
    content.setdefault("name", path.stem)
    sweep = validate_sweep(content)
    if sweep.config is None:
        return sweep
    return sweep.model_copy(update={"config": str((path.parent / Path(sweep.config).expanduser()).resolve())})


def read_sweep(path: Path, what: str) -> dict[str, Any]:
    """The mapping of a sweep file, its values of the types that the settings they belong to ask for.

    Args:
        what: what the file is to whoever named it, for messages.

    Raises:
        UserError: the file cannot be read, is no YAML that is accepted, or holds no mapping.
    """
    node = read_yaml(path, what)
    content = typed_settings(node, SweepConfig, str(path))
    for group, written in _groups(node):
        found = _by_dotted_key(written, ExperimentConfig, "", str(path))
        values = {key: _typed_values(value, annotation, key) for key, (_, value, annotation) in found.items()}
        if len(group) == 1:
            content[group[0]] = values
        else:
            content[group[0]][group[1]] = values
    return content


def _groups(node: Node) -> Iterator[tuple[tuple[str, ...], Entries]]:
    """Where a sweep file holds settings by dotted key: `settings`, `parameters` and each arm."""
    for name, _, value in node.entries if isinstance(node, Entries) else ():
        if isinstance(value, Entries) and name in {"settings", "parameters"}:
            yield (name,), value
        elif isinstance(value, Entries) and name == "arms":
            yield from ((("arms", arm), entries) for arm, _, entries in value.entries if isinstance(entries, Entries))


def _by_dotted_key(
    node: Entries, model: type[BaseModel], prefix: str, where: str
) -> dict[str, tuple[int, Node, FieldInfo | None]]:
    """Line, value and field of each setting, by its whole key, whether it was written nested or dotted."""
    found: dict[str, tuple[int, Node, FieldInfo | None]] = {}
    for key, line, value in node.entries:
        field, section, rest = _descend(model, key)
        inside = {prefix + key: (line, value, field)}
        if section is not None and rest == "" and isinstance(value, Entries):
            inside = _by_dotted_key(value, section, f"{prefix}{key}.", where)
        for name, entry in inside.items():
            if name in found:
                raise UserError(f"{where}, line {entry[0]}: {name} stands here and in line {found[name][0]}")
            found[name] = entry
    return found


def _descend(model: type[BaseModel], key: str) -> tuple[FieldInfo | None, type[BaseModel] | None, str]:
    """Field that a dotted key of a group leads to, the group that it is, and what is left over of an unknown key."""
    head, _, rest = key.partition(".")
    field = model.model_fields.get(head)
    section = section_of(field) if field is not None else None
    if section is None or not rest:
        return (field, section, "") if not rest else (None, None, rest)
    return _descend(section, rest)


def _typed_values(node: Node, field: FieldInfo | None, key: str) -> Any:
    """A value of a setting, or the parameter whose `grid` and `choice` are lists of such values."""
    annotation = Any if field is None else field.annotation
    if not isinstance(node, Entries):
        return typed_value(node, annotation, key)
    return {
        name: [typed_value(item, annotation, key) for item in value.items]
        if name in {"grid", "choice"} and isinstance(value, Items)
        else named_plain(value, f"{key}.{name}")
        for name, _, value in node.entries
    }


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
                raise UserError(f"{group}: {key} is no setting{hint_for_key(key)}")
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
