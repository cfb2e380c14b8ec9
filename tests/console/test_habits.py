"""What people type elsewhere: understood and printed, or answered with the words to type."""

from __future__ import annotations

from pathlib import Path

import pytest

from adanat_rl.cli import add_display_options, command_parser
from adanat_rl.config.errors import UserError
from adanat_rl.train import SECTIONS

NO_GPU = [f"resources.num_gpus_per_{who}=0" for who in ("env_runner", "reward_actor", "learner", "driver")]


def parsed(line: str, command: str = "train", sections: tuple[str, ...] = SECTIONS):
    parser = command_parser(command, settings=sections)
    add_display_options(parser)
    return parser.parse_args(line.split())


@pytest.mark.parametrize(
    ("line", "overrides"),
    [
        ("--lr 1e-4", ["ppo.lr=1e-4"]),
        ("--lr=1e-4", ["ppo.lr=1e-4"]),
        ("--learning-rate 1e-4", ["ppo.lr=1e-4"]),
        ("--learning_rate 1e-4", ["ppo.lr=1e-4"]),
        ("--lr -1", ["ppo.lr=-1"]),
        ("--seed 3", ["seed=3"]),
        ("--ppo.lr=1e-4", ["ppo.lr=1e-4"]),
        ("--ppo.lr 1e-4", ["ppo.lr=1e-4"]),
        ("-ppo.lr 1e-4", ["ppo.lr=1e-4"]),
        ("ppo/lr=1e-4", ["ppo.lr=1e-4"]),
        ("ppo__lr=1e-4", ["ppo.lr=1e-4"]),
        ("+ppo.lr=1e-4", ["ppo.lr=1e-4"]),
        ("++ppo.lr=1e-4", ["ppo.lr=1e-4"]),
        ("--n-epochs 3", ["ppo.num_epochs=3"]),
        ("--clip-range 0.1", ["ppo.clip=0.1"]),
        ("--num-iterations 3", ["training.num_iterations=3"]),
        ("--horizon 8", ["generator.horizon=8"]),
        ("--device cpu", NO_GPU),
        ("--device=cpu", NO_GPU),
        ("--resume", []),
    ],
)
def test_settings_typed_like_options_are_taken_and_told(capsys, line: str, overrides: list[str]) -> None:
    assert parsed(line).overrides == overrides
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith(f"adanat-rl train: took {line.split(' ')[0]}")
    assert all(override in captured.err for override in overrides)


@pytest.mark.parametrize("quiet", ["--quiet", "--log-json"])
def test_nothing_is_told_where_silence_was_asked_for(capsys, quiet: str) -> None:
    assert parsed(f"--lr 1e-4 {quiet}").overrides == ["ppo.lr=1e-4"]
    assert capsys.readouterr().err == ""


def test_own_words_are_taken_as_they_are(capsys) -> None:
    line = "--preset mnist ppo.lr=1e-4 --config x.yaml --run-dir=a reward.kind=a:B preset=mnist"
    arguments = parsed(line)
    assert arguments.overrides == ["ppo.lr=1e-4", "reward.kind=a:B", "preset=mnist"]
    assert (arguments.preset, str(arguments.config), arguments.run_dir) == ("mnist", "x.yaml", "a")
    assert capsys.readouterr().err == ""


def test_presets_files_and_runs_are_recognised(capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("")
    (tmp_path / "mine.yaml").write_text("")
    assert parsed("mnist").preset == "mnist"
    assert str(parsed("mine.yaml").config) == "mine.yaml"
    assert parsed("run").run_dir == "run"
    assert parsed("--resume run").run_dir == "run"
    assert parsed("--resume-from-checkpoint=run/checkpoints/iteration_000003").run_dir == "run"
    assert parsed("-q mnist").quiet
    capsys.readouterr()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--epochs 10", ["training.num_iterations=10 (", "ppo.num_epochs=10 ("]),
        ("--batch-size=64", ["ppo.minibatch_size=64 (", "reward.adversarial.batch_size=64 ("]),
        ("--num-workers 4", ["resources.num_env_runners=4 (", "data.num_workers=4 ("]),
        ("--kind fid", ["policy.kind=fid", "reward.kind=fid"]),
        ("--device cuda", ["resources.num_gpus_per_env_runner=0.3"]),
        ("--gamma 0.9", ["no discount"]),
        ("-m", ["adanat-rl sweep FILE"]),
        ("--lr", ["type ppo.lr=VALUE"]),
        ("ppo.lr", ["type ppo.lr=VALUE"]),
        ("ppo.lr 1e-4", ["type ppo.lr=1e-4"]),
        ("~ppo.lr", ["type ppo.lr=VALUE"]),
        ("--foo 1", ["unrecognized arguments: --foo"]),
        ("--preset", ["--preset", "expected one argument"]),
    ],
)
def test_what_is_not_plain_is_answered_with_the_words_to_type(line: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parsed(line)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert "did you mean 'ppo.lr'" not in message


def test_names_are_those_of_the_settings_that_a_command_takes(capsys) -> None:
    assert parsed("--lr 1", "pretrain", ("name", "seed", "pretraining")).overrides == ["pretraining.lr=1"]
    assert parsed("--device cuda", "search", ("name", "resources")).overrides == ["resources.num_gpus_per_driver=1"]
    with pytest.raises(UserError, match="unrecognized arguments: --lr"):
        parsed("--lr 1", "evaluate", ("name", "evaluation"))
    capsys.readouterr()
