from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adanat_rl.config.errors import UserError
from adanat_rl.config.paths import resolve_path
from adanat_rl.config.schema import BaseScheduleConfig, DecisionsConfig, GeneratorConfig, PolicyConfig
from adanat_rl.generation.pipeline import GenerationPipeline, load_pipeline
from adanat_rl.generation.policies.base import ActorPolicy
from adanat_rl.generation.policies.build import PolicySpec
from adanat_rl.generation.policies.files import (
    DESCRIPTION_FILE,
    WEIGHTS_FILE,
    ExportedPolicy,
    check_generator_fits,
    hash_generator,
    load_policy,
    save_policy,
)
from adanat_rl.generation.seeding import seeded
from adanat_rl.generation.weights import save_network


def make_policy(digits_generator, kind: str = "adaptive") -> ExportedPolicy:
    spec = PolicySpec.of(PolicyConfig(kind=kind, hidden_size=16), digits_generator)
    with seeded(3):
        actor = spec.build_actor()
        with torch.no_grad():
            for parameter in actor.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    config = GeneratorConfig()
    return ExportedPolicy(actor, spec, config, DecisionsConfig(), {"iterations": 3}, hash_generator(config))


@pytest.fixture
def policy(digits_generator) -> ExportedPolicy:
    return make_policy(digits_generator)


@pytest.fixture
def folder(tmp_path: Path, policy: ExportedPolicy) -> Path:
    save_policy(tmp_path / "policy", policy)
    return tmp_path / "policy"


def edit(folder: Path, change) -> None:
    file = folder / DESCRIPTION_FILE
    description = json.loads(file.read_text())
    change(description)
    file.write_text(json.dumps(description))


@pytest.mark.parametrize("kind", ["adaptive", "per_class", "static"])
def test_a_policy_comes_back_as_it_was(tmp_path: Path, digits_generator, kind: str) -> None:
    policy = make_policy(digits_generator, kind)
    save_policy(tmp_path / "p", policy)
    loaded = load_policy(tmp_path / "p")
    assert (loaded.spec, loaded.generator, loaded.decisions) == (policy.spec, policy.generator, policy.decisions)
    assert loaded.trained == {"iterations": 3}
    assert loaded.generator_hashes == policy.generator_hashes
    assert not loaded.actor.training
    for name, value in policy.actor.state_dict().items():
        assert torch.equal(loaded.actor.state_dict()[name], value)


def test_the_folder_holds_two_files_and_nothing_is_left_beside_it(folder: Path) -> None:
    assert sorted(entry.name for entry in folder.iterdir()) == [DESCRIPTION_FILE, WEIGHTS_FILE]
    assert [entry.name for entry in folder.parent.iterdir()] == ["policy"]


def test_saving_again_replaces_the_policy(folder: Path, policy: ExportedPolicy) -> None:
    with torch.no_grad():
        policy.actor.linear3.bias.fill_(7)
    save_policy(folder, policy)
    assert (load_policy(folder).actor.linear3.bias == 7).all()
    assert [entry.name for entry in folder.parent.iterdir()] == ["policy"]


def test_a_save_that_was_cut_short_is_cleaned_up_by_the_next(folder: Path, policy: ExportedPolicy) -> None:
    leftover = folder.with_name(".policy.new")
    leftover.mkdir()
    (leftover / "half").write_text("x")
    save_policy(folder, policy)
    assert [entry.name for entry in folder.parent.iterdir()] == ["policy"]
    load_policy(folder)


def test_hashes_are_those_of_the_weight_files() -> None:
    hashes = hash_generator(GeneratorConfig())
    for key in ("nat", "tokenizer"):
        path = resolve_path(getattr(GeneratorConfig(), key), key)
        assert hashes[key] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_without_a_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no exported policy: it has no policy\.json"):
        load_policy(tmp_path)
    with pytest.raises(UserError, match="is no exported policy"):
        load_policy(tmp_path / "nowhere")


def test_a_file_in_place_of_the_folder_is_named(folder: Path) -> None:
    with pytest.raises(UserError, match="is a file; give the folder"):
        load_policy(folder / WEIGHTS_FILE)


@pytest.mark.parametrize(("text", "problem"), [("{", "is damaged"), ("", "is damaged"), ("\x00", "is no text")])
def test_a_damaged_description_is_named(folder: Path, text: str, problem: str) -> None:
    (folder / DESCRIPTION_FILE).write_text(text)
    with pytest.raises(UserError, match=rf"policy\.json {problem}"):
        load_policy(folder)


@pytest.mark.parametrize("text", ["[]", "3", "null", "{}", '{"format": 2}', '{"format": "1"}'])
def test_another_format_is_refused(folder: Path, text: str) -> None:
    (folder / DESCRIPTION_FILE).write_text(text)
    with pytest.raises(UserError, match=r"has format .*; this version of adanat-rl reads format 1"):
        load_policy(folder)


