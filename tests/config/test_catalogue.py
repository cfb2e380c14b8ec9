from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import pytest
import torch

from adanat_rl.config.catalogue import CATALOGUE, PublishedFile, describe_missing, published_file
from adanat_rl.config.loading import leaf_fields, load_preset, preset_names, resolve
from adanat_rl.generation.build import NAT_CLASSES, TOKENIZER_CLASSES
from tests.contracts.parity import ParityModule

BY_FILE = {entry.file: entry for entry in CATALOGUE}


def weight_paths(settings: Any) -> Iterator[str]:
    """All values below the folder `weights`."""
    if isinstance(settings, dict):
        for value in settings.values():
            yield from weight_paths(value)
    elif isinstance(settings, str) and settings.startswith("weights/"):
        yield settings


def lies_in(path: str, entry: PublishedFile) -> bool:
    return path == entry.path or (entry.file.endswith("/") and path.startswith(f"{entry.path}/"))


@pytest.mark.parametrize("preset", preset_names())
def test_every_file_of_a_preset_has_its_entry(preset: str) -> None:
    for path in weight_paths(load_preset(preset)):
        entry = published_file(path)
        assert entry is not None, path
        assert lies_in(path, entry)


def test_every_file_that_a_default_names_has_its_entry() -> None:
    paths = [field.default for _, field in leaf_fields() if str(field.default).startswith("weights/")]
    assert len(paths) >= 2
    for path in paths:
        entry = published_file(path)
        assert entry is not None, path
        assert lies_in(path, entry)


def test_entries_are_complete_and_each_is_there_once() -> None:
    assert len(BY_FILE) == len(CATALOGUE)
    for entry in CATALOGUE:
        assert all((entry.what, entry.published, entry.licence, entry.command)), entry.file
        assert published_file(entry.path) is entry


def test_every_command_makes_the_file_where_it_is_looked_for() -> None:
    for entry in CATALOGUE:
        words = shlex.split(entry.command)
        if words[:2] == ["adanat-rl", "import-checkpoint"]:
            assert words[words.index("--output") + 1] == entry.path
        elif words[:2] == ["adanat-rl", "prepare"]:
            settings = resolve(words[words.index("--preset") + 1])
            place = settings.generator.captions if "--captions" in words else settings.data.statistics
            assert place == entry.path, "prepare writes where the settings look for it"
        else:
            assert words[:2] == ["hf", "download"]
            assert words[-1] == entry.path


def test_networks_of_the_catalogue_have_the_official_numbers_of_parameters() -> None:
    classes = {**NAT_CLASSES, **TOKENIZER_CLASSES}
    expected = {
        "imagenet256/nat.safetensors": ParityModule("nat_class_full").description["n_params"],
        "vqgan.safetensors": ParityModule("vqgan").description["n_params"],
        "vqgan-512.safetensors": ParityModule("vqgan").description["n_params"],
    }
    found = {}
    for entry in CATALOGUE:
        if entry.kind in classes:
            with torch.device("meta"):
                network = classes[entry.kind](**entry.arguments)
            found[entry.file] = sum(parameter.numel() for parameter in network.parameters())
    assert expected.items() <= found.items()
    assert {name for name in found if name.endswith("/nat.safetensors")} == {
        f"{name}/nat.safetensors" for name in ("imagenet256", "adagen_maskgit", "imagenet512", "coco", "cc3m")
    }


@pytest.mark.parametrize("preset", ["imagenet256", "imagenet512", "coco", "cc3m"])
def test_nat_and_tokenizer_of_a_preset_fit_each_other_and_its_images(preset: str) -> None:
    settings = resolve(preset)
    nat, tokenizer = published_file(settings.generator.nat), published_file(settings.generator.tokenizer)
    assert nat is not None
    assert tokenizer is not None
    assert tokenizer.arguments["image_size"] == settings.data.image_size == 16 * nat.arguments["grid_size"]
    assert tokenizer.arguments["vocab_size"] == nat.arguments["vocab_size"]


def test_a_missing_file_is_one_line_with_what_it_is_and_what_makes_it() -> None:
    line = describe_missing("weights/cc3m/nat.safetensors", "generator.nat")
    entry = BY_FILE["cc3m/nat.safetensors"]
    assert line.startswith(f"generator.nat: no such file: weights/cc3m/nat.safetensors: {entry.what}; ")
    assert f"published: {entry.published}; to get it: {entry.command}" in line
    assert "\n" not in line


def test_a_file_elsewhere_is_known_by_the_end_of_its_path_and_goes_there() -> None:
    line = describe_missing("/data/mine/inception.safetensors", "evaluation.inception")
    assert "--output /data/mine/inception.safetensors" in line
    assert published_file("/x/amused-256/vqvae/model.safetensors") is BY_FILE["amused-256/"]
    assert published_file("/x/bert-base-uncased/vocab.txt") is BY_FILE["bert-base-uncased/"]
    assert published_file("/x/imagenet512/nat.safetensors") is BY_FILE["imagenet512/nat.safetensors"]


@pytest.mark.parametrize("path", ["nowhere", "x/nat.safetensors", "policy"])
def test_a_path_that_could_be_many_files_is_none(path: str) -> None:
    assert published_file(path) is None
    line = describe_missing(path, "generator.nat")
    assert line.startswith(f"generator.nat: no such file: {path}; ")
    assert f"--output {PurePath(path)}" in line
