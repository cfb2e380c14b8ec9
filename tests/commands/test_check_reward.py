"""`check-reward`: table and exit status."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path

import pytest
import torch

from adanat_rl.cli import main
from adanat_rl.rewards.base import RewardBatch, RewardModel, RewardOutput
from tests import tiny

EXAMPLES = Path(__file__).parents[2] / "examples"


class Mean(RewardModel):
    """Fine, unless its images are not 48 of the digits with their passes."""

    def score(self, batch: RewardBatch) -> RewardOutput:
        """Mean grey value."""
        assert batch.images.shape[1:] == (1, 8, 8)
        assert batch.num_passes is not None
        assert batch.labels.max() <= 9
        return RewardOutput(batch.images.mean(dim=(1, 2, 3)))


class Centred(RewardModel):
    """Depends on batch mates without saying so."""

    def score(self, batch: RewardBatch) -> RewardOutput:
        """Relative to the others."""
        means = batch.images.mean(dim=(1, 2, 3))
        return RewardOutput(means - means.mean())


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["check-reward", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_reward_that_keeps_the_contract_ends_with_status_0(capsys) -> None:
    status, printed, errors = call(capsys, f"{__name__}:Mean", "--preset", "digits", "generator.horizon=2")
    assert (status, errors) == (0, "")
    assert f"{__name__}:Mean: keeps the contract" in printed
    assert "[48]" in printed
    assert "ms an image" in printed


def test_a_broken_rule_ends_with_status_1_and_names_it(capsys) -> None:
    status, printed, _ = call(capsys, f"{__name__}:Centred", "--num-images", "16")
    assert status == 1
    assert f"{__name__}:Centred: 1 rule is broken" in printed
    assert "fail" in printed
    assert "[16]" in printed


def test_a_trained_reward_is_checked_with_the_real_images_of_the_preset(capsys) -> None:
    status, printed, _ = call(capsys, "adversarial", *tiny.OVERRIDES, "--num-images", "16")
    assert status == 0
    assert "real_score" in printed


def test_a_reward_of_sets_is_shown_a_shard(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    status, printed, _ = call(capsys, "fid", *tiny.OVERRIDES, "reward.fid.group_size=8")
    assert status == 0
    assert "[16]" in printed
    assert "as set_valued declares" in printed


def test_the_configured_kind_does_not_matter(capsys) -> None:
    settings = ("reward.kind=composite", "reward.parts=[{kind: adversarial}, {kind: classifier}]")
    status, printed, _ = call(capsys, f"{__name__}:Mean", *settings, "--dry-run")
    assert status == 0
    assert f"kind: {__name__}:Mean" in printed


def test_the_example_is_found_beside_the_caller_and_passes() -> None:
    result = tiny.run("check_reward", "own_reward:InkReward", "reward.args.target=0.5", cwd=EXAMPLES)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one reward, got 0; accepted: adversarial, fid,"),
        (["adversarial", "fid"], "expected one reward, got 2"),
        (["composite"], "composite is not accepted: check its parts one by one"),
        (["adversary"], "did you mean 'adversarial'?"),
        (["nowhere:Reward"], "reward.kind: nowhere:Reward: cannot import nowhere"),
        ([f"{__name__}:Mean", "reward.args.power=2"], "unexpected keyword argument 'power'"),
        ([f"{__name__}:Mean", "--num-images", "3"], "--num-images: 3 is not accepted"),
        ([f"{__name__}:Mean", "--preset", "nowhere"], "nowhere"),
        (["clip_score"], "clip_score needs captions"),
        (["aesthetic"], "reward.aesthetic.encoder: null is not accepted"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(capsys, arguments: list[str], message: str) -> None:
    status, printed, errors = call(capsys, *arguments)
    assert (status, printed) == (2, "")
    assert len(errors.splitlines()) == 1
    assert message in errors


class Refusing(RewardModel):
    """Cannot be made."""

    def __init__(self) -> None:
        torch.zeros(1).view(2)

    def score(self, batch: RewardBatch) -> RewardOutput:
        """Never called."""
        raise AssertionError


def test_a_constructor_that_fails_is_a_broken_rule(capsys) -> None:
    status, printed, _ = call(capsys, f"{__name__}:Refusing")
    assert status == 1
    assert "constructor" in printed
    assert "RuntimeError" in printed


class Reward(RewardModel):
    """The mean grey value; others change what comes of it."""

    def score(self, batch: RewardBatch) -> RewardOutput:
        """What `give` makes of it."""
        return RewardOutput(self.give(batch.images.mean(dim=(1, 2, 3))))

    def give(self, means: torch.Tensor) -> torch.Tensor:
        """As it is."""
        return means


class Leaving(Reward):
    """Ends its process."""

    def give(self, means: torch.Tensor) -> torch.Tensor:
        """Never comes back."""
        os._exit(0)


class Quitting(Reward):
    """Ends Python."""

    def give(self, means: torch.Tensor) -> torch.Tensor:
        """Never comes back."""
        sys.exit(3)


class Crashing(Reward):
    """Reads where nothing is."""

    def give(self, means: torch.Tensor) -> torch.Tensor:
        """Never comes back."""
        ctypes.string_at(0)
        return means


class Hanging(Reward):
    """Sleeps."""

    def give(self, means: torch.Tensor) -> torch.Tensor:
        """Not within a lifetime."""
        time.sleep(1e6)
        return means


class HangingConstructor(Reward):
    """Is never made."""

    def __init__(self) -> None:
        time.sleep(1e6)


@pytest.mark.parametrize(
    ("cls", "rule", "detail"),
    [
        (Leaving, "score", "ended the process with status 0"),
        (Quitting, "score", "SystemExit: 3"),
        (Crashing, "score", "the process was ended by SIGSEGV"),
        (Hanging, "score", "no end within resources.reward_timeout_s = 2 s"),
        (HangingConstructor, "constructor", "no end within resources.start_timeout_s = 30 s"),
    ],
)
def test_a_reward_that_never_comes_back_is_a_broken_rule(capsys, cls: type, rule: str, detail: str) -> None:
    limits = (f"resources.reward_timeout_s={2 if cls is Hanging else 60}", "resources.start_timeout_s=30")
    status, printed, errors = call(capsys, f"{__name__}:{cls.__name__}", *limits)
    assert status == 1
    assert rule in printed
    assert detail in " ".join(printed.split())
    assert "1 rule is broken" in printed
    assert errors == ""


class Constant(Reward):
    """Likes all images equally."""

    def give(self, means: torch.Tensor) -> torch.Tensor:
        """One half."""
        return torch.full_like(means, 0.5)


def test_a_constant_reward_is_told(capsys) -> None:
    status, printed, _ = call(capsys, f"{__name__}:Constant")
    assert status == 0, "a constant is a reward by the contract"
    assert f"{__name__}:Constant: warning: it gave all images the same score" in printed