@pytest.mark.parametrize("key", ["policy", "generator", "generator_sha256", "decisions", "weights_sha256"])
def test_a_description_that_lacks_something_is_refused(folder: Path, key: str) -> None:
    edit(folder, lambda description: description.pop(key))
    with pytest.raises(UserError, match=rf"policy\.json lacks {key}"):
        load_policy(folder)


def test_damaged_weights_are_noticed(folder: Path) -> None:
    file = folder / WEIGHTS_FILE
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"policy\.safetensors does not match the hash in policy\.json"):
        load_policy(folder)
    file.write_bytes(bytes(data[:50]))
    with pytest.raises(UserError, match="damaged"):
        load_policy(folder)
    file.unlink()
    with pytest.raises(UserError, match="no such file"):
        load_policy(folder)


def test_weights_of_another_size_are_named(folder: Path) -> None:
    edit(folder, lambda description: description["policy"].update(hidden_size=32))
    with pytest.raises(UserError, match="another shape or dtype of"):
        load_policy(folder)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("policy", {"colour": "red"}),
        ("generator", {"horizont": 4}),
        ("decisions", {"smoothing": 2.0}),
        ("policy", {"kind": "adaptve"}),
        ("policy", {"horizon": "four"}),
        ("policy", {"hidden_size": None}),
    ],
)
def test_settings_that_this_version_does_not_know_are_refused(folder: Path, section: str, values: dict) -> None:
    edit(folder, lambda description: description[section].update(values))
    with pytest.raises(UserError, match=r"policy\.json"):
        load_policy(folder)


@pytest.mark.parametrize(
    ("section", "values"),
    [("generator", {"horizon": 8}), ("decisions", {"learned": ["mask_ratio", "guidance_scale"]})],
)
def test_a_description_that_contradicts_itself_is_refused(folder: Path, section: str, values: dict) -> None:
    edit(folder, lambda description: description[section].update(values))
    with pytest.raises(UserError, match=r"policy\.json|horizon|learned"):
        load_pipeline(folder)


def test_a_description_without_the_hash_of_a_file_is_refused(folder: Path) -> None:
    edit(folder, lambda description: description["generator_sha256"].pop("nat"))
    with pytest.raises(UserError, match=r"policy\.json|generator\.nat"):
        load_pipeline(folder)


def test_a_policy_is_not_changed_by_a_later_edit_of_its_schedule_file(tmp_path: Path, digits_generator) -> None:
    schedule = tmp_path / "schedule.json"
    schedule.write_text(json.dumps([[0.6, 3.0, 1.0, 0.5]] * 4))
    policy = replace(
        make_policy(digits_generator), decisions=DecisionsConfig(base=BaseScheduleConfig(file=str(schedule)))
    )
    save_policy(tmp_path / "policy", policy)
    before = load_pipeline(tmp_path / "policy")([3], [0]).decisions
    schedule.write_text(json.dumps([[0.2, 1.0, 0.5, 2.5]] * 4))
    try:
        after = load_pipeline(tmp_path / "policy")([3], [0]).decisions
    except UserError:
        return  # refused: just as good
    np.testing.assert_array_equal(after, before)


def test_another_generator_is_refused_with_the_name_of_the_file(folder: Path, tmp_path: Path, digits_generator) -> None:
    arguments = {"vocab_size": 128, "grid_size": 4, "num_classes": 10, "width": 96, "depth": 3, "num_heads": 4}
    other = tmp_path / "other.safetensors"
    with torch.no_grad():
        nat = type(digits_generator.nat)(**arguments)
    save_network(other, "transformer", arguments, nat)
    with pytest.raises(UserError, match=r"generator\.nat: .*other\.safetensors is not the file.*SHA-256"):
        load_pipeline(folder, nat=str(other))
    edit(folder, lambda description: description["generator_sha256"].update(tokenizer="0" * 64))
    with pytest.raises(UserError, match=r"generator\.tokenizer: .* is not the file"):
        load_pipeline(folder)


def test_a_moved_copy_of_the_generator_is_accepted(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(resolve_path(GeneratorConfig().nat, "nat").read_bytes())
    check_generator_fits(load_policy(folder), GeneratorConfig(nat=str(copy)))
    assert load_pipeline(folder, nat=str(copy))([1]).images.shape == (1, 8, 8, 1)


def test_the_loaded_pipeline_draws_what_the_policy_drew_before(
    folder: Path, policy: ExportedPolicy, digits_generator
) -> None:
    before = GenerationPipeline(
        digits_generator, ActorPolicy(policy.actor, digits_generator.decision_space, policy.generator.block_rows)
    )([3, 3, 7], [0, 1, 2])
    after = load_pipeline(folder)([3, 3, 7], [0, 1, 2])
    np.testing.assert_array_equal(after.images, before.images)
    np.testing.assert_array_equal(after.decisions, before.decisions)
    np.testing.assert_array_equal(after.tokens, before.tokens)


def test_a_run_folder_stands_for_the_policy_in_it(folder: Path) -> None:
    assert load_pipeline(folder.parent)([1]).tokens.tolist() == load_pipeline(folder)([1]).tokens.tolist()
