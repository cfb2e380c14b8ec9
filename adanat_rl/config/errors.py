"""The two kinds of failure that a command reports in one line instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """The user's input is wrong. Commands print the message and exit with status 2."""


class RunError(Exception):
    """Something failed while running. Commands print the message and exit with status 1.

    Args:
        message: what happened and to whom.
        safe: what is safe on disk; empty if nothing was written.
        resume: the command that goes on from there; empty if there is none.
    """

    def __init__(self, message: str, safe: str = "", resume: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.safe = safe
        self.resume = resume

    def advised(self, safe: str, resume: str) -> RunError:
        """The same failure, with what is safe and how to go on where it did not say so itself."""
        return RunError(self.message, self.safe or safe, self.resume or resume)


def reason_of(said: object) -> str:
    """What another library says of a bad file, in one line; "unexpected" is said of errors of this program alone."""
    return " ".join(str(said).split()).replace("an unexpected", "an unknown").replace("unexpected ", "")


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint ` (did you mean 'x'?)` with the most similar name, or an empty string."""
    close = get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
