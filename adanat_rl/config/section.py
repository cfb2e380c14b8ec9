"""What every group of settings is made of: documented fields, frozen, without unknown keys."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from adanat_rl.config.text_files import text_problem
from adanat_rl.config.typed_settings import accepts_text

# The most that settings take, so that what is mistyped is refused in one line instead of filling the memory. They lie
# far beyond what anyone means; MAX_FLOAT is what the float32 numbers of the networks can still be multiplied with.
MAX_FLOAT, MAX_SECONDS, MAX_DECISION = 1e30, 1e7, 1000.0
OWN_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
"""What names a class of somebody's own: module:Class."""
Decay = Annotated[float, Field(ge=0, lt=1)]
Source = Literal["paper", "adagen", "measured", "design"]


def setting(default: Any, help: str, *, unit: str = "", source: Source = "design", **bounds: Any) -> Any:
    """A field with its help line, unit and source; `bounds` are pydantic's (`ge`, `gt`, `le`, `lt`)."""
    return Field(default, description=help, json_schema_extra={"unit": unit, "source": source}, **bounds)


def check_name(name: str, most_bytes: int) -> str:
    """The name, which folders are called after.

    Raises:
        ValueError: it is longer than file systems take.
    """
    size = len(name.encode())
    if size > most_bytes:
        raise ValueError(f"name: {name[:40]!r}… is not accepted: it has {size:,} bytes, {most_bytes} are the most")
    return name


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys, non-finite numbers and text that can be no name."""

    _free_text: ClassVar[frozenset[str]] = frozenset()  # fields whose text may have several lines
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)

    @field_validator("*", mode="before")
    @classmethod
    def _booleans_are_no_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic would take true for 1."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and annotation not in (bool, Any):
            wanted = "text" if accepts_text(annotation) else "no truth value"
            raise ValueError(f"{info.field_name}: {str(value).lower()} is not accepted: expected {wanted}")
        return value

    @field_validator("*")
    @classmethod
    def _text_is_one_line(cls, value: Any, info: ValidationInfo) -> Any:
        """Names and paths that no file system, terminal or database takes are refused before they get there."""
        problem = (
            (text_problem(value) if value else "expected some text")
            if isinstance(value, str) and info.field_name not in cls._free_text
            else None
        )
        if problem is not None:
            raise ValueError(f"{info.field_name}: {value[:80]!r} is not accepted: {problem}")
        return value
