"""What is wrong with a mapping of settings, in one line: key, value, what is accepted, and the name that was meant."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from adanat_rl.config.errors import nearest
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.config.typed_settings import leaves, section_of

_SHOWN = 80  # characters of a value
# What other libraries call a setting, in their spelling without dashes.
SYNONYMS = {
    "learning_rate": "ppo.lr",
    "lr": "ppo.lr",
    "clip_range": "ppo.clip",
    "clip_param": "ppo.clip",
    "ent_coef": "ppo.entropy_coefficient",
    "entropy_coeff": "ppo.entropy_coefficient",
    "vf_coef": "ppo.value_coefficient",
    "vf_loss_coeff": "ppo.value_coefficient",
    "n_epochs": "ppo.num_epochs",
    "max_grad_norm": "ppo.grad_clip",
    "gradient_clip_val": "ppo.grad_clip",
    "num_epoch": "ppo.num_epochs",
    "iterations": "training.num_iterations",
    "max_iterations": "training.num_iterations",
    "num_envs": "resources.num_env_runners",
    "n_envs": "resources.num_env_runners",
    "num_rollout_workers": "resources.num_env_runners",
    "random_seed": "seed",
    "experiment_name": "tracking.experiment",
    "run_name": "name",
    "exp_name": "name",
    "hidden_dim": "policy.hidden_size",
}


def one_line(error: ValidationError, root: type[BaseModel] = ExperimentConfig) -> str:
    """The first problem of a mapping that is no `root`: key, value, what is accepted, nearest name."""
    problem = error.errors(include_url=False)[0]
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    value = problem.get("input")
    if problem["type"] == "extra_forbidden":
        return _short_lines(f"{key}: unknown key{_nearest_key(location, root)}")
    if problem["type"] == "value_error":  # our own validators name key, value and what is accepted
        message = str(problem["ctx"]["error"])
        if location and message.startswith(f"{location[-1]}:"):
            location = location[:-1]
        return _short_lines(".".join([*location, message]))
    if isinstance(value, float | int | str | bool | list) or value is None:
        accepted = re.findall(r"'([^']*)'", problem["msg"]) if problem["type"] == "literal_error" else []
        hint = nearest(str(value)[:_SHOWN], accepted)
        return _short_lines(f"{key}: {shown(value)} is not accepted: {_readable(problem)}{hint}")
    return _short_lines(f"{key}: {_readable(problem)}")


def shown(value: Any) -> str:
    """A value as JSON, shortened to one readable length."""
    try:
        text = json.dumps(value, default=str)
    except ValueError:  # an integer with more digits than Python prints
        text = f"a number of {value.bit_length()} bits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"


def hint_for_key(name: str, root: type[BaseModel] = ExperimentConfig) -> str:
    """What was probably meant by a key that is none: known names of other libraries, the end of a longer key, or else
    the most similar key. Empty if nothing is close, or if the name is a key.
    """
    keys = [key for key, _ in leaves(root)]
    name = name.strip().lstrip("-+~").partition("=")[0].rstrip(":").strip()
    if name in keys:
        return ""
    found = keys_meant(name, keys)
    if found:
        return _did_you_mean(name, found)
    return nearest(name, keys) or nearest(name, [key.rpartition(".")[2] for key in keys])


def keys_meant(name: str, keys: Sequence[str]) -> list[str]:
    """The keys that a name in other spelling, of another library, or without its beginning can mean; the best first."""
    plain = re.sub(r"__|[/:]", ".", name.strip().lower()).replace("-", "_").strip(".")
    if plain in keys:
        return [plain]
    found = [SYNONYMS[plain]] if SYNONYMS.get(plain) in keys else []
    return found + [key for key in keys if key.endswith(f".{plain}") and key not in found]


def _did_you_mean(name: str, found: Sequence[str]) -> str:
    """A hint with the keys; with one alone if that is what everybody calls so."""
    meant = found[:1] if SYNONYMS.get(name.lower().replace("-", "_")) == found[0] else found[:3]
    return f" (did you mean {' or '.join(map(repr, meant))}?)"


def _readable(problem: Any) -> str:
    message = problem["msg"]
    if problem["type"] in {"model_type", "dict_type", "model_attributes_type"}:
        message = "a group of settings (a dictionary)"
    if problem["type"] == "string_pattern_mismatch" and problem["ctx"]["pattern"].startswith(r"^\w["):
        message = "letters, digits, _, - and dots, such as a folder can be called anywhere"
    message = message.removeprefix("Input ").removeprefix("should be ")
    return f"expected {message[0].lower()}{message[1:]}"


def _short_lines(message: str) -> str:
    """One line, whatever stood in a value."""
    return " ".join(message.split("\n")) if message.isprintable() else " ".join(repr(message)[1:-1].split("\\n"))


def _nearest_key(location: Sequence[str], root: type[BaseModel]) -> str:
    model: type[BaseModel] | None = root
    for part in location[:-1]:
        field = model.model_fields.get(part) if model else None
        model = section_of(field) if field is not None else None
    siblings = list(model.model_fields) if model else []
    unknown = location[-1]
    found = keys_meant(unknown, [key for key, _ in leaves(root)])
    inside = [key for key in found if key.rpartition(".")[0] == ".".join(location[:-1])]
    if inside:  # another name for a key of this very group
        return f" (did you mean {inside[0].rpartition('.')[2]!r}?)"
    if found and (len(location) == 1 or not nearest(unknown, siblings)):
        return _did_you_mean(unknown, found)
    hint = nearest(unknown, siblings)
    if hint:
        return hint
    group = ".".join(location[:-1]) or "the top level"
    return f"; {group} takes {', '.join(siblings)}" if siblings else ""
