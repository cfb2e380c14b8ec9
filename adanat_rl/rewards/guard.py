"""Calls into somebody's reward: what it raises is told in one line, and in the driver's process it has a deadline.

There each call runs in a thread of its own, so that a reward that hangs ends the command instead of hanging it, and the
process hears signals. What would end the process from within, `os._exit`, becomes an error of the reward too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from adanat_rl.config.errors import RunError, reason_of
from adanat_rl.config.side_thread import DeadlineError, SideThread
from adanat_rl.rewards.base import RewardError

Check = Callable[[], None]
Result = TypeVar("Result")


def nothing() -> None:
    """A check that finds nothing to say."""


class RewardGuard:
    """Makes the calls, one after the other.

    Args:
        check: asked while a call is waited for; what it raises ends the wait.
    """

    def __init__(self, check: Check = nothing) -> None:
        self._check = check
        self._side = SideThread("adanat-rl reward")

    def make(self, work: Callable[[], Result], timeout_s: float | None = None) -> Result:
        """The reward that `work` makes.

        Args:
            timeout_s: seconds that it may take, which is `resources.start_timeout_s`; None: as long as it wants.

        Raises:
            RunError: it cannot be made, or not in time.
        """
        try:
            return self._run(work, timeout_s)
        except DeadlineError:
            raise RunError(f"the reward is not made within resources.start_timeout_s = {timeout_s:g} s") from None
        except (RewardError, SystemExit) as error:
            raise RunError(f"the reward cannot be made: {type(error).__name__}: {reason_of(error)}") from error

    def call(self, work: Callable[[], Result], name: str, what: str, timeout_s: float | None = None) -> Result:
        """What `work` gives, or raises.

        Args:
            name: of the reward. what: the call, as a participle such as "scored". timeout_s: seconds that it may take,
                which is `resources.reward_timeout_s`; None: as long as it wants.

        Raises:
            RunError: it has not ended in time.
        """
        try:
            return self._run(work, timeout_s)
        except DeadlineError:
            raise RunError(
                f"reward {name} has not {what} within resources.reward_timeout_s = {timeout_s:g} s"
            ) from None

    def _run(self, work: Callable[[], Result], timeout_s: float | None) -> Result:
        def guarded() -> Result:
            with no_exit():
                return work()

        return self._side.run(guarded, timeout_s=timeout_s, check=self._check)


@contextmanager
def told(name: str, what: str = "failed") -> Iterator[None]:
    """Inside, whatever a reward raises is told in one line as a `RewardError`; a `RunError` is one already.

    Args:
        name: of the reward. what: it did instead of its work.
    """
    try:
        yield
    except RunError:
        raise
    except (Exception, SystemExit) as error:
        raise RewardError(f"reward {name} {what}: {type(error).__name__}: {reason_of(error)}") from error


@contextmanager
def no_exit() -> Iterator[None]:
    """`os._exit` in this thread raises `RewardError` meanwhile, instead of ending the process without a word."""
    thread, process, real = threading.get_ident(), os.getpid(), os._exit

    def refuse(status: int) -> NoReturn:
        if (threading.get_ident(), os.getpid()) == (thread, process):
            raise RewardError(f"called os._exit({status})")
        real(status)

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = real
