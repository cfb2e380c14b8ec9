"""Failures that no command expects: one line, the right status, and a traceback where its reader is."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adanat_rl.cli import Invocation, main, run_command
from adanat_rl.config.errors import RunError, UserError
from adanat_rl.console import failures
from adanat_rl.console.failures import plain_warnings


def status_of(error: BaseException) -> int:
    def body(_: Invocation) -> int:
        raise error

    return run_command("train", [], body)


@pytest.mark.parametrize(
    ("number", "status"),
    [
        *((number, 2) for number in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT)),
        *((number, 1) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.ESTALE)),
        *((number, 1) for number in (errno.ENOLCK, errno.EMFILE, errno.EBUSY, errno.EFBIG)),
    ],
)
def test_what_the_operating_system_refuses_is_one_line_with_the_file(capsys, number: int, status: int) -> None:
    assert status_of(OSError(number, os.strerror(number), "runs/a\nb")) == status
    assert capsys.readouterr().err == f"adanat-rl train: runs/a\\nb: {os.strerror(number)}\n"


def test_an_error_of_ours_names_the_file_of_its_traceback(
    capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert status_of(ZeroDivisionError("first\nsecond")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("adanat-rl train: unexpected ZeroDivisionError: first; traceback in ")
    assert "ZeroDivisionError: first" in Path(line.rpartition(" in ")[2]).read_text("utf-8")


def test_in_a_job_the_traceback_is_in_its_log(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert status_of(ZeroDivisionError("first")) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_memory_that_is_not_there_is_told(capsys) -> None:
    assert status_of(MemoryError()) == 1
    assert "out of memory" in capsys.readouterr().err


def test_what_somebody_typed_reaches_the_terminal_as_one_line(capsys) -> None:
    status = main(["train", "--dry-run", "--horizon", "a\x0cb\x85\x1b[31m\nc"])
    printed = capsys.readouterr()
    assert status == 2
    for line in printed.err.splitlines():
        assert line.isprintable()
    assert "\\x0c" in printed.err
    assert "\x1b" not in printed.err


def test_a_warning_of_ours_is_one_line_and_that_of_others_is_left_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[tuple[object, ...]] = []
    monkeypatch.setattr(warnings, "showwarning", lambda *what: others.append(what))
    ours = str(Path(failures.__file__).parent.parent / "data" / "damage.py")
    with plain_warnings():
        warnings.showwarning("damaged sample left out: a.png", RuntimeWarning, ours, 3)
        warnings.showwarning("old", UserWarning, "elsewhere.py", 3)
    warnings.showwarning("afterwards", RuntimeWarning, ours, 3)
    assert capsys.readouterr().err == "warning: damaged sample left out: a.png\n"
    assert [what[0] for what in others] == ["old", "afterwards"]


class _Asking:
    """Asks for its process to be stopped where C code drops whatever is raised."""

    @property
    def __cuda_array_interface__(self) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return None

    def __len__(self) -> int:
        raise ValueError("no length")

    def __getitem__(self, _: int) -> float:
        raise IndexError


def _unnamed() -> int:
    torch.tensor(_Asking())
    return 0


def _taken_for_damage() -> int:
    try:
        torch.tensor(_Asking())
    except ValueError as error:
        raise UserError("weights.safetensors is damaged") from error
    return 0


def _of_own_code() -> int:
    try:
        torch.tensor(_Asking())
    except ValueError as error:
        raise RunError("judge a:B failed") from error
    return 0


def _fallen_back() -> int:
    with contextlib.suppress(ValueError):
        torch.tensor(_Asking())
    return 0


@pytest.mark.parametrize("work", [_unnamed, _taken_for_damage, _of_own_code, _fallen_back])
def test_a_request_to_stop_that_c_code_turns_into_another_error_is_no_other_error(
    capsys, work: Callable[[], int]
) -> None:
    assert run_command("export", [], lambda _: work()) == 143
    assert capsys.readouterr().err == "adanat-rl export: terminated\n"


def test_what_fails_while_a_request_is_handled_is_told(capsys) -> None:
    def fail(invocation: Invocation) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt as stop:
            raise UserError("the disk is full") from stop
        return 0

    def fail_later(invocation: Invocation) -> int:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        if invocation.stop():
            raise UserError("the disk is full")
        return 0

    def fail_after_catching(invocation: Invocation) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            invocation.stop.note()
        raise UserError("the disk is full")

    for body in (fail, fail_later, fail_after_catching):
        assert run_command("export", [], body) == 2
        assert capsys.readouterr().err == "adanat-rl export: the disk is full\n"
