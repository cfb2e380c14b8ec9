"""Whether settings and contents are those of a run that is gone on with; what differs, in words.

A checkpoint holds the settings that decide what is learned, under canonical names, and the contents of what the run is
made of. What a person accepts as changed is recorded in `changes.jsonl`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adanat_rl.config.files import append_line, json_line, read_json_lines
from adanat_rl.config.loading import leaf_fields
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.experiment.contents import CONTENT_KEYS

# Settings that may change between a start and a resume: they touch neither what is learned nor what numbers mean.
_FREE_SECTIONS = frozenset(
    ("name", "run_dir", "preset", "checkpoints", "resources", "tracking", "search", "pretraining")
)
_FREE_KEYS = frozenset(
    (
        "training.num_iterations",
        "ppo.features",
        "data.max_damaged",
        "data.num_workers",
        "data.prefetch",
        "data.index_folder",
        "decisions.base.file",  # its numbers are taken in as decisions.base.values
        "text.cache",
        "evaluation.interval_iterations",
        "evaluation.num_final_images",
        "evaluation.num_seeds",
        "evaluation.batch_size",
        "evaluation.on_env_runners",
        "evaluation.keep_pieces",
        "evaluation.metric",
        "evaluation.early_stop_patience",
        "evaluation.early_stop_min_delta",
        "evaluation.hacking_window",
        "evaluation.hacking_tolerance",
        "evaluation.num_grid_contexts",
    )
)
# A setting that got another name since a checkpoint was made: new name → the name that is hashed.
_CANONICAL: Mapping[str, str] = {}


@dataclass(frozen=True)
class Identity:
    """What makes a run the same run.

    Args:
        settings: that decide what is learned, by canonical dotted name. contents: SHA-256 in hex, by setting.
    """

    settings: Mapping[str, Any]
    contents: Mapping[str, str]

    @property
    def settings_sha256(self) -> str:
        """Of the settings, in hex."""
        return hashlib.sha256(json.dumps(dict(self.settings), sort_keys=True).encode()).hexdigest()

    def state(self) -> dict[str, Any]:
        """JSON-ready, for a checkpoint."""
        return {
            "settings": dict(self.settings),
            "settings_sha256": self.settings_sha256,
            "contents": dict(self.contents),
        }


@dataclass(frozen=True)
class Difference:
    """A setting or a content that differs.

    Args:
        key: dotted. ours, theirs: values now and then; hashes of contents. is_content: whether it is a content.
    """

    key: str
    ours: Any
    theirs: Any
    is_content: bool

    def __str__(self) -> str:
        if self.is_content:
            return f"{self.key} has other content than before (SHA-256 {self.theirs[:12]}… then, {self.ours[:12]}… now)"
        return f"{self.key} is {self.theirs!r} there and {self.ours!r} here"


def flat_settings(config: ExperimentConfig) -> dict[str, Any]:
    """Every setting by its dotted key, JSON-ready."""
    return _flatten(config.model_dump(mode="json"))


def identity_of(config: ExperimentConfig, contents: Mapping[str, str]) -> Identity:
    """The identity of a configuration with what it is made of."""
    settings = {
        _CANONICAL.get(key, key): value
        for key, value in flat_settings(config).items()
        if not (key in _FREE_KEYS or key in CONTENT_KEYS or key.split(".")[0] in _FREE_SECTIONS)
    }
    return Identity(settings, dict(contents))


def differences(ours: Identity, theirs: Identity, free: Collection[str] = ()) -> list[Difference]:
    """What differs, settings first.

    Args:
        theirs: may be of an older version, without the newest settings: those count as their defaults were.
        free: keys that may differ.
    """
    found = []
    for key in [*ours.settings, *(key for key in theirs.settings if key not in ours.settings)]:
        here, there = _value(ours.settings, key), _value(theirs.settings, key)
        if here != there and key not in free:
            found.append(Difference(key, here, there, is_content=False))
    both = sorted(ours.contents.keys() & theirs.contents.keys())
    changed = [key for key in both if ours.contents[key] != theirs.contents[key] and key not in free]
    return found + [Difference(key, ours.contents[key], theirs.contents[key], is_content=True) for key in changed]


def with_accepted(identity: Identity, changes: Path) -> Identity:
    """The identity as it became by the changes that were accepted later."""
    settings, contents = dict(identity.settings), dict(identity.contents)
    for row in read_json_lines(changes):
        target = contents if row.get("is_content") else settings
        if isinstance(row.get("key"), str) and "after" in row:
            target[row["key"]] = row["after"]
    return Identity(settings, contents)


def changed_settings(config: ExperimentConfig, state: Mapping[str, Any], changes: Path) -> list[Difference]:
    """Where saved settings are no longer those that a checkpoint was made with; empty for one that recorded none.

    Args:
        config: the run's own, as its folder keeps it. state: of the checkpoint. changes: what was accepted.
    """
    if not isinstance(state.get("settings"), dict) or not isinstance(state.get("contents"), dict):
        return []
    return differences(identity_of(config, {}), with_accepted(Identity(state["settings"], state["contents"]), changes))


def record_changes(file: Path, found: Collection[Difference], iteration: int) -> None:
    """Keeps what a person accepted, one JSON line each: key, before, after, the iteration it was after, when."""
    for one in found:
        row = {
            "key": one.key,
            "before": one.theirs,
            "after": one.ours,
            "is_content": one.is_content,
            "after_iteration": iteration,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        append_line(file, json_line(row))


def _value(settings: Mapping[str, Any], key: str) -> Any:
    """A setting; one that an older version did not have is as its default, one that is gone is None."""
    if key in settings:
        return settings[key]
    defaults = {_CANONICAL.get(name, name): field.default for name, field in leaf_fields()}
    return json.loads(json.dumps(defaults.get(key), default=str))  # tuples are lists in JSON


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
