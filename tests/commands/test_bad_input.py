"""Wrong input: one line on standard error that names key, value and what is accepted; exit status 2."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from adanat_rl.cli import main

DAMAGED = "damaged.safetensors"


@pytest.fixture(autouse=True)
def in_a_folder_with_odd_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / DAMAGED).write_bytes(b"\x00" * 100)
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    (tmp_path / "unknown.yaml").write_text("ppo:\n  learning_rate: 1\n")
    (tmp_path / "schedule.json").write_text("[[0.5, 1, 1]]")
    (tmp_path / "twice.yaml").write_text("ppo:\n  lr: 1\nppo:\n  clip: 1\n")
    (tmp_path / "cycle.yaml").write_text("ppo: &a {lr: *a}\n")
    (tmp_path / "deep.yaml").write_text("ppo: " + "[" * 100_000)
    (tmp_path / "bomb.yaml").write_text(
        "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(f"{x}: &{x} [{', '.join(['*' + y] * 10)}]\n" for y, x in itertools.pairwise("abcdefghij"))
    )
    (tmp_path / "latin.yaml").write_bytes("name: tägig".encode("latin-1"))
    (tmp_path / "sweep.yaml").write_text("settings: {ppo.lr: 1e-4}\n")
    (tmp_path / "grid.yaml").write_text(
        "parameters:\n"
        + "".join(f"  {key}: {{grid: {list(range(1, 101))}}}\n" for key in ("ppo.lr", "ppo.clip"))
        + "seeds: 100\n"
    )
    (tmp_path / "nested.yaml").write_text("settings: {ppo.lr: 1,\n  ppo: {lr: 2}}\n")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    monkeypatch.chdir(tmp_path)


CASES = [
    ("trian", ["'trian' is no command", "accepted: train", "did you mean 'train'?"]),
    ("train --preset digit", ["--preset: 'digit'", "digits, imagenet256", "did you mean 'digits'?"]),
    ("train --prest digits", ["--prest", "did you mean '--preset'?"]),
    ("train --preset digits --config list.yaml", ["list.yaml holds a list, expected a mapping"]),
    ("train --preset digits preset=mnist", ["--preset digits and preset=mnist: give one of the two"]),
    ("train --config twice.yaml", ["twice.yaml", "line 3: ppo stands here and in line 1"]),
    ("train --config cycle.yaml", ["cycle.yaml", "line 1: *a stands inside of what it names"]),
    ("train --config deep.yaml", ["deep.yaml", "more than 32 lists and mappings inside each other"]),
    ("train --config bomb.yaml", ["bomb.yaml", "more than 10,000 values"]),
    ("train --config latin.yaml", ["--config: latin.yaml is no UTF-8 text: byte 0xe4 in line 1"]),
    ("train --config ~nobody-at-all/x.yaml", ["--config", "no such user's home"]),
    ("train --run-dir=", ["run_dir", "expected some text"]),
    ("train --run-dir " + "x" * 300, ["File name too long"]),
    ("train --run-dir loop/x", ["loop"]),
    ("train policy.hidden_size=4000000000", ["policy.hidden_size: 4000000000 is not accepted", "4096"]),
    ("train seed=" + "9" * 5000, ["seed: a number of 5,000 characters"]),
    ("train decisions.base.values=[[2,1,1,0]]", ["decisions.base.values: row 1: mask_ratio 2 is not accepted"]),
    ("train --batch-size 64", ["training.trajectories_per_iteration=64", "ppo.minibatch_size=64"]),
    ("train --epochs 10", ["training.num_iterations=10", "ppo.num_epochs=10"]),
    ("train --num-workers 4", ["resources.num_env_runners=4", "data.num_workers=4"]),
    ("train --multirun", ["adanat-rl sweep FILE"]),
    ("train -m ppo.lr=1,2", ["adanat-rl sweep FILE"]),
    ("train --device cuda", ["resources.num_gpus_per_env_runner=0.3"]),
    ("train --lr", ["expected a value; type ppo.lr=VALUE"]),
    ("train ppo.lr 1e-4", ["type ppo.lr=1e-4"]),
    ("train ppo.lr = 1e-4", ["type ppo.lr=1e-4"]),
    ("train ppo.lr: 1e-4", ["type ppo.lr=1e-4"]),
    ("train ~ppo.lr", ["cannot be removed"]),
    ("train num_iterations=10", ["did you mean 'training.num_iterations'?"]),
    ("eval", ["did you mean 'evaluate'?"]),
    ("mnist", ["type adanat-rl train --preset mnist"]),
    ("--preset mnist", ["adanat-rl train --preset mnist"]),
    ("sweep sweep.yaml --seeds 99999999 --dry-run", ["seeds: 99999999 is not accepted: 1,000 are the most"]),
    ("sweep grid.yaml --dry-run", ["are 1,000,000 trials; 10,000 are the most"]),
    ("sweep nested.yaml --dry-run", ["nested.yaml, line 2: ppo.lr stands here and in line 1"]),
    ("train --config nowhere.yaml", ["--config: nowhere.yaml: No such file"]),
    ("train --config list.yaml", ["list.yaml holds a list, expected a mapping"]),
    ("train --config broken.yaml", ["broken.yaml is no YAML"]),
    ("train --config unknown.yaml", ["unknown.yaml: ppo.learning_rate: unknown key"]),
    ("train ppo.lrr=1", ["ppo.lrr: unknown key", "did you mean 'lr'?"]),
    ("train lr=1", ["lr: unknown key", "did you mean 'ppo.lr'?"]),
    ("train ppo.lr", ["'ppo.lr' is no override", "expected KEY=VALUE"]),
    ("train ppo.lr=fast", ['ppo.lr: "fast" is not accepted', "valid number"]),
    ("train ppo.lr=-1", ["ppo.lr: -1 is not accepted", "greater than 0"]),
    ("train ppo.lr=.nan", ["ppo.lr", "finite"]),
    (
        "train policy.kind=adaptve",
        ['policy.kind: "adaptve"', "'adaptive', 'per_class' or 'static'", "mean 'adaptive'?"],
    ),
    ("train training.shard_size=100", ["training.shard_size: 100 does not divide", "512"]),
    ("train resources.ray_address=ray://x", ["resources.ray_address"]),
    ("train resources.num_env_runners=1000", ["reserve 400.2 CPUs", "this machine has", "resources.num_env_runners"]),
    ("train resources.num_gpus_per_env_runner=9", ["18 GPUs", "this machine has"]),
    ("train ppo.features=keep", ["ppo.features: keep needs runner and learner in one process"]),
    ("train generator.nat=nowhere", ["generator.nat: no such file: nowhere"]),
    (
        "train generator.nat=asset:digits/nut.safetensors",
        ["no such asset", "did you mean 'asset:digits/nat.safetensors'?"],
    ),
    (f"train generator.nat={DAMAGED}", [f"{DAMAGED} is damaged or no safetensors file"]),
    ("train generator.nat=asset:digits/tokenizer.safetensors", ["holds: patch; accepted here: transformer"]),
    ("train decisions.base.file=schedule.json", ["schedule.json has shape [1, 3], expected 4 rows of 4 numbers"]),
    ("train reward.kind=adversary", ["reward.kind: 'adversary' is no reward", "did you mean 'adversarial'?"]),
    ("train reward.kind=nowhere:Reward", ["reward.kind: nowhere:Reward: cannot import nowhere"]),
    ("train reward.kind=json:Reward", ["json has no Reward"]),
    ("train reward.kind=json:JSONDecoder", ["is no subclass of adanat_rl.rewards.base.RewardModel"]),
    ("train evaluation.reference=nowhere.json", ["evaluation.reference: no such file: nowhere.json"]),
    ("train --run-dir other", ["run_dir: other holds other files and is no run folder"]),
    ("train --run-dir list.yaml", ["run_dir: list.yaml is a file"]),
    ("evaluate --policy nowhere", ["nowhere: there is none; expected a run folder, an exported policy"]),
    ("evaluate --policy list.yaml", ["list.yaml is a file"]),
    ("evaluate --schedule schedule.json", ["schedule.json has shape [1, 3], expected T rows of 4 numbers"]),
    ("evaluate --policy a --schedule b", ["not allowed with"]),
    ("probe --policy nowhere", ["policy: no such folder: nowhere"]),
    ("probe --policy a --schedule b", ["not allowed with"]),
    ("probe --num-images 7", ["--num-images: 7 is not accepted", "at least 8"]),
    ("probe --num-repeats 2", ["--num-repeats: 2 is not accepted", "at least 3"]),
    ("probe --offsets=0,1", ["--offsets: '0,1' is not accepted", "-2,-1,1,2"]),
    ("probe --offsets=1,x", ["--offsets: '1,x' is not accepted"]),
    ("probe --reward-from other", ["--reward-from: other has no checkpoint"]),
    (f"probe --reward-from {DAMAGED}", [f"{DAMAGED} is damaged or no safetensors file"]),
    ("probe --reward-from nowhere", ["--reward-from: no such file: nowhere"]),
    ("probe --output other", ["--output: other is a folder"]),
    ("sample generator.horizon=16", ["generator.horizon: the policy was trained with 4", "nat, tokenizer, captions"]),
    ("evaluate generator.kind=amused", ["generator.kind: the policy was trained with masked_token"]),
    ("evaluate asset:mnist/policy", ["digits are 8×8", "draws are 28×28", "; the policy belongs to --preset mnist"]),
    ("evaluate asset:digits/policy --preset mnist", ["mnist are 28×28", "; the policy belongs to --preset digits"]),
    ("sample generator.nat=nowhere", ["generator.nat: no such file: nowhere"]),
    (
        "prepare --preset cc3m --captions data.path=list.yaml",
        ["text.encoder: no such file: weights/clip-vit-bigg-14", "to get it: hf download laion/CLIP-ViT-bigG"],
    ),
    (
        "prepare --preset imagenet256 --statistics data.path=other",
        ["evaluation.inception: no such file: weights/inception.safetensors", "to get it: adanat-rl import-checkpoint"],
    ),
    ("sample --context 3,x", ["--context: '3,x' is not accepted: expected labels 0 … 9"]),
    ("sample --context 12", ["context: 12 is no label; accepted: 0 … 9"]),
    ("sample --per-context 0", ["--per-context: 0 is not accepted"]),
    ("sample --output picture.jpg", ["--output: picture.jpg is not accepted"]),
    ("sample --output list.yaml/x.png", ["--output: ", "list.yaml is a file, expected a folder"]),
    ("sample --context ²", ["--context: ", "expected labels 0 … 9"]),
    ("sample --context 7-3", ["--context: ", "expected labels 0 … 9"]),
    ("sample --context 0-99999999999999", ["99999999999999 is no label"]),
    ("sample --per-context 1000000000", ["--per-context: 1000000000 is not accepted"]),
    ("sample --seed ²", ["--seed: ² is not accepted"]),
    ("report other --run-dir list.yaml", ["other and --run-dir list.yaml: give one of the two"]),
    ("report other", ["other is no run folder"]),
    ("audit nowhere", ["nowhere is no run folder"]),
    ("export other --output new", ["other is no run folder"]),
    ("pretrain --run-dir other", ["run_dir: other is not empty"]),
    ("pretrain pretraining.num_heads=5", ["pretraining.num_heads: 5 does not divide width (96)"]),
    ("export --run-dir other --output new", ["other is no run folder"]),
    ("export --run-dir other --output other", ["--output: other exists and is not empty"]),
    ("export --run-dir other", ["--output"]),
    ("report --run-dir other", ["other is no run folder"]),
    ("audit --run-dir nowhere", ["nowhere is no run folder"]),
    ("ui --runs other", ["--runs: other has no mlflow.db"]),
    ("ui --runs other --port x", ["--port", "'x'"]),
    ("schema --output", ["--output"]),
]


@pytest.mark.parametrize(("line", "expected"), CASES, ids=[line for line, _ in CASES])
def test_wrong_input_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], line: str, expected: list[str]
) -> None:
    status = main(line.split())
    captured = capsys.readouterr()
    assert status == 2, captured.out + captured.err
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("adanat-rl")
    for part in expected:
        assert part in lines[0]
    assert not Path("runs").exists(), "nothing was written"


def test_a_folder_without_permission_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() == 0:
        folder = "/proc/adanat"  # root may write anywhere but here
    else:
        (tmp_path / "closed").mkdir(mode=0o500)
        folder = str(tmp_path / "closed" / "run")
    assert main(["train", "--run-dir", folder]) == 2
    assert "run_dir: " in capsys.readouterr().err


def test_another_runs_folder_is_refused_with_the_setting_that_differs(capsys, finished_run: Path) -> None:
    from tests import tiny

    assert main(["train", *tiny.OVERRIDES, "ppo.clip=0.3", "--run-dir", str(finished_run)]) == 2
    assert "belongs to another run: ppo.clip is 0.2 there and 0.3 here" in capsys.readouterr().err
