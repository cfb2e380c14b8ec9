from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import leaf_fields, resolve
from adanat_rl.config.schema import DecisionName, ExperimentConfig
from adanat_rl.config.section import Source
from adanat_rl.config.sweep_settings import SweepConfig
from adanat_rl.evaluation.reference import load_references
from adanat_rl.generation.masked.schedules import DECISION_NAMES, load_schedule


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


def bounds(schema: dict) -> Iterator[tuple[str, dict]]:
    """Every place of a JSON schema that takes a number."""
    for kind in (schema, *schema.get("anyOf", [])):
        for inner in (*kind.get("prefixItems", []), kind.get("items")):
            yield from bounds(inner) if isinstance(inner, dict) else ()
        if kind.get("type") in {"integer", "number"} and "enum" not in kind and "const" not in kind:
            yield str(kind), kind


@pytest.mark.parametrize("model", [ExperimentConfig, SweepConfig])
def test_every_number_has_a_least_and_a_largest_value(model: type[BaseModel]) -> None:
    schema = model.model_json_schema()
    count = 0
    for group in [schema, *schema["$defs"].values()]:
        for name, field in group.get("properties", {}).items():
            if (group.get("title"), name) == ("BaseScheduleConfig", "values"):
                continue  # the ranges differ by column: test_a_base_schedule_has_the_ranges_of_a_schedule_file
            for _, kind in bounds(field):
                count += 1
                assert {"minimum", "exclusiveMinimum"} & kind.keys(), (group["title"], name)
                assert {"maximum", "exclusiveMaximum"} & kind.keys(), (group["title"], name)
    assert count > 10


@pytest.mark.parametrize(
    "override",
    [
        "policy.hidden_size=4000000000",
        "training.trajectories_per_iteration=1e9",
        "evaluation.num_images=999999999999",
        "pretraining.width=1e6",
        "resources.shard_timeout_s=1e300",
        "ppo.lr=1e300",
        "exploration.std=1e-300",
        "seed=1e400",
        "seed=" + "9" * 5000,
        "seed='" + "9" * 5000 + "'",
        "ppo.lr=" + "9" * 5000,
        "generator.horizon=256 training.trajectories_per_iteration=1048576 training.shard_size=16",
        "reward.kind=a:B reward.args.x=.inf",
        "reward.kind=a:B reward.args.x=[1,[.nan]]",
        "reward.kind=a:B reward.args.x=" + "9" * 5000,
        "name=" + "x" * 300,
        "name=..",
        "name=a/b",
        "run_dir=" + "x" * 5000,
        "data.captions=~nobody-at-all/x",
    ],
)
def test_what_no_machine_could_do_is_refused_in_one_short_line(override: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(overrides=override.split(" "))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    assert message.startswith(override.split("=")[0]) or "trajectories" in message or "args" in message, message


@pytest.mark.parametrize("key", ["name", "run_dir", "tracking.experiment", "generator.nat", "data.class_names"])
@pytest.mark.parametrize("text", ["a\0b", "a\nb", "a\x1bb", "a\udce4b"])
def test_names_and_paths_have_no_control_characters(key: str, text: str) -> None:
    with pytest.raises(UserError, match=f"^{key}: ") as caught:
        resolve(values={key: text})
    assert str(caught.value).isprintable()


WRONG_ROWS = [
    ([2, 1, 1, 0], "row 2: mask_ratio 2 "),
    ([-0.5, 1, 1, 0], "row 2: mask_ratio -0.5 "),
    ([0, -1, 1, 0], "row 2: confidence_temperature -1 "),
    ([0, 1, 0, 0], "row 2: sampling_temperature 0 "),
    ([0, 1, -2, 0], "row 2: sampling_temperature -2 "),
    ([0, 1, 1e300, 0], "row 2: sampling_temperature 1e+300 "),
    ([0, 1, 1, 1e300], "row 2: guidance_scale 1e+300 "),
]


@pytest.mark.parametrize(("row", "words"), WRONG_ROWS)
def test_a_base_schedule_has_the_ranges_of_a_schedule_file(tmp_path: Path, row: list, words: str) -> None:
    rows = [[0.5, 1, 1, 0], row]
    file, reference = tmp_path / "schedule.json", tmp_path / "reference.json"
    file.write_text(json.dumps(rows))
    baseline = {"name": "a", "title": "a", "how": "", "decisions": rows}
    reference.write_text(json.dumps({"format": 1, "dataset": "x", "command": "", "baselines": [baseline]}))
    for read in (
        lambda: resolve(values={"generator.horizon": 2, "decisions.base.values": rows}),
        lambda: load_schedule(file),
        lambda: load_references(reference),
    ):
        with pytest.raises(UserError) as caught:
            read()
        assert words in str(caught.value)
