"""What is told of a process of Ray's, with what the kernel offers and without it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from adanat_rl.rl.ray_processes import RayProcess
from tests.experiment.waiting import DEADLINE_S


@pytest.fixture(params=["pidfd", "none"])
def child(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen]:
    """A process that lives on; nobody collects its status when it is killed, as with a server of Ray's."""
    if request.param == "none":
        monkeypatch.delattr(os, "pidfd_open")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def wait_for_state(process: psutil.Process, state: str, *, is_in: bool = True) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while (process.status() == state) is not is_in:
        assert time.monotonic() < deadline


def test_a_process_that_runs_is_well(child: subprocess.Popen) -> None:
    server = RayProcess("raylet", psutil.Process(child.pid))
    server.look(5.0)
    assert (server.has_ended(), server.is_broken(), server.stopped_s) == (False, False, 0.0)
    assert server.describe() == f"Ray's raylet (process {child.pid})"


def test_a_process_that_is_stopped_is_broken_and_its_time_is_counted_until_it_goes_on(child: subprocess.Popen) -> None:
    process = psutil.Process(child.pid)
    server = RayProcess("raylet", process)
    process.suspend()
    wait_for_state(process, psutil.STATUS_STOPPED)
    server.look(0.5)
    server.look(0.25)
    assert (server.has_ended(), server.is_broken(), server.stopped_s) == (False, True, 0.75)
    process.resume()
    wait_for_state(process, psutil.STATUS_STOPPED, is_in=False)
    server.look(0.5)
    assert (server.is_broken(), server.stopped_s) == (False, 0.0)


def test_a_process_that_was_killed_has_ended_before_and_after_somebody_collects_it(child: subprocess.Popen) -> None:
    process = psutil.Process(child.pid)
    server = RayProcess("GCS", process)
    process.kill()
    wait_for_state(process, psutil.STATUS_ZOMBIE)
    assert server.has_ended()
    assert RayProcess("GCS", process).has_ended(), "whoever looks late sees it as well"
    child.wait()
    assert server.has_ended()
    assert server.is_broken()
    assert RayProcess("GCS", process).has_ended()
