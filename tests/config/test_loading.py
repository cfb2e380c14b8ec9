from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from adanat_rl.config.errors import UserError, nearest
from adanat_rl.config.loading import (
    describe_settings,
    dump,
    json_schema,
    leaf_fields,
    load_file,
    load_preset,
    load_saved,
    preset_names,
    resolve,
    validate,
)
from adanat_rl.config.schema import ExperimentConfig


def refused(*overrides: str, **arguments) -> str:
    with pytest.raises(UserError) as caught:
        resolve(overrides=overrides, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        # unknown keys: the key and the nearest name, or what the group takes
        ("ppo.lrr=1", ["ppo.lrr", "unknown key", "did you mean 'lr'"]),
        ("trainign.num_iterations=3", ["trainign", "unknown key", "did you mean 'training'"]),
        ("lr=1e-3", ["lr", "unknown key", "did you mean 'ppo.lr'"]),
        ("policy.colour=red", ["policy.colour", "unknown key", "policy takes kind, hidden_size"]),
        ("colour=red", ["colour", "unknown key", "the top level takes name, seed"]),
        ("decisions.base.curv=cosine", ["decisions.base.curv", "did you mean 'curve'"]),
        ("reward.adversarial.channel=3", ["reward.adversarial.channel", "did you mean 'channels'"]),
        # words: the key, the value, the accepted ones and the nearest
        ("policy.kind=adaptiv", ["policy.kind", '"adaptiv"', "'per_class'", "'static'", "did you mean 'adaptive'"]),
        ("decisions.learned=[mask_ration]", ["decisions.learned", '"mask_ration"', "did you mean 'mask_ratio'"]),
        ("decisions.base.curve=cosin", ["decisions.base.curve", '"cosin"', "'linear'", "did you mean 'cosine'"]),
        ("data.name=minst", ["data.name", '"minst"', "'digits'"]),
        ("reward.kind=adversarail", ["reward.kind", "'adversarail'", "module:Class", "did you mean 'adversarial'"]),
        ("reward.kind=a:b:c", ["reward.kind", "'a:b:c'", "module:Class"]),
        ("resources.num_learners=2", ["resources.num_learners", "2", "0 or 1"]),
        # numbers: the key, the value and the bound
        ("ppo.lr=fast", ["ppo.lr", '"fast"', "a valid number"]),
        ("ppo.lr=0", ["ppo.lr", "0 is not", "greater than 0"]),
        ("ppo.lr=", ["ppo.lr", "null", "a valid number"]),
        ("ppo.lr=.nan", ["ppo.lr", "NaN", "finite"]),
        ("ppo.lr=.inf", ["ppo.lr", "Infinity", "finite"]),
        ("training.num_iterations=2.5", ["training.num_iterations", "2.5", "integer"]),
        ("training.num_iterations=0", ["training.num_iterations", "0 is not", "greater than or equal to 1"]),
        ("seed=-1", ["seed", "-1", "greater than or equal to 0"]),
        ("seed=4294967296", ["seed", "4294967296", "less than 4294967296"]),
        ("policy.hidden_size=6", ["policy.hidden_size", "6", "multiple of 4"]),
        ("decisions.smoothing=1", ["decisions.smoothing", "1", "less than 1"]),
        ("reward.adversarial.real_target=0.5", ["reward.adversarial.real_target", "0.5", "greater than 0.5"]),
        ("checkpoints.keep=1", ["checkpoints.keep", "1", "greater than or equal to 2"]),
        ("evaluation.num_seeds=0", ["evaluation.num_seeds", "0", "greater than or equal to 1"]),
        # values that do not go together: both, and a way out
        ("training.shard_size=100", ["training.shard_size", "100", "512", "choose a divisor"]),
        ("pretraining.num_heads=5", ["pretraining.num_heads", "5", "96", "choose a divisor"]),
        ("reward.args={a: 1}", ["reward.args", "module:Class", "reward.adversarial"]),
        ("ppo.features=keep", ["ppo.features", "keep", "recompute", "resources.num_env_runners=0"]),
        # groups and values mixed up
        ("generator=5", ["generator", "5", "dictionary"]),
        ("ppo=[1]", ["ppo", "[1]", "dictionary"]),
        ("decisions.learned=mask_ratio", ["decisions.learned", '"mask_ratio"']),
        # no override at all
        ("ppo.lr", ["'ppo.lr'", "KEY=VALUE", "type ppo.lr=VALUE"]),
        ("ppo.l", ["'ppo.l'", "KEY=VALUE", "did you mean"]),
        ("=5", ["'=5'", "KEY=VALUE"]),
        ("--lr=1", ["'--lr=1'", "KEY=VALUE"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_what_is_accepted(override: str, parts: list[str]) -> None:
    message = refused(override)
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("ppo.adam_betas=[0.9, 1.5]", "ppo.adam_betas"),
        ("ppo.adam_betas=[0.9, 1.0]", "ppo.adam_betas"),
        ("reward.adversarial.adam_betas=[-1, 0.5]", "reward.adversarial.adam_betas"),
        ("training.num_iterations=true", "training.num_iterations"),
        ("ppo.lr=yes", "ppo.lr"),
        ("reward.kind=':'", "reward.kind"),
        ("reward.kind='module:'", "reward.kind"),
        ("resources.ray_address=foo", "resources.ray_address"),
    ],
)
def test_a_value_that_could_only_fail_later_is_refused_at_once(override: str, key: str) -> None:
    assert key in refused(override)


def test_a_group_that_is_overridden_by_a_value_first_is_named() -> None:
    message = refused("generator=5", "generator.horizon=4")
    assert "generator is a value (5), not a group" in message


def test_overrides_are_yaml_values_and_later_ones_win() -> None:
    config = resolve(
        overrides=[
            "ppo.lr=1e-4",
            "ppo.lr=3e-3",
            "decisions.learned=[guidance_scale, mask_ratio]",
            "ppo.minibatch_size=null",
        ]
    )
    assert config.ppo.lr == 3e-3
    assert config.decisions.learned == ("guidance_scale", "mask_ratio")
    assert config.ppo.minibatch_size is None
    assert resolve(overrides=["tracking.enabled=off"]).tracking.enabled is False
    assert resolve(overrides=["name=12"]).name == "12"


def test_values_of_the_command_line_win_over_overrides_unless_they_are_none() -> None:
    assert resolve(overrides=["run_dir=a"], run_dir="b").run_dir == "b"
    assert resolve(overrides=["run_dir=a"], run_dir=None).run_dir == "a"


def test_a_file_is_loaded_and_overridden(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nppo:\n  lr: 0.001\n  num_epochs: 2\n")
    config = resolve(file=file, overrides=["ppo.num_epochs=7"])
    assert (config.name, config.ppo.lr, config.ppo.num_epochs) == ("mine", 0.001, 7)
    assert config.training == resolve(preset="digits").training
    assert config.decisions == resolve(preset="digits").decisions != ExperimentConfig().decisions


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_an_empty_file_is_the_default_preset(tmp_path: Path, text: str) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text(text)
    assert resolve(file=file) == resolve(preset="digits")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a: [1", ["is no YAML"]),
        ("- 1\n- 2", ["holds a list", "mapping"]),
        ("just words", ["holds a str", "mapping"]),
        ("!!python/object/apply:os.system ['true']", ["is no YAML"]),
        ("ppo:\n  lrr: 1", ["ppo.lrr", "did you mean 'lr'"]),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, parts: list[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    message = refused(file=file)
    for part in parts:
        assert part in message


def test_what_is_wrong_is_looked_for_where_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("ppo:\n  lr: 1e-3\ntraining:\n  num_iterations: -5\n")
    with pytest.raises(UserError, match=r"^\S+mine\.yaml: training\.num_iterations: -5 is not accepted"):
        resolve(file=file)
    with pytest.raises(UserError, match=r"^\S+mine\.yaml: training\.num_iterations: -5 is not accepted"):
        resolve(file=file, overrides=["ppo.lr=1e-4"])
    with pytest.raises(UserError, match=r"^training\.num_iterations: -6 is not accepted"):
        resolve(file=file, overrides=["training.num_iterations=-6"])
    assert resolve(file=file, overrides=["training.num_iterations=6"]).ppo.lr == 1e-3
    with pytest.raises(UserError, match=r"^\S+mine\.yaml: training\.num_iterations: -5 is not accepted"):
        load_saved(file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--config: .*none\.yaml: No such file"):
        load_file(tmp_path / "none.yaml")
    with pytest.raises(UserError, match=r"--config: .*directory"):
        load_file(tmp_path)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"\x80\x02\xff\xfe\x00")
    with pytest.raises(UserError, match=r"weights\.safetensors"):
        load_file(file)


@pytest.mark.parametrize("settings", [{1: 2}, {"generator": {3: 4}}, {True: 1}])
def test_a_key_that_is_no_word_is_named(settings: dict) -> None:
    with pytest.raises(UserError) as caught:
        validate(settings)
    assert str(caught.value)[0] not in ": "  # the message starts with the key


def test_a_file_names_the_preset_it_starts_from_and_the_command_line_can_name_another(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: mnist\nppo: {num_epochs: 9}\nname: mine\n")
    of_file, typed, overridden = resolve(file=file), resolve("cc3m", file), resolve("cc3m", file, ["preset=coco"])
    for config, preset in ((of_file, "mnist"), (typed, "cc3m"), (overridden, "coco")):
        assert (config.preset, config.name, config.ppo.num_epochs) == (preset, "mine", 9)
        assert config.generator == resolve(preset).generator
        assert config.ppo.model_copy(update={"num_epochs": 0}) == resolve(preset).ppo.model_copy(
            update={"num_epochs": 0}
        )
    assert resolve(values={"preset": "mnist"}) == resolve("mnist")
    assert "'mnst' is no preset" in refused("preset=mnst")
    assert "did you mean 'mnist'" in refused("preset=mnst")


def test_a_group_that_is_overridden_keeps_what_the_preset_says_of_its_other_settings() -> None:
    assert resolve("mnist", overrides=["ppo={lr: 0.5}"]) == resolve("mnist", overrides=["ppo.lr=0.5"])
    assert resolve("mnist", values={"decisions.base": {"curve": "linear"}}) == resolve(
        "mnist", overrides=["decisions.base.curve=linear"]
    )


@pytest.mark.parametrize(
    "text",
    [
        "ppo.lr: 3e-4\nppo: {clip: 0.3}\nreward.fid.credit: group",
        "ppo: {lr: 3e-4}\nppo.clip: 0.3\nreward: {fid.credit: group}",
        "ppo:\n  lr: 3e-4\n  clip: 0.3\nreward:\n  fid:\n    credit: group",
    ],
)
def test_keys_are_dotted_or_nested(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert load_file(file) == {"ppo": {"lr": 3e-4, "clip": 0.3}, "reward": {"fid": {"credit": "group"}}}


def test_a_key_that_is_written_dotted_and_nested_is_refused_with_both_lines(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("ppo:\n  lr: 1\n\nppo.lr: 2\n")
    assert "line 4: ppo.lr stands here and in line 2" in refused(file=file)
    file.write_text("reward: {kind: a:B, args: {x: 1}}\nreward.args.x: 2\n")
    assert "line 2: reward.args.x stands here and in line 1" in refused(file=file)


def test_an_unknown_preset_is_named_with_the_nearest() -> None:
    message = refused(preset="digitz")
    assert "'digitz'" in message
    assert "did you mean 'digits'" in message


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_resolves(name: str) -> None:
    config = resolve(preset=name)
    assert isinstance(config, ExperimentConfig)
    jsonschema.validate(load_preset(name), json.loads(json_schema()), jsonschema.Draft202012Validator)


def test_the_default_preset_is_digits() -> None:
    assert "digits" in preset_names()
    assert resolve() == resolve(preset="digits")


CHANGED = ["seed=7", "ppo.lr=0.25", "decisions.base_floor=null", "decisions.learned=[guidance_scale]", "name=süß"]


@pytest.mark.parametrize("overrides", [[], CHANGED])
def test_a_dumped_configuration_is_complete_and_resolves_to_the_same(tmp_path: Path, overrides: list[str]) -> None:
    config = resolve(overrides=overrides)
    file = tmp_path / "config.yaml"
    file.write_text(dump(config))
    assert resolve(file=file) == config
    content = yaml.safe_load(dump(config))
    for key, _ in leaf_fields():
        value = content
        for part in key.split("."):
            assert part in value, key
            value = value[part]


@pytest.mark.parametrize("overrides", [[], CHANGED])
def test_the_json_schema_accepts_a_dumped_configuration(overrides: list[str]) -> None:
    schema = json.loads(json_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(dump(resolve(overrides=overrides))), schema)


@pytest.mark.parametrize(
    "settings",
    [
        {"ppo": {"lrr": 1}},
        {"colour": "red"},
        {"ppo": {"lr": 0}},
        {"ppo": {"lr": "fast"}},
        {"policy": {"kind": "adaptiv"}},
        {"decisions": {"learned": ["mask_ration"]}},
        {"policy": {"hidden_size": 6}},
        {"seed": 2**32},
    ],
)
def test_the_json_schema_refuses_what_the_configuration_refuses(settings: dict) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(settings, json.loads(json_schema()))
    with pytest.raises(UserError):
        validate(settings)


def test_settings_are_described_with_key_default_help_unit_and_source() -> None:
    rows = {row.key: row for row in describe_settings()}
    assert rows.keys() == {key for key, _ in leaf_fields()}
    assert rows["generator.horizon"].default == "4"
    assert rows["generator.horizon"].unit == "steps"
    assert rows["generator.horizon"].source == "paper"
    assert [row.key for row in describe_settings(["checkpoints"])] == [
        "checkpoints.interval_iterations",
        "checkpoints.keep",
        "checkpoints.keep_best",
        "checkpoints.final",
    ]


def test_hints_name_the_nearest_and_nothing_far_off() -> None:
    assert nearest("adaptiv", ["adaptive", "static"]) == " (did you mean 'adaptive'?)"
    assert nearest("xyz", ["adaptive", "static"]) == ""
    assert nearest("xyz", []) == ""
