"""Judges of one's own, written as `module:Class`, beside those of the panel."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.findings import name_of
from adanat_rl.config.metric_keys import IMAGES_PER_SECOND
from adanat_rl.config.own_code import import_own, own_file_hash
from adanat_rl.data.dataset import ImageDataset
from adanat_rl.evaluation.judge import CLIP_SCORE, INCEPTION_SCORE, QUALITY_METRICS
from adanat_rl.evaluation.panel.contract import FeatureSpace, PanelJudge, Value

_KEY = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TAKEN = frozenset({*QUALITY_METRICS, INCEPTION_SCORE, CLIP_SCORE, "kid", "nat_passes_per_image", IMAGES_PER_SECOND})
_TEXTS = ("name", "kind", "blind_to")


@dataclass(frozen=True)
class JudgeData:
    """What a judge of one's own may compare with, where the data set fits into memory.

    Args:
        test: images that are for judging. training: images that are for learning.
    """

    test: ImageDataset
    training: ImageDataset


def load_own_judge(name: str, data: JudgeData | None, key: str = "evaluation.judges") -> OwnJudge:
    """The judge that `module:Class` makes: `Class(data)`.

    Args:
        data: None where the real images do not fit into memory; a judge then brings its own reference.
        key: of the setting that has the name; empty for a word of the command line.

    Raises:
        UserError: no such class, it fails, or what it makes is no judge.
    """
    prefix = f"{key}: {name}" if key else name
    cls = import_own(name, key)
    try:
        made = cls(data)
        problem = problem_of(made)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's constructor does
        raise UserError(f"{prefix} failed: {name_of(error)}") from error
    if problem:
        raise UserError(f"{prefix} made no judge: {problem}")
    return OwnJudge(made, name)


def problem_of(judge: Any) -> str:
    """What is missing or wrong in what announces itself as a judge; empty if nothing is."""
    for attribute in _TEXTS:
        text = getattr(judge, attribute, None)
        if not isinstance(text, str) or not text.strip():
            return f"{attribute} is {text!r}, expected a text"
    space = getattr(judge, "space", None)
    if not callable(space) or not isinstance(getattr(space, "name", None), str):
        return f"space is {type(space).__name__}, expected a callable with a name"
    values = getattr(judge, "values", None)
    if not isinstance(values, tuple | list) or not values or not all(isinstance(value, Value) for value in values):
        return f"values is {values!r}, expected one Value or more"
    for value in values:
        problem = _problem_of_value(value)
        if problem:
            return problem
    size = getattr(judge, "set_size", None)
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 2):
        return f"set_size is {size!r}, expected None, or 2 or more"
    return "" if callable(judge) else "it cannot be called"


def _problem_of_value(value: Any) -> str:
    if not isinstance(value.key, str) or not _KEY.fullmatch(value.key):
        return f"key {value.key!r}; expected small letters, digits and _, 64 at most"
    if value.key in _TAKEN:
        return f"key {value.key} is that of another number; choose another"
    if not isinstance(value.title, str) or not value.title.strip():
        return f"title of {value.key} is {value.title!r}, expected a text"
    if not isinstance(value.minimises, bool) or not isinstance(value.is_relative, bool):
        return f"minimises and is_relative of {value.key}: expected True or False"
    margin = value.margin
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not math.isfinite(margin) or margin < 0:
        return f"margin {margin!r} of {value.key}, expected 0 or more"
    return ""


class OwnJudge:
    """A judge whose failures are told by its name.

    Args:
        judge: what the class has made. label: `module:Class`.
    """

    def __init__(self, judge: PanelJudge, label: str) -> None:
        self.name, self.kind, self.blind_to = judge.name, judge.kind, judge.blind_to
        self.values = tuple(judge.values)
        self.set_size = getattr(judge, "set_size", None)
        self.space = _OwnSpace(judge.space, label)
        self._judge, self._label = judge, label

    def __call__(self, features: Tensor, context: Tensor) -> Mapping[str, float]:
        """The judge's numbers.

        Raises:
            RunError: it failed.
        """
        try:
            return {str(key): float(number) for key, number in self._judge(features, context).items()}
        except (Exception, SystemExit) as error:  # whatever a user's code does
            raise RunError(f"judge {self._label} failed: {name_of(error)}") from error


class _OwnSpace:
    def __init__(self, space: FeatureSpace, label: str) -> None:
        self.name = f"{space.name} of {label} {own_file_hash(label)[:12]}"  # nobody else's, and of this code
        self._space, self._label = space, label

    def __call__(self, images: Tensor) -> Tensor:
        try:
            return torch.as_tensor(self._space(images.clone()))
        except (Exception, SystemExit) as error:  # whatever a user's code does
            raise RunError(f"the feature space of judge {self._label} failed: {name_of(error)}") from error
