"""What every group of settings is made of: documented fields, frozen, without unknown keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Decay = Annotated[float, Field(ge=0, lt=1)]
Source = Literal["paper", "adagen", "measured", "design"]


def setting(default: Any, help: str, *, unit: str = "", source: Source = "design", **bounds: Any) -> Any:
    """A field with its help line, unit and source; `bounds` are pydantic's (`ge`, `gt`, `le`, `lt`)."""
    return Field(default, description=help, json_schema_extra={"unit": unit, "source": source}, **bounds)


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys and non-finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)

    @field_validator("*", mode="before")
    @classmethod
    def _booleans_are_no_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads `yes` as true, and pydantic would take true for 1."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and annotation is not bool:
            raise ValueError(f"{info.field_name}: {str(value).lower()} is not accepted here: it is no {annotation}")
        return value
