"""From preset, file and dotted overrides to one resolved configuration, with one-line errors."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from adanat_rl.config.errors import UserError, nearest
from adanat_rl.config.problems import hint_for_key, one_line, shown
from adanat_rl.config.schema import DEFAULT_PRESET, ExperimentConfig
from adanat_rl.config.secrets import hide_secrets
from adanat_rl.config.typed_settings import (
    accepts_text,
    leaves,
    section_of,
    typed_settings,
    typed_value,
)
from adanat_rl.config.yaml_reader import dump_yaml, parse_yaml, read_yaml

__all__ = [
    "DEFAULT_PRESET",
    "SettingRow",
    "describe_settings",
    "dump",
    "json_schema",
    "leaf_fields",
    "load_file",
    "load_preset",
    "load_saved",
    "one_line",
    "preset_names",
    "resolve",
    "settings_markdown",
    "validate",
]
_PRESET = "preset"


def preset_names() -> list[str]:
    """Names of the presets that ship with the package."""
    folder = resources.files("adanat_rl.config") / "presets"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_preset(name: str, what: str = "preset") -> dict[str, Any]:
    """Settings of a preset.

    Args:
        what: what named it, for messages.

    Raises:
        UserError: no such preset.
    """
    names = preset_names()
    if name not in names:
        raise UserError(f"{what}: {name!r} is no preset; accepted: {', '.join(names)}{nearest(str(name), names)}")
    text = (resources.files("adanat_rl.config") / "presets" / f"{name}.yaml").read_text("utf-8")
    where = f"preset {name}"
    return typed_settings(parse_yaml(text, where), ExperimentConfig, where)


def load_file(path: Path, what: str = "--config") -> dict[str, Any]:
    """Settings of a YAML file, nested, whether their keys were nested or dotted there.

    Args:
        what: what the file is to whoever named it, for messages.

    Raises:
        UserError: the file cannot be read or holds no mapping.
    """
    return typed_settings(read_yaml(path, what), ExperimentConfig, str(path))


def load_saved(path: Path) -> ExperimentConfig:
    """The configuration that a run keeps, as `dump` wrote it; no preset adds to it.

    Raises:
        UserError: the file cannot be read, or holds no configuration.
    """
    settings = load_file(path, "run_dir")
    if not settings:
        raise UserError(f"run_dir: {path} is damaged: it holds no settings")
    return validate(settings, path)


def resolve(
    preset: str | None = None,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] = MappingProxyType({}),
    **top_level: Any,
) -> ExperimentConfig:
    """The configuration of a preset, a file over it, and `key.sub=value` overrides on top.

    Which preset it is, the overrides say (`preset=mnist`), or else `values`, `preset`, the file (`preset: mnist`);
    digits if none of them does.

    Args:
        file: YAML; what it does not say, the preset does.
        overrides: dotted keys with YAML values; later ones win.
        values: by dotted key, as Python objects; overrides win over them.
        top_level: values of top-level keys, None meaning "not given"; they win over the overrides.

    Raises:
        UserError: naming key, value, what is accepted and the nearest name.
    """
    changes = [(_PRESET, preset)] if preset is not None else []
    changes += [(key, copy.deepcopy(value)) for key, value in values.items()]
    changes += [_read_override(override) for override in overrides]
    changes += [(key, value) for key, value in top_level.items() if value is not None]
    of_file = {} if file is None else load_file(file)
    chosen = of_file.get(_PRESET, DEFAULT_PRESET)
    for key, value in changes:
        chosen = value if key == _PRESET else chosen
    settings = load_preset(chosen, "--preset" if chosen == preset else "preset")
    _merge(settings, of_file, ExperimentConfig)
    untyped = {**copy.deepcopy(settings), _PRESET: chosen}  # what stands in files alone
    for key, value in changes:
        _put(settings, key, value)
    try:
        return validate({**settings, _PRESET: chosen})
    except UserError as error:
        if file is not None and str(error) == _problem(untyped):
            raise UserError(f"{file}: {error}") from None
        raise


def validate(settings: dict[str, Any], file: Path | None = None) -> ExperimentConfig:
    """The configuration of a mapping.

    Args:
        file: where it stands, for messages.

    Raises:
        UserError: for the first problem found.
    """
    try:
        return ExperimentConfig.model_validate(settings)
    except ValidationError as error:
        raise UserError(one_line(error) if file is None else f"{file}: {one_line(error)}") from None


def _problem(settings: dict[str, Any]) -> str | None:
    """What `validate` says of a mapping; None if all is well."""
    try:
        validate(settings)
    except UserError as error:
        return str(error)
    return None


def dump(config: ExperimentConfig, *, ascii_only: bool = False) -> str:
    """The resolved configuration as YAML, every key present; `***` for a password in `tracking.uri`.

    Args:
        ascii_only: whether other letters are escaped.
    """
    settings = config.model_dump(mode="json")
    if config.tracking.uri is not None:
        settings["tracking"]["uri"] = hide_secrets(config.tracking.uri)
    return dump_yaml(settings, ascii_only=ascii_only)


def json_schema(*, ascii_only: bool = False) -> str:
    """JSON schema of the configuration file, for editors.

    Args:
        ascii_only: whether other letters are escaped.
    """
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **ExperimentConfig.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=ascii_only)


def leaf_fields(model: type[BaseModel] = ExperimentConfig) -> Iterable[tuple[str, FieldInfo]]:
    """Dotted key and field of every setting, in order."""
    return leaves(model)


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


def _read_override(override: str) -> tuple[str, Any]:
    """Key and value of `KEY=VALUE`; text is taken as it is typed, everything else as YAML."""
    key, separator, text = override.partition("=")
    key = key.strip()
    if not separator or not key or key.startswith("-"):
        name = key.lstrip("-+")
        known = f"; type {name}={text or 'VALUE'}" if name in dict(leaf_fields()) else hint_for_key(override)
        raise UserError(f"{override!r} is no override; expected KEY=VALUE, such as ppo.lr=1e-4{known}")
    return key, _override_value(key, text.strip())


def _override_value(key: str, text: str) -> Any:
    annotation = _annotation(key)
    is_text = accepts_text(annotation)
    if is_text and text not in ("", "null", "~") and text[0] not in "'\"":
        return text
    try:
        node = parse_yaml(text, shown(f"{key}={text}"))
    except UserError:
        if is_text or annotation is Any:
            return text
        raise
    return typed_value(node, annotation, key, key)


def _annotation(key: str) -> Any:
    """The type of a dotted key; Any for one that the schema does not know."""
    model: type[BaseModel] = ExperimentConfig
    *parents, last = key.split(".")
    for parent in parents:
        field = model.model_fields.get(parent)
        section = section_of(field) if field is not None else None
        if section is None:
            return Any
        model = section
    found = model.model_fields.get(last)
    return found.annotation if found is not None else Any


def _put(settings: dict[str, Any], key: str, value: Any) -> None:
    """Sets what a dotted key names; the keys of a group are set one by one, the others of the group stay."""
    model: type[BaseModel] | None = ExperimentConfig
    *parents, last = key.split(".")
    for parent in parents:
        inner = settings.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise UserError(f"{key}: {parent} is a value ({inner!r}), not a group of settings")
        settings, model = inner, _group(model, parent)
    _merge(settings, {last: value}, model)


def _merge(settings: dict[str, Any], layer: Mapping[str, Any], model: type[BaseModel] | None) -> None:
    """Puts a layer over the settings: groups are merged key by key, values and mappings of names replaced."""
    for key, value in layer.items():
        group = _group(model, key)
        if group is not None and isinstance(value, dict) and isinstance(settings.get(key), dict):
            _merge(settings[key], value, group)
        else:
            settings[key] = value


def _group(model: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    field = model.model_fields.get(key) if model is not None else None
    return section_of(field) if field is not None else None
