from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from adanat_rl.config.loading import leaf_fields, resolve
from adanat_rl.config.schema import DecisionName, ExperimentConfig
from adanat_rl.config.section import Source
from adanat_rl.generation.masked.schedules import DECISION_NAMES


def all_fields(model: type[BaseModel] = ExperimentConfig, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield prefix + name, field
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from all_fields(kind, f"{prefix}{name}.")


def test_every_field_and_section_has_a_description_and_a_known_source() -> None:
    fields = dict(all_fields())
    assert len(fields) > 90
    for key, field in fields.items():
        assert field.description, key
        assert field.description.strip().endswith("."), key
        assert isinstance(field.json_schema_extra, dict), key
        assert field.json_schema_extra["source"] in get_args(Source), key


def test_every_field_has_a_default_so_that_an_empty_file_is_valid() -> None:
    for key, field in all_fields():
        assert not field.is_required(), key


def test_leaf_fields_are_all_fields_but_the_sections() -> None:
    leaves = [key for key, _ in leaf_fields()]
    everything = [key for key, _ in all_fields() if not key.startswith("reward.parts.")]  # a list is one setting
    assert leaves == [key for key in everything if not any(other.startswith(f"{key}.") for other in everything)]


def test_the_configuration_is_frozen() -> None:
    config = ExperimentConfig()
    with pytest.raises(ValidationError):
        config.seed = 3
    with pytest.raises(ValidationError):
        config.ppo.lr = 3


def test_numbers_with_a_unit_have_it_in_their_description_or_name() -> None:
    for key, field in leaf_fields():
        if key.endswith("_s"):
            assert field.json_schema_extra["unit"] == "seconds", key
        if key.endswith("_iterations"):
            assert field.json_schema_extra["unit"] == "iterations", key


def test_the_decisions_of_the_configuration_are_those_of_the_generator() -> None:
    assert get_args(DecisionName) == DECISION_NAMES
    assert ExperimentConfig().decisions.learned == DECISION_NAMES


@pytest.mark.parametrize(
    ("overrides", "kept"),
    [
        ([], False),
        (["resources.num_env_runners=0"], True),
        (["resources.num_env_runners=0", "resources.num_learners=1"], False),
        (["resources.num_env_runners=0", "ppo.features=recompute"], False),
        (["resources.num_env_runners=0", "ppo.features=keep"], True),
    ],
)
def test_features_are_kept_where_one_process_does_everything(overrides: list[str], kept: bool) -> None:
    assert resolve(overrides=overrides).keep_features is kept
