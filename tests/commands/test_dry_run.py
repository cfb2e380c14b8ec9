"""`train --dry-run` and `train` of the presets before their files are there, in an empty folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from adanat_rl.cli import main
from adanat_rl.config.catalogue import published_file
from adanat_rl.config.loading import preset_names, resolve
from adanat_rl.experiment.outline import outline_of
from adanat_rl.experiment.reward_outline import reward_outline
from adanat_rl.experiment.workers import checkpoint_bytes
from adanat_rl.generation.masked.uvit import UViTNAT
from adanat_rl.generation.masked.vq_tokenizer import VQTokenizer
from adanat_rl.generation.weights import save_network
from tests import tiny

FULL_SCALE = [name for name in preset_names() if name not in {"digits", "mnist"}]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def dry_run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    status = main(["train", "--dry-run", *arguments])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    assert captured.err == ""
    return captured.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["train", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("name", FULL_SCALE)
def test_a_dry_run_needs_no_files_and_names_all_that_are_missing(
    capsys: pytest.CaptureFixture[str], in_an_empty_folder: Path, name: str
) -> None:
    printed = dry_run(capsys, "--preset", name, "--machine", "8xH100")
    assert yaml.safe_load(printed) == resolve(name).model_dump(mode="json")
    assert list(in_an_empty_folder.iterdir()) == [], "nothing was written or launched"
    config = resolve(name)
    paths = {
        "generator.nat": config.generator.nat,
        "generator.tokenizer": config.generator.tokenizer,
        "evaluation.inception": config.evaluation.inception,
        "data.statistics": config.data.statistics,
        "reward.adversarial.features": config.reward.adversarial.features,
    }
    for setting, path in paths.items():
        assert path is not None
        assert re.search(rf"^#   {setting} +{path}: missing$", printed, re.MULTILINE), setting
        entry = published_file(path)
        assert entry is not None
        assert entry.what in printed
        assert f"published: {entry.published}; to get it: {entry.command}" in printed
    assert re.search(rf"^#   data.path +{config.data.path}: missing$", printed, re.MULTILINE)
    for head in ("parameters: NAT ", "iteration: 4096 trajectories", "  NAT passes: ", "  TFLOPs: ", "run: "):
        assert f"# {head}" in printed
    for head in ("between processes: ", "memory of each process", "GPUs: ", "disk: ", "time on 8xH100"):
        assert f"# {head}" in printed


def test_the_numbers_of_imagenet(capsys: pytest.CaptureFixture[str]) -> None:
    printed = dry_run(capsys, "--preset", "imagenet256", "--machine", "8xH100")
    assert "# parameters: NAT 193,655,297, tokenizer 54,515,587, actor 11,876,484, critic 11,874,945, " in printed
    assert "discriminator 31,951,104 (" in printed
    assert "at most 6 NAT passes each" in printed
    assert "NAT passes: 36,864 at most: 24,576 in the rollout and 12,288 in the learner" in printed
    assert re.search(r"TFLOPs: [45],\d\d\d at most: rollout 2,5\d\d, features for the learner 1,27\d,", printed)
    assert "# between processes: 2719 bytes per trajectory" in printed
    assert "# GPUs: 8, as Ray deals them on one machine" in printed
    assert "GPUs 2-7, each: 1 × env runner of 0.6; " in printed
    assert "assumed: 35% of it in the NAT (bfloat16)" in printed
    assert "not counted: loading of weights" in printed
    assert "DOES NOT FIT" not in printed


@pytest.mark.parametrize("name", ["coco", "amused256"])
def test_image_reward_is_counted(capsys: pytest.CaptureFixture[str], name: str) -> None:
    printed = dry_run(capsys, "--preset", name, "reward.kind=image_reward", "--machine", "8xH100")
    assert re.search(r"ImageReward 44\d,\d\d\d,\d\d\d", printed)  # BLIP-L, as published
    assert re.search(r"TFLOPs: .*, reward model \d+", printed)


def test_the_reward_models_precision_counts(capsys: pytest.CaptureFixture[str]) -> None:
    faster = ("reward.adversarial.precision=bfloat16", "--machine", "8xH100")
    printed = [dry_run(capsys, "--preset", "imagenet256", *more) for more in (faster[1:], faster)]
    assert ["the reward model (float32)" in text for text in printed] == [True, False]
    assert "the reward model (bfloat16)" in printed[1]
    took = [re.search(r"reward update (\S+ \S+)", text) for text in printed]
    assert took[0] is not None
    assert took[1] is not None
    assert took[0][1] != took[1][1]


def test_the_disk_that_captions_take_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    size = 77 * 1280 * 2 + 1280 * 4  # of each: hidden states in half precision, pooled in single
    printed = dry_run(capsys, "--preset", "cc3m")
    assert f"#   {size / 1000:.1f} GB for a million encoded captions (generator.captions)" in printed


def test_what_does_not_fit_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    few = dry_run(capsys, "--preset", "imagenet256", "--machine", "2xH100")
    assert "# time on 2xH100: DOES NOT FIT: the workers take 8 GPUs, it has 2; lower resources.num_env_runners" in few
    small = dry_run(capsys, "--preset", "amused256", "--machine", "8xRTX4090")
    assert re.search(r"GPU 1: 1 × env runner of 0.6, 1 × learner of 0.4; \d\d.\d GB of 24 GB: DOES NOT FIT", small)
    cores = dry_run(capsys, "--preset", "imagenet256", "--machine", "16xcpu")
    assert "as if no worker took a GPU: there all of resources.num_gpus_per_* must be 0" in cores
    without = dry_run(capsys, "--machine", "8xH100")
    assert "# GPUs: none are used" in without
    assert "# time on 8xH100: no worker takes a GPU" in without


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--dry-run", "--machine", "8xH1000"), ["--machine: 'H1000' is no known device", "did you mean 'H100'?"]),
        (("--dry-run", "--machine", "eight"), ["--machine: 'eight' is not accepted", "NxNAME"]),
        (("--machine", "8xH100"), ["--machine: only --dry-run estimates times"]),
        (("--dry-run", "reward.kind=nowhere:Reward", "generator.nat=x"), ["reward.kind", "cannot import nowhere"]),
        (("--dry-run", "generator.nat=asset:digits/nut.safetensors"), ["no such asset", "did you mean"]),
    ],
)
def test_a_wrong_dry_run_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], parts: list[str]
) -> None:
    line = refused(capsys, *arguments)
    for part in parts:
        assert part in line


@pytest.mark.parametrize("name", FULL_SCALE)
def test_a_training_without_its_files_says_which_what_where_and_how(
    capsys: pytest.CaptureFixture[str], in_an_empty_folder: Path, name: str
) -> None:
    config = resolve(name)
    line = refused(capsys, "--preset", name)
    assert line.startswith(f"adanat-rl train: data.path: no such file: {config.data.path}: ")
    assert "are published at" in line or "published at" in line
    assert "more are missing: see --dry-run)" in line
    mine = in_an_empty_folder / "mine"
    mine.mkdir()
    (mine / "captions.json").write_text("{}")
    (mine / "captions.tsv").write_text("")
    (mine / "statistics.npz").write_text("")
    have = [f"data.path={mine}", f"data.statistics={mine}/statistics.npz"]
    have += [f"data.captions={mine}/captions.json"] if config.data.captions else []
    line = refused(capsys, "--preset", name, *have)
    entry = published_file(config.generator.nat)
    assert entry is not None
    assert line.startswith(
        f"adanat-rl train: generator.nat: no such file: {config.generator.nat}: {entry.what}; "
        f"published: {entry.published}; to get it: {entry.command}"
    )


def test_a_file_that_is_there_tells_its_shape(capsys: pytest.CaptureFixture[str], in_an_empty_folder: Path) -> None:
    nat = {"vocab_size": 16, "grid_size": 2, "width": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
    tokenizer = {"vocab_size": 16, "image_size": 32, "code_width": 8, "base_width": 32}
    network = UViTNAT(**nat)
    save_network(Path("nat.safetensors"), "uvit", nat, network)
    save_network(Path("tokenizer.safetensors"), "vqgan", tokenizer, VQTokenizer(**tokenizer))
    mine = ("generator.nat=nat.safetensors", "generator.tokenizer=tokenizer.safetensors", "data.image_size=32")
    printed = dry_run(capsys, "--preset", "imagenet256", *mine)
    assert f"# parameters: NAT {sum(parameter.numel() for parameter in network.parameters()):,}, " in printed
    assert "as expected of the missing files" not in printed
    assert re.search(r"generator.nat +nat.safetensors: there$", printed, re.MULTILINE)
    assert "# files: 6, 4 of them missing" in printed
    line = refused(capsys, "--dry-run", "--preset", "imagenet256", mine[0])
    assert "predicts 16 codes on a 2×2 grid, but the tokenizer has 1024 on 16×16" in line
    Path("nat.safetensors").write_bytes(b"\x00" * 100)
    assert "nat.safetensors is damaged or no safetensors file" in refused(
        capsys, "--dry-run", "--preset", "imagenet256", *mine
    )


def test_a_missing_file_that_nobody_knows_leaves_the_rest_of_the_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    printed = dry_run(capsys, "generator.nat=nowhere.bin")
    assert re.search(r"generator.nat +nowhere.bin: missing$", printed, re.MULTILINE)
    assert "# reserves: 1 CPUs, 0 GPUs" in printed
    assert "# parameters, arithmetic, memory and time: not known yet: generator.nat: nowhere.bin is missing" in printed


def test_what_only_prepare_reads_is_no_reason_to_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    printed = dry_run(capsys, "--preset", "cc3m")
    assert "text.encoder" in printed
    assert "weights/clip-vit-bigg-14: missing, for prepare and sample only" in printed
    assert "(6 more are missing" in refused(capsys, "--preset", "cc3m")


def test_a_checkpoint_takes_what_the_dry_run_says(finished_run: Path) -> None:
    config = resolve(overrides=list(tiny.OVERRIDES))
    outline = outline_of(config)
    files = (finished_run / "checkpoints" / "iteration_000004").glob("*.safetensors")
    found = sum(file.stat().st_size for file in files)
    assert checkpoint_bytes(outline, reward_outline(config, outline)) == pytest.approx(found, rel=0.15)
