"""The folder of a private cluster: short, private, owned by a lock; and what a container lets a process use."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import psutil
import pytest

from adanat_rl.config.errors import RunError
from adanat_rl.experiment import cluster_folder as folders
from adanat_rl.experiment import limits
from adanat_rl.experiment.cluster_folder import PREFIX, cluster_folder
from adanat_rl.experiment.reaper import reaper


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place for temporary files, short enough."""
    with tempfile.TemporaryDirectory(prefix="a", dir="/tmp") as short:
        monkeypatch.setattr(folders, "_places", lambda: [tmp_path / ("long" * 20), Path(short)])
        yield Path(short)


def test_it_lies_where_sockets_fit_and_nobody_else_may_look(place: Path) -> None:
    with cluster_folder() as (folder, rays):
        assert folder.parent == place
        assert rays.parent == folder
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        socket = f"{rays}/session_2026-11-27_09-46-43_613953_{2**22}/sockets/plasma_store"
        assert len(os.fsencode(socket)) <= 107


def test_temporary_files_of_libraries_vanish_with_it(place: Path) -> None:
    before = tempfile.gettempdir()
    with cluster_folder() as (folder, _):
        assert folder in Path(tempfile.mkdtemp()).parents
    assert tempfile.gettempdir() == before


def test_no_place_at_all_is_told_with_the_name_of_the_setting(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(folders, "_places", lambda: [tmp_path / ("long" * 20), Path("/nowhere")])
    with (
        pytest.raises(RunError, match=r"bytes too long for sockets; /nowhere: No such file.*set TMPDIR"),
        cluster_folder(),
    ):
        pass


OWNER = """
import sys
from pathlib import Path
from adanat_rl.experiment import cluster_folder
cluster_folder._places = lambda: [Path(sys.argv[1])]
with cluster_folder.cluster_folder() as (folder, _):
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_a_folder_stays_while_its_owner_lives_whatever_pid_it_has(place: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    folder = Path(owner.stdout.readline().strip())
    assert folder.is_dir()
    foreign = place / f"{PREFIX}999999999-x"  # of a version that wrote the process id, seen from another container
    foreign.mkdir()
    with cluster_folder():
        assert folder.is_dir()
        assert foreign.is_dir(), "a process id says nothing here"
    owner.kill()
    owner.wait()
    with cluster_folder():
        assert not folder.exists()


WATCHED = """
import os, sys, time
from pathlib import Path
from adanat_rl.experiment.reaper import reaper
folder = Path(sys.argv[1])
with reaper(os.getpid(), folder, "last words"):
    child = os.fork()
    if child == 0:
        time.sleep(1000)  # a process that was forked keeps the pipe of the reaper open
    print(child, flush=True)
    sys.stdin.read()
    os._exit(0)
"""


def test_the_reaper_sees_the_end_of_a_driver_whose_child_lives_on(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    driver = subprocess.Popen(
        [sys.executable, "-c", WATCHED, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    child = psutil.Process(int(driver.stdout.readline()))
    watcher = next(p for p in psutil.Process(driver.pid).children() if "reaper.py" in " ".join(p.cmdline()))
    driver.stdin.close()
    driver.wait()
    psutil.wait_procs([watcher], timeout=30)
    child.kill()
    assert not folder.exists()
    assert "last words" in driver.stderr.read()


def test_a_reaper_that_was_killed_is_stood_in_for(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    with reaper(os.getpid(), folder, "never said"):
        for child in psutil.Process().children():
            if str(folder) in child.cmdline():
                child.kill()
    assert not folder.exists()


def test_an_agent_whose_parent_went_before_anybody_saw_it_is_ended(tmp_path: Path) -> None:
    """Ray's agents put a title in place of their arguments; what tells them is the log that they hold open."""
    folder = tmp_path / "cluster"
    folder.mkdir()

    def sleeper(title: str, log: Path) -> subprocess.Popen[bytes]:
        with log.open("w") as file:
            return subprocess.Popen([title, "1000"], executable=shutil.which("sleep"), stdout=file)

    with reaper(os.getpid(), folder, "never said"):
        agent = sleeper("ray::RuntimeEnvAgent", folder / "agent.log")
        others = [sleeper("ray::RuntimeEnvAgent", tmp_path / "other.log"), sleeper("mine", folder / "mine.log")]
    try:
        assert agent.wait(timeout=30) != 0
        assert [other.poll() for other in others] == [None, None], "somebody else's processes live on"
    finally:
        for process in (agent, *others):
            process.kill()
            process.wait()


def test_modules_beside_the_reaper_hide_no_others() -> None:
    code = textwrap.dedent("""
        import subprocess, sys
        started = []
        subprocess.Popen = lambda arguments, **_: started.append(arguments) or sys.exit(str(arguments))
        from pathlib import Path
        from adanat_rl.experiment.reaper import reaper
        with reaper(1, Path("x"), ""):
            pass
    """)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "'-P'" in result.stderr


@pytest.mark.parametrize(
    ("quota", "cpus"), [("150000 100000", 1), ("max 100000", None), ("50000 100000", 1), ("", None)]
)
def test_cpus_of_a_container(tmp_path: Path, monkeypatch, quota: str, cpus: int | None) -> None:
    inner = tmp_path / "groups" / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "own").write_text("0::/a/b\n")
    (inner.parent / "cpu.max").write_text(quota)
    monkeypatch.setattr(limits, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(limits, "_OWN_GROUPS", tmp_path / "own")
    assert limits.usable_cpus() == (cpus or len(os.sched_getaffinity(0)))


def test_memory_of_a_container(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(limits, "_GROUPS", tmp_path)
    monkeypatch.setattr(limits, "_OWN_GROUPS", tmp_path / "own")
    (tmp_path / "own").write_text("5:cpu,memory:/docker/x\n")
    group = tmp_path / "memory"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text("1000000")
    (group / "memory.usage_in_bytes").write_text("700000")
    (group / "memory.stat").write_text("total_inactive_file 100000\ncache 5\n")
    assert limits.available_memory() == 400000
    (tmp_path / "own").write_text("0::/\n")
    (tmp_path / "memory.max").write_text("max")
    assert limits.available_memory() > 10**8


def test_a_cluster_without_a_lock_is_left_alone_by_those_who_have_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    folder = tmp_path / f"{PREFIX}mine"
    folder.mkdir()
    with monkeypatch.context() as without_locks:
        without_locks.setattr(fcntl, "flock", refuse)
        descriptor = folders._own(folder)
    try:
        assert not folders._is_stale(folder)
        (folder / "owner").write_text(f"{socket.gethostname()} 999999999 1.00")
        assert folders._is_stale(folder), "of a process that has ended"
        (folder / "owner").write_text("another-machine 1 1.00")
        assert not folders._is_stale(folder)
    finally:
        os.close(descriptor)
