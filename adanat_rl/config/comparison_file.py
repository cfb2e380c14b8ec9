"""Reads what a final evaluation left in `evaluation.json`, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adanat_rl.config.json_files import read_json


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class _Summary(_Part):
    mean: float
    sd: float


class _Row(_Part):
    name: str
    title: str
    kind: str
    horizon: int
    how: str
    summary: dict[str, _Summary]
    values: dict[str, Annotated[list[float], Field(min_length=1)]]


class _Value(_Part):
    key: str
    title: str
    minimises: bool


class _Against(_Part):
    sentence: str
    findings: dict[str, Literal["better", "worse", "level", "undecided"]]
    not_counted: list[str]


class _Panel(_Part):
    values: list[_Value]
    against: dict[str, _Against]


class _Verdict(_Part):
    sentence: str


class _Comparison(_Part):
    rows: Annotated[list[_Row], Field(min_length=1)]
    panel: _Panel | None = None
    verdict: _Verdict | None
    seeds: Annotated[list[int], Field(min_length=1)]
    num_images: int
    iteration: int | None = None


def read_comparison(path: Path) -> dict[str, Any]:
    """The content of the file.

    It has rows (the policy first), each with `summary` (mean and sd) and `values` (one per seed) by metric, the verdict
    on adaptivity or None, evaluation seeds and images per seed. `panel` is what unlike judges say of the policy against
    each other row; a file of a time before there was a panel has none.

    Raises:
        ValueError: it is missing, no JSON, or holds something else.
    """
    content: dict[str, Any] = read_json(path)
    try:
        _Comparison.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path} is damaged: {place}: {first['msg']}") from None
    return content
