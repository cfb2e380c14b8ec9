"""Command `prepare`: what it makes can be used, doing it again does nothing, wrong input is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from adanat_rl.cli import main
from adanat_rl.config.schema import GeneratorConfig
from adanat_rl.data.digits import ImageDataset
from adanat_rl.data.tokens import TokenSet
from adanat_rl.generation.build import load_tokenizer
from adanat_rl.generation.text.encoder import ClipTextEncoder
from adanat_rl.generation.text.table import open_caption_table
from adanat_rl.generation.weights import save_network
from adanat_rl.metrics.clip_images import ClipImageEncoder
from adanat_rl.metrics.dinov2 import Dinov2Encoder
from adanat_rl.metrics.inception import InceptionV3
from adanat_rl.metrics.statistics import load_statistics
from tests.data.files import png, write_cc3m, write_tar, write_tree
from tests.tiny_clip import write_tiny_clip
from tests.tiny_dinov2 import write_tiny_dinov2


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    status = main(["prepare", *(str(argument) for argument in arguments)])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured.out


def test_tokens_of_the_digits_are_those_of_the_tokenizer(capsys, tmp_path: Path, digits: ImageDataset) -> None:
    for _ in range(2):
        printed = call(capsys, "--tokens", "--run-dir", tmp_path, "--batch-size", 600)
        assert "tokens: 1797 images, 16 tokens each" in printed
        assert f"use them: data.tokens={tmp_path / 'tokens'}" in printed
    tokens = TokenSet(tmp_path / "tokens")
    expected = load_tokenizer(GeneratorConfig()).encode(digits.images)
    assert torch.equal(tokens.tokens_at(np.arange(1797)), expected)
    assert torch.equal(tokens.labels, digits.labels)


def test_captions_become_a_table(capsys, tmp_path: Path) -> None:
    captions = ["a cat", "two dogs", "a third"]
    file = write_cc3m(tmp_path / "train.tsv", captions)
    clip = write_tiny_clip(tmp_path / "clip")
    source = ("data.name=cc3m_tsv", f"data.path={file}")
    printed = call(capsys, "--captions", f"text.encoder={clip}", *source, "--run-dir", tmp_path / "out")
    assert f"use them: generator.captions={tmp_path / 'out' / 'captions'}" in printed
    table = open_caption_table(tmp_path / "out" / "captions")
    assert list(table.captions) == captions
    expected = ClipTextEncoder(clip)([*captions, ""]).pooled
    assert torch.allclose(table.pooled(torch.arange(4)), expected, atol=1e-6)


def test_statistics_say_what_they_are_of(capsys, tmp_path: Path) -> None:
    weights = tmp_path / "inception.safetensors"
    save_network(weights, "inception", {}, InceptionV3())
    tree = write_tree(tmp_path / "tree", {"a": 2, "b": 1})
    source = ("data.name=image_folder", f"data.path={tree}", "data.image_size=8")
    options = ("--statistics", "--keep-features", 2, "--device", "cpu", "--run-dir", tmp_path / "out")
    printed = call(capsys, *options, *source, f"evaluation.inception={weights}", "evaluation.resize=vendored")
    assert "statistics: 3 of 3 images, vendored" in printed
    statistics = load_statistics(tmp_path / "out" / "statistics.npz")
    assert (statistics.count, statistics.convention, len(statistics.mean)) == (3, "vendored", 2048)
    assert statistics.features is not None
    assert len(statistics.features) == 2


def test_what_is_prepared_lies_where_the_settings_look_for_it(capsys, tmp_path: Path) -> None:
    weights, place = tmp_path / "inception.safetensors", tmp_path / "weights" / "statistics" / "own.npz"
    save_network(weights, "inception", {}, InceptionV3())
    tree = write_tree(tmp_path / "tree", {"a": 1, "b": 1})
    source = ("data.name=image_folder", f"data.path={tree}", "data.image_size=8", f"data.statistics={place}")
    options = ("--statistics", "--device", "cpu", "--run-dir", tmp_path / "out", f"evaluation.inception={weights}")
    assert f"use them: data.statistics={place}" in call(capsys, *options, *source)
    assert load_statistics(place).count == 2
    assert main(["prepare", *(str(part) for part in (*options, *source))]) == 2
    assert capsys.readouterr().err == (
        f"adanat-rl prepare: data.statistics: {place} is there already; delete it, or name another place\n"
    )


def test_networks_for_photos_have_statistics_beside_inceptions(capsys, tmp_path: Path) -> None:
    weights, place = tmp_path / "inception.safetensors", tmp_path / "weights" / "own.npz"
    save_network(weights, "inception", {}, InceptionV3())
    tree = write_tree(tmp_path / "tree", {"a": 2, "b": 3})
    source = ("data.name=image_folder", f"data.path={tree}", "data.image_size=8", f"data.statistics={place}")
    options = ("--statistics", "--keep-features", 4, "--device", "cpu", "--run-dir", tmp_path / "out")
    inception = f"evaluation.inception={weights}"
    call(capsys, *options, *source, inception)
    made = place.read_bytes()
    dinov2, clip = write_tiny_dinov2(tmp_path / "dinov2"), write_tiny_clip(tmp_path / "clip")
    networks = (f"evaluation.dinov2={dinov2}", f"evaluation.clip={clip}")
    printed = call(capsys, *options, *source, inception, *networks)
    assert f"{place} is there already and stays as it is" in printed
    assert "statistics: 5 of 5 images, DINOv2" in printed
    assert "statistics: 5 of 5 images, CLIP" in printed
    assert place.read_bytes() == made
    for name, space in (("dinov2", Dinov2Encoder(dinov2)), ("clip", ClipImageEncoder(clip))):
        statistics = load_statistics(place.with_name(f"own.{name}.npz"))
        assert (statistics.count, statistics.extractor_hash) == (5, space.content_hash())
        assert statistics.features is not None
        assert statistics.features.shape == (4, space.num_features)
    assert not list((tmp_path / "out").glob("*.npz"))
    assert main(["prepare", *(str(part) for part in (*options, *source, inception, *networks))]) == 2
    assert f"data.statistics: {place} is there already" in capsys.readouterr().err


def test_networks_for_photos_need_no_inception_to_be_prepared_and_their_folders_are_tried_first(
    capsys, tmp_path: Path
) -> None:
    tree = write_tree(tmp_path / "tree", {"a": 2, "b": 1})
    options = ["--statistics", "--device", "cpu", "--run-dir", str(tmp_path / "out"), "data.name=image_folder"]
    options += [f"data.path={tree}", "data.image_size=8", f"evaluation.clip={write_tiny_clip(tmp_path / 'clip')}"]
    damaged = write_tiny_dinov2(tmp_path / "dinov2")
    (damaged / "model.safetensors").write_bytes(b"")
    capsys.readouterr()
    assert main(["prepare", *options, f"evaluation.dinov2={damaged}"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "model.safetensors" in line
    assert main(["prepare", *options, f"evaluation.dinov2={tmp_path}/nowhere"]) == 2
    assert f"evaluation.dinov2: no such file: {tmp_path}/nowhere" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    call(capsys, *options)
    assert load_statistics(tmp_path / "out" / "statistics.clip.npz").count == 3
    call(capsys, *options)  # once more: nothing is left to do


def test_a_process_keeps_its_number_of_threads(capsys, tmp_path: Path) -> None:
    call(capsys, "--tokens", "--run-dir", tmp_path, "resources.driver_threads=2")
    assert torch.get_num_threads() == 1


def test_a_dry_run_prepares_nothing(capsys, tmp_path: Path) -> None:
    printed = call(capsys, "--tokens", "--dry-run", "--run-dir", tmp_path / "out")
    assert "horizontal_flip: false" in printed
    assert not (tmp_path / "out").exists()


def test_nothing_is_done_before_everything_is_looked_at(capsys, tmp_path: Path, monkeypatch) -> None:
    """The captions, which come second, are refused before an image is encoded."""
    monkeypatch.chdir(tmp_path)
    clip = write_tiny_clip(tmp_path / "clip")
    assert main(["prepare", "--tokens", "--captions", f"text.encoder={clip}", "--run-dir", "out"]) == 2
    assert "digits has no image files and no captions" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_refused_before_any_work(capsys, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for options, key in (
        (["--run-dir", f"{tmp_path}/file/out"], "run_dir"),
        ([f"data.tokens={tmp_path}/file/tokens", "--run-dir", f"{tmp_path}/out"], "data.tokens"),
    ):
        assert main(["prepare", "--tokens", *options]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert f"{key}: nothing can be written to" in line
        assert f"{tmp_path}/file is no folder" in line
    assert not (tmp_path / "out").exists()


def test_a_kill_between_the_statistics_and_their_place_loses_nothing(capsys, tmp_path: Path) -> None:
    weights, place = tmp_path / "inception.safetensors", tmp_path / "own.npz"
    save_network(weights, "inception", {}, InceptionV3())
    tree = write_tree(tmp_path / "tree", {"a": 1, "b": 1})
    source = ("data.name=image_folder", f"data.path={tree}", "data.image_size=8", f"evaluation.inception={weights}")
    options = ("--statistics", "--device", "cpu", "--run-dir", tmp_path / "out")
    call(capsys, *options, *source)
    made = (tmp_path / "out" / "statistics.npz").read_bytes()
    call(capsys, *options, *source, f"data.statistics={place}")
    assert place.read_bytes() == made
    assert not (tmp_path / "out" / "statistics.npz").exists()


@pytest.mark.filterwarnings("ignore:damaged sample")
def test_damaged_samples_beyond_the_limit_are_one_line_and_status_2(capsys, tmp_path: Path) -> None:
    shard = write_tar(
        tmp_path / "0.tar", {"0.png": png(0), "0.cls": b"0", "1.png": png(1), "1.cls": b"x", "2.png": b""}
    )
    options = ["--tokens", "data.name=webdataset", f"data.path={shard}", "--run-dir", str(tmp_path / "out")]
    assert main(["prepare", *options, "data.max_damaged=0"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "2 damaged samples, data.max_damaged accepts 0" in line
    assert "x is no class number" in line or "2: the image is empty" in line
    assert not (tmp_path / "out").exists()


CASES = [
    ("--tokens --device cpux", "--device: cpux is not accepted: expected cpu or cuda"),
    ("--tokens --device meta", "--device: meta is not accepted: expected cpu or cuda"),
    ("--tokens --device cuda:99", "--device: cuda:99 is not there"),
    ("--tokens data.name=webdataset data.path=tree/{a,b}/0.tar", "data.path: no such file: tree/a/0.tar"),
    ("", "nothing to prepare: give --tokens, --captions or --statistics"),
    ("--tokens --batch-size 0", "--batch-size: 0 is not accepted"),
    ("--statistics", "evaluation.inception: null is not accepted: --statistics needs"),
    ("--statistics evaluation.inception=nowhere", "evaluation.inception: no such file: nowhere"),
    ("--statistics evaluation.inception=x --keep-features -1", "--keep-features: -1 is not accepted"),
    ("--captions", "text.encoder: null is not accepted: --captions needs"),
    ("--captions text.encoder=encoder", "data.name: digits has no image files and no captions"),
    (
        "--tokens data.name=image_folder data.path=nowhere",
        "data.path: no such file: nowhere: photos in one folder per class",
    ),
    (
        "--tokens data.name=image_folder data.path=tree",
        "data.image_size: images are 256×256 with 3 channels, but generator.tokenizer takes 8×8 with 1",
    ),
    ("--captions text.encoder=encoder data.name=image_folder data.path=tree", "has classes and no captions"),
]


@pytest.mark.parametrize(("line", "expected"), CASES, ids=[line or "nothing" for line, _ in CASES])
def test_wrong_input_is_one_line_and_status_2(
    capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tree(tmp_path / "tree", {"a": 1})
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text("{}")
    assert main(["prepare", *line.split()]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert expected in errors[0]
    assert not (tmp_path / "runs").exists()


@pytest.mark.filterwarnings("ignore:damaged image")
def test_too_many_damaged_images_are_one_line_and_status_1(capsys, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"a": 3})
    (tree / "a" / "1.png").write_bytes(b"")
    settings = ("data.name=image_folder", f"data.path={tree}", "data.image_size=8", "data.max_damaged=0")
    weights = tmp_path / "inception.safetensors"
    save_network(weights, "inception", {}, InceptionV3())
    options = ["--statistics", f"evaluation.inception={weights}", "--run-dir", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["prepare", *options, *settings]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "1 damaged images, data.max_damaged accepts 0" in line
    assert "a/1.png" in line
