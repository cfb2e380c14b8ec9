"""The lock on a folder where file systems have locks, and where they have none; what a start notes about itself."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.experiment.environment import git_revision
from adanat_rl.experiment.lock import LOCK, acquire_lock
from adanat_rl.experiment.run_folder import disk_error

NO_LOCKS = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]


def without(monkeypatch: pytest.MonkeyPatch, number: int, *names: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    for name in names:
        monkeypatch.setattr(fcntl, name, refuse)


@pytest.mark.parametrize("number", NO_LOCKS)
@pytest.mark.parametrize("names", [("flock",), ("flock", "lockf")])
def test_a_file_system_without_locks_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, names: tuple[str, ...]
) -> None:
    without(monkeypatch, number, *names)
    for _ in range(2):  # also over the note that the first one left
        acquire_lock(tmp_path).close()
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_without_locks_the_note_of_a_living_process_keeps_others_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, errno.ENOSYS, "flock", "lockf")
    holder = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    note = tmp_path / LOCK
    note.write_text(f"process {holder.pid} on {socket.gethostname()}, since now")
    os.utime(note, (time.time() + 60,) * 2)
    try:
        with pytest.raises(UserError, match=f"in use by process {holder.pid} on"):
            acquire_lock(tmp_path)
    finally:
        holder.communicate(b"\n")
    acquire_lock(tmp_path).close()


@pytest.mark.parametrize("note", ["", "\x00\xff", "process 1 on", "process 99999999999999999999 on here, since ever"])
def test_a_note_that_says_nothing_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, note: str) -> None:
    without(monkeypatch, errno.ENOSYS, "flock", "lockf")
    (tmp_path / LOCK).write_bytes(note.encode("latin-1"))
    acquire_lock(tmp_path).close()
    assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on "), "it is ours now"


def test_an_error_of_the_disk_is_no_missing_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, errno.EIO, "flock")
    with pytest.raises(OSError, match="Input/output error"):
        acquire_lock(tmp_path)


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_revision_is_that_of_the_package_and_not_of_what_lies_around_it(tmp_path: Path) -> None:
    package = tmp_path / "adanat_rl"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert git_revision(package) is None, "no checkout"
    git(tmp_path, "init", "-q")
    (tmp_path / "notes.txt").write_text("mine")
    git(tmp_path, "add", "notes.txt")
    git(tmp_path, "commit", "-qm", "x")
    assert git_revision(package) is None, "installed in somebody's project, which does not track it"
    inside = tmp_path / ".venv" / "lib" / "adanat_rl"
    inside.mkdir(parents=True)
    (inside / "__init__.py").write_text("")
    assert git_revision(inside) is None
    git(tmp_path, "add", "adanat_rl")
    git(tmp_path, "commit", "-qm", "y")
    assert git_revision(package) == git(tmp_path, "rev-parse", "HEAD")
    (package / "__init__.py").write_text("# changed")
    assert git_revision(package) == git(tmp_path, "rev-parse", "HEAD") + "+changes"


def test_a_file_elsewhere_is_not_told_as_a_problem_of_the_run_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    elsewhere = disk_error(OSError(errno.EIO, "Input/output error", str(tmp_path / "photo.png")), run, "all", "again")
    assert isinstance(elsewhere, RunError)
    assert elsewhere.message == f"cannot use {tmp_path}/photo.png: Input/output error"
    inside = disk_error(OSError(errno.EISDIR, "Is a directory", str(run / "report.html")), run, "all", "again")
    assert inside is not None
    assert "report.html" in inside.message
    full = disk_error(OSError(errno.ENOSPC, "No space left on device"), run, "all", "again")
    assert full is not None
    assert full.message == f"cannot write in {run}: No space left on device"
    assert disk_error(OSError(errno.ECONNREFUSED, "Connection refused"), run, "all", "again") is None
