"""An exported policy: `policy.safetensors` and `policy.json`, enough to draw images without Ray; safe to share.

policy.json says what the actor is, which generator it was trained for (with the hashes of its weights) and how actions
become decisions. Everything that does not fit is refused with its name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save
from torch import nn

from adanat_rl.config.errors import UserError
from adanat_rl.config.files import file_sha256, sync_folder, write_atomically
from adanat_rl.config.json_files import read_json
from adanat_rl.config.paths import resolve_path
from adanat_rl.config.schema import DecisionsConfig, GeneratorConfig
from adanat_rl.generation.build import base_schedule, inline_base_schedule
from adanat_rl.generation.policies.build import PolicySpec
from adanat_rl.generation.weight_header import lay_out, read_header
from adanat_rl.generation.weights import fit_state, read_tensors
from adanat_rl.version import __version__

POLICY_FORMAT = 1
WEIGHTS_FILE = "policy.safetensors"
DESCRIPTION_FILE = "policy.json"
_GENERATOR_FILES = ("nat", "tokenizer")
_SPEC = TypeAdapter(PolicySpec)


@dataclass(frozen=True)
class ExportedPolicy:
    """A policy and what it was trained for.

    Args:
        actor: its network, in eval mode. spec: its numbers.
        generator, decisions: sections of the configuration. trained: facts about the training, for people.
        generator_hashes: SHA-256 of the generator's weight files, by setting.
    """

    actor: nn.Module
    spec: PolicySpec
    generator: GeneratorConfig
    decisions: DecisionsConfig
    trained: Mapping[str, Any]
    generator_hashes: Mapping[str, str]


def hash_generator(config: GeneratorConfig) -> dict[str, str]:
    """SHA-256 of the weight files that a generator is made of."""
    return {key: file_sha256(resolve_path(getattr(config, key), f"generator.{key}")) for key in _GENERATOR_FILES}


def save_policy(folder: Path, policy: ExportedPolicy) -> None:
    """Writes the two files aside and swaps the folder."""
    weights = save({name: value.detach().cpu().contiguous() for name, value in policy.actor.state_dict().items()})
    description = {
        "format": POLICY_FORMAT,
        "adanat_rl": __version__,
        "policy": policy.spec.as_dict(),
        "generator": policy.generator.model_dump(mode="json"),
        "generator_sha256": dict(policy.generator_hashes),
        "decisions": inline_base_schedule(policy.decisions, policy.spec.horizon).model_dump(mode="json"),
        "weights_sha256": _sha256(weights),
        "trained": dict(policy.trained),
    }
    aside = folder.with_name(f".{folder.name}.new")
    old = folder.with_name(f".{folder.name}.old")
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    write_atomically(aside / WEIGHTS_FILE, weights, durable=True)
    write_atomically(
        aside / DESCRIPTION_FILE, json.dumps(description, indent=2, ensure_ascii=False) + "\n", durable=True
    )
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def load_policy(folder: Path) -> ExportedPolicy:
    """Reads an exported policy.

    Raises:
        UserError: the folder is no policy, of a later format, damaged, or its weights do not fit its description.
    """
    description = _read_description(folder)
    file, weights_file = folder / DESCRIPTION_FILE, folder / WEIGHTS_FILE
    try:
        spec = _SPEC.validate_json(json.dumps(description["policy"]), strict=True)
        generator = GeneratorConfig.model_validate(description["generator"])
        decisions = DecisionsConfig.model_validate(description["decisions"])
        hashes = TypeAdapter(dict[str, str]).validate_python(description["generator_sha256"])
        trained = TypeAdapter(dict[str, Any]).validate_python(description.get("trained", {}))
    except ValidationError as error:
        raise UserError(f"{file} holds settings that this version does not know: {_first_problem(error)}") from None
    _check_consistency(file, spec, generator, decisions, hashes)
    base_schedule(decisions.base, spec.horizon)
    lay_out(spec.build_actor, weights_file, f"{spec.kind} policy", read_header(weights_file).tensors)
    if file_sha256(weights_file) != description["weights_sha256"]:
        raise UserError(f"{weights_file} does not match the hash in {DESCRIPTION_FILE}: one of them is damaged")
    actor = spec.build_actor()
    fit_state(actor, read_tensors(weights_file)[0], weights_file)
    return ExportedPolicy(actor.eval(), spec, generator, decisions, trained, hashes)


def _first_problem(error: ValidationError) -> str:
    """The first thing that is wrong with a description, in one short line."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(map(str, problem["loc"]))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where + ': ' if where else ''}{problem['msg']}, found {str(problem['input'])[:80]!r}{more}"


def _check_consistency(
    file: Path, spec: PolicySpec, generator: GeneratorConfig, decisions: DecisionsConfig, hashes: Mapping[str, str]
) -> None:
    """The parts of a description must speak of one policy."""
    problems = (
        (spec.horizon, generator.horizon, "policy.horizon", "generator.horizon"),
        (spec.num_actions, len(decisions.learned), "policy.num_actions", "the number of decisions.learned"),
        (sorted(hashes), sorted(_GENERATOR_FILES), "generator_sha256", "the generator's files"),
    )
    for found, expected, name, other in problems:
        if found != expected:
            raise UserError(f"{file}: {name} is {found}, but {other} is {expected}")


def check_generator_fits(policy: ExportedPolicy, generator: GeneratorConfig) -> None:
    """Refuses a generator whose weights are not those that the policy was trained for.

    Raises:
        UserError: naming the file.
    """
    for key, digest in hash_generator(generator).items():
        if digest != policy.generator_hashes[key]:
            raise UserError(
                f"generator.{key}: {getattr(generator, key)} is not the file that this policy was trained with "
                f"(SHA-256 {digest[:12]}… instead of {policy.generator_hashes[key][:12]}…)"
            )


def _read_description(folder: Path) -> dict[str, Any]:
    file = folder / DESCRIPTION_FILE
    if folder.is_file():
        raise UserError(f"{folder} is a file; give the folder with {DESCRIPTION_FILE} in it")
    if not os.path.lexists(file):
        raise UserError(f"{folder} is no exported policy: it has no {DESCRIPTION_FILE}")
    description = read_json(file)
    version = description.get("format") if isinstance(description, dict) else None
    if version != POLICY_FORMAT:
        raise UserError(f"{file} has format {version!r}; this version of adanat-rl reads format {POLICY_FORMAT}")
    missing = {"policy", "generator", "generator_sha256", "decisions", "weights_sha256"} - description.keys()
    if missing:
        raise UserError(f"{file} lacks {', '.join(sorted(missing))}")
    return dict(description)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
