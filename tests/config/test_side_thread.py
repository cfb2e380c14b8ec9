"""Work beside the caller: results, errors, deadlines, requests to stop, and threads that are given up."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from adanat_rl.config.side_thread import DeadlineError, SideThread


class StopError(Exception):
    """What a check raises."""


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Ends the work that hangs."""
    event = threading.Event()
    yield event
    event.set()


def stop() -> None:
    raise StopError


def test_results_and_errors_come_back_from_one_thread() -> None:
    side = SideThread("test")
    threads = {side.run(threading.get_ident) for _ in range(3)}
    assert len(threads) == 1
    assert threads != {threading.get_ident()}
    with pytest.raises(ZeroDivisionError):
        side.run(lambda: 1 / 0)
    with pytest.raises(SystemExit):
        side.run(lambda: (_ for _ in ()).throw(SystemExit(3)))
    assert side.run(lambda: 5) == 5


def test_work_within_work_is_a_plain_call() -> None:
    side = SideThread("test")
    assert side.run(lambda: side.run(threading.get_ident) == threading.get_ident())


def test_work_that_hangs_is_given_up_and_the_next_has_a_fresh_thread(release: threading.Event) -> None:
    side = SideThread("test")
    first = side.run(threading.get_ident)
    with pytest.raises(DeadlineError, match=r"no end within 0\.1 s"):
        side.run(release.wait, timeout_s=0.1)
    assert side.run(threading.get_ident) != first
    assert any(thread.ident == first and thread.name.startswith("given up") for thread in threading.enumerate())


def test_a_check_ends_the_wait_unless_the_work_ends_well_meanwhile(release: threading.Event) -> None:
    side = SideThread("test", grace_s=0.1)
    with pytest.raises(StopError):
        side.run(release.wait, check=stop)
    patient = SideThread("test", grace_s=60.0)
    begun = threading.Event()

    def stop_and_release() -> None:
        begun.set()
        stop()

    assert patient.run(lambda: begun.wait() and "done", check=stop_and_release) == "done"

    def fail() -> None:
        begun.wait()
        raise ValueError("stopped half-way")

    begun.clear()
    with pytest.raises(StopError) as caught:
        patient.run(fail, check=stop_and_release)
    assert isinstance(caught.value.__cause__, ValueError)
