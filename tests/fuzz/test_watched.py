"""The watcher notices each kind of wrong ending, and lets right ones pass."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adanat_rl.config.errors import RunError, UserError
from tests.fuzz import watched


def says(text: str, status: int) -> Callable[[], int]:
    def call() -> int:
        print(text, file=sys.stderr, end="")
        return status

    return call


def raises(error: BaseException) -> Callable[[], int]:
    def call() -> int:
        raise error

    return call


def waits_for_ever() -> int:
    os.mkfifo("fifo")
    try:
        Path("fifo").read_bytes()
    except Exception:
        return 0  # a command that catches what it should not
    return 0


def takes_memory() -> int:
    return int(np.ones(400_000_000, np.float32)[::4096].sum() < 0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (raises(KeyError("x")), "raises KeyError"),
        (raises(SystemExit(3)), "status 3"),
        (says("adanat-rl train: unexpected KeyError: 'x'; traceback in y\n", 1), "internal error: adanat-rl train"),
        (says("Traceback (most recent call last):\nKeyError: 1\n", 1), "traceback: KeyError: 1"),
        (says("", 2), "silent: status 2"),
        (says("one\ntwo\n", 2), "wordy: status 2 with 2 lines"),
        (says("1\n2\n3\n4\n5\n", 1), "wordy: status 1 with 5 lines"),
        (takes_memory, "large: "),
        (waits_for_ever, "hangs: "),
    ],
)
def test_each_wrong_ending_is_noticed(call, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "HANG_S", 2.0 if call is waits_for_ever else 60.0)
    assert str(watched.in_process(call, tmp_path).problem()).startswith(words)


def test_slow_refusals_are_noticed_and_slow_work_is_not() -> None:
    assert str(watched.Outcome(2, "", "line", cpu_s=11).problem()).startswith("slow: status 2")
    assert watched.Outcome(0, "", "", cpu_s=11).problem() is None


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (says("", 0), 0),
        (says("adanat-rl train: ppo.lr: wrong\n", 2), 2),
        (says("adanat-rl train: stopped\n  safe: checkpoint\n  go on with: adanat-rl train\n", 1), 1),
        (raises(UserError("wrong")), 2),
        (raises(RunError("failed")), 1),
        (raises(SystemExit(0)), 0),
    ],
)
def test_right_endings_pass(call, status: int, tmp_path: Path) -> None:
    outcome = watched.in_process(call, tmp_path)
    assert outcome.problem() is None
    assert outcome.status == status
