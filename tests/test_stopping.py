"""The request to stop: raised once wherever the main thread is, kept where that is not possible, never lost."""

from __future__ import annotations

import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from adanat_rl.stopping import StopRequest, StopRequested

LONG_S = 30.0  # what waits this long has lost the request


def send(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def wait_for_ever() -> None:
    threading.Event().wait(LONG_S)
    raise AssertionError("nobody was asked to stop")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_raised_where_the_main_thread_is(number: signal.Signals, status: int) -> None:
    stop = StopRequest()
    before = signal.getsignal(number)
    with pytest.raises(StopRequested), stop.installed():
        send(number)
    assert stop.exit_status == status
    assert signal.getsignal(number) is before


def test_a_second_signal_right_behind_the_first_changes_nothing() -> None:
    stop = StopRequest()
    with stop.installed():
        with pytest.raises(StopRequested):
            send(signal.SIGINT)
        send(signal.SIGINT)
        send(signal.SIGTERM)
        assert stop.exit_status == 130
        with pytest.raises(StopRequested):
            stop.check()


def test_what_must_not_be_torn_is_finished_first() -> None:
    stop, done = StopRequest(), []

    def write() -> None:
        send()
        done.append("whole")

    with pytest.raises(StopRequested), stop.installed(), stop.deferred():
        write()
    assert done == ["whole"]


def test_who_asks_is_told_and_nothing_is_raised() -> None:
    stop = StopRequest()
    with stop.installed(), stop.polled():
        assert not stop()
        send()
        assert stop()


class _Dying:
    def __del__(self) -> None:
        send()


def _in_a_callback() -> None:
    class Target:
        pass

    target = Target()
    kept = weakref.ref(target, lambda _: send())
    del target
    assert kept() is None


def _in_a_finalizer() -> None:
    _Dying()


@pytest.mark.parametrize("lose", [_in_a_callback, _in_a_finalizer])
def test_a_request_that_python_swallows_is_raised_again(lose: Callable[[], None]) -> None:
    stop, told = StopRequest(), []

    def work() -> None:
        lose()
        wait_for_ever()

    before = sys.unraisablehook
    sys.unraisablehook = told.append
    try:
        with pytest.raises(StopRequested), stop.installed():
            work()
        assert sys.unraisablehook.__self__ is told, "it is put back"
    finally:
        sys.unraisablehook = before
    assert not told, "nobody reads of it"
    assert stop.exit_status == 143


def test_other_errors_in_finalizers_are_told_as_ever() -> None:
    class Broken:
        def __del__(self) -> None:
            raise ZeroDivisionError

    told: list[object] = []
    before = sys.unraisablehook
    sys.unraisablehook = told.append
    try:
        with StopRequest().installed():
            Broken()
    finally:
        sys.unraisablehook = before
    assert len(told) == 1


def test_a_file_is_a_request_too(tmp_path: Path) -> None:
    stop = StopRequest()
    file = tmp_path / "stop"
    threading.Timer(0.01, file.touch).start()
    with pytest.raises(StopRequested), stop.watching(file):
        wait_for_ever()
    assert stop()
