"""From preset or file plus dotted overrides to one resolved configuration, with one-line errors."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from adanat_rl.config.errors import UserError, nearest
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.config.secrets import hide_secrets

DEFAULT_PRESET = "digits"


def preset_names() -> list[str]:
    """Names of the presets that ship with the package."""
    folder = resources.files("adanat_rl.config") / "presets"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_preset(name: str) -> dict[str, Any]:
    """Settings of a preset.

    Raises:
        UserError: no such preset.
    """
    names = preset_names()
    if name not in names:
        raise UserError(f"--preset: {name!r} is no preset; accepted: {', '.join(names)}{nearest(name, names)}")
    return _mapping((resources.files("adanat_rl.config") / "presets" / f"{name}.yaml").read_text(), f"preset {name}")


def load_file(path: Path) -> dict[str, Any]:
    """Settings of a YAML file.

    Raises:
        UserError: the file cannot be read or holds no mapping.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise UserError(f"--config: {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"--config: {path} is no text file, expected YAML") from None
    return _mapping(text, str(path))


def resolve(
    preset: str | None = None,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] = MappingProxyType({}),
    **top_level: Any,
) -> ExperimentConfig:
    """The configuration of preset or file, with `key.sub=value` overrides on top.

    Args:
        overrides: dotted keys with YAML values; later ones win.
        values: by dotted key, as Python objects; overrides win over them.
        top_level: values of top-level keys, None meaning "not given"; they win over the overrides.

    Raises:
        UserError: naming key, value, what is accepted and the nearest name.
    """
    if preset is not None and file is not None:
        raise UserError("--preset and --config: give one of the two")
    settings = load_file(file) if file is not None else load_preset(preset or DEFAULT_PRESET)
    for key, value in values.items():
        _put(settings, key, copy.deepcopy(value))
    for override in overrides:
        _apply(settings, override)
    settings.update({key: value for key, value in top_level.items() if value is not None})
    return validate(settings)


def validate(settings: dict[str, Any]) -> ExperimentConfig:
    """The configuration of a mapping.

    Raises:
        UserError: for the first problem found.
    """
    try:
        return ExperimentConfig.model_validate(settings)
    except ValidationError as error:
        raise UserError(one_line(error)) from None


def dump(config: ExperimentConfig) -> str:
    """The resolved configuration as YAML, every key present; `***` for a password in `tracking.uri`."""
    settings = config.model_dump(mode="json")
    if config.tracking.uri is not None:
        settings["tracking"]["uri"] = hide_secrets(config.tracking.uri)
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def json_schema() -> str:
    """JSON schema of the configuration file, for editors."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **ExperimentConfig.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False)


def leaf_fields(model: type[BaseModel] = ExperimentConfig, prefix: str = "") -> Iterable[tuple[str, FieldInfo]]:
    """Dotted key and field of every setting, in order."""
    for name, field in model.model_fields.items():
        section = _section(field)
        if section is None:
            yield prefix + name, field
        else:
            yield from leaf_fields(section, f"{prefix}{name}.")


@dataclass(frozen=True)
class SettingRow:
    """One setting as people see it: dotted key, default as YAML, help line, unit, source."""

    key: str
    default: str
    help: str
    unit: str
    source: str


def describe_settings(sections: Sequence[str] = ()) -> list[SettingRow]:
    """All settings in order, or those of some top-level sections and keys."""
    rows = []
    for key, field in leaf_fields():
        if sections and key.split(".")[0] not in sections:
            continue
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        default = json.dumps(field.default, ensure_ascii=False)
        rows.append(
            SettingRow(key, default, field.description or "", str(extra.get("unit", "")), str(extra.get("source", "")))
        )
    return rows


def settings_markdown() -> str:
    """The configuration reference as Markdown: one table per section."""
    lines = ["# Configuration reference", "", "Made by `adanat-rl schema --markdown`; do not edit.", ""]
    lines += ["Source: paper (AdaNAT, ECCV 2024), adagen (its follow-up), measured (on the embedded data), design.", ""]
    section = None
    for row in describe_settings():
        head = row.key.rpartition(".")[0] or "top level"
        if head != section:
            lines += ["", f"## {head}", "", "| key | default | unit | source | |", "|---|---|---|---|---|"]
            section = head
        text = row.help.replace("|", "\\|")
        lines.append(f"| `{row.key}` | `{row.default}` | {row.unit} | {row.source} | {text} |")
    return "\n".join(lines) + "\n"


def _mapping(text: str, where: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where} is no YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{where} holds a {type(content).__name__}, expected a mapping of settings")
    return copy.deepcopy(content)


def _apply(settings: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key or key.startswith("-"):
        keys = [name for name, _ in leaf_fields()]
        raise UserError(f"{override!r} is no override; expected KEY=VALUE, such as ppo.lr=1e-4{nearest(key, keys)}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    _put(settings, key, value)


def _put(settings: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        inner = settings.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise UserError(f"{key}: {parent} is a value ({inner!r}), not a group of settings")
        settings = inner
    settings[last] = value


def _section(field: FieldInfo) -> type[BaseModel] | None:
    if get_origin(field.annotation) is tuple:  # a list of groups is one setting
        return None
    kinds = [field.annotation, *get_args(field.annotation)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def one_line(error: ValidationError, root: type[BaseModel] = ExperimentConfig) -> str:
    """The first problem of a mapping that is no `root`: key, value, what is accepted, nearest name."""
    problem = error.errors(include_url=False)[0]
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    value = problem.get("input")
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key{_nearest_key(location, root)}"
    if problem["type"] == "value_error":  # our own validators name key, value and what is accepted
        message = str(problem["ctx"]["error"])
        if location and message.startswith(f"{location[-1]}:"):
            location = location[:-1]
        return ".".join([*location, message])
    if isinstance(value, float | int | str | bool | list) or value is None:
        shown = json.dumps(value, default=str)
        accepted = re.findall(r"'([^']*)'", problem["msg"]) if problem["type"] == "literal_error" else []
        return f"{key}: {shown} is not accepted: {_readable(problem)}{nearest(str(value), accepted)}"
    return f"{key}: {_readable(problem)}"


def _readable(problem: Any) -> str:
    message = problem["msg"]
    message = message.removeprefix("Input ").removeprefix("should be ")
    return f"expected {message[0].lower()}{message[1:]}"


def _nearest_key(location: Sequence[str], root: type[BaseModel]) -> str:
    model: type[BaseModel] | None = root
    for part in location[:-1]:
        model = _section(model.model_fields[part]) if model and part in model.model_fields else None
    siblings = list(model.model_fields) if model else []
    hint = nearest(location[-1], siblings)
    if hint:
        return hint
    elsewhere = [key for key, _ in leaf_fields(root) if key.rsplit(".", 1)[-1] == location[-1]]
    if elsewhere:
        return f" (did you mean {elsewhere[0]!r}?)"
    group = ".".join(location[:-1]) or "the top level"
    return f"; {group} takes {', '.join(siblings)}" if siblings else ""
