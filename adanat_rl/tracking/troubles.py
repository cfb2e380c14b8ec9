"""What an MLflow server or store means by an error: it is away, or it refuses, and then what to do about it."""

from __future__ import annotations

import errno
import re
import sqlite3
from dataclasses import dataclass

from adanat_rl.config.secrets import hide_secrets

_LENGTH = 160
_PATH_ERRORS = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST}


@dataclass(frozen=True)
class Trouble:
    """One kind of trouble, said in one line.

    Args:
        is_absence: whether it may be over by itself. sentence: what is wrong and what helps. Two troubles of one kind
            have one sentence, so that it is said once.
    """

    is_absence: bool
    sentence: str


class StoreError(Exception):
    """A refusal of our own: of a store that nothing can be sent to as it is."""


def explain(error: BaseException, place: str, experiment: str, later: str = "it is sent later") -> Trouble:
    """What an error means to a run.

    Args:
        place: how the store is called, such as `MLflow at http://host:5000`. experiment: name of the MLflow experiment.
        later: what becomes of what could not be sent, if the store is away.
    """
    text = hide_secrets(" ".join(str(error).split()))
    if isinstance(error, StoreError):
        return _refused(f"{place}: {text}")
    refusal = _refusal(error, text, experiment)
    if refusal is not None:
        return _refused(f"{place} {refusal}")
    if isinstance(error, OSError) and error.errno in _PATH_ERRORS:
        return _refused(f"{place} cannot be written: {error.strerror} ({hide_secrets(str(error.filename))})")
    if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
        return Trouble(True, f"{place}: {error.strerror or text[:_LENGTH]}; {later}")
    reason = _absence(text)
    if reason is not None:
        return Trouble(True, f"{place} is away ({reason}); {later}")
    status = _status(error)
    if isinstance(error, sqlite3.Error) or (status is not None and 400 <= status < 500 and status not in {408, 429}):
        return _refused(f"{place} refuses: {text[:_LENGTH]}")
    return Trouble(True, f"{place} is away ({type(error).__name__}: {text[:_LENGTH]}); {later}")


def _refused(sentence: str) -> Trouble:
    return Trouble(False, sentence)


def _refusal(error: BaseException, text: str, experiment: str) -> str | None:
    """What the known refusals mean; None for anything else."""
    low, status = text.lower(), _status(error)
    found = re.search(r"experiment '?(\S+?)'? must be in the 'active' state", low) or re.search(
        r"experiment '?(\S+?)'? already exists in deleted state", low
    )
    if found:
        return (
            f"refuses: its experiment {experiment!r} was deleted there; restore it with "
            f"`mlflow experiments restore --experiment-id {found[1]}`, or choose another with tracking.experiment="
        )
    found = re.search(r"run '?(\w+)'? must be in the 'active' state", low)
    if found:
        return (
            f"refuses: the run was deleted there; restore it with `mlflow runs restore --run-id {found[1]}`, or delete "
            "tracking.json in the run folder to send it as a new run"
        )
    if status == 401 or "unauthenticated" in low:
        return "wants a user and a password: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or a token"
    if status == 403:
        return f"refuses: this user may not write in its experiment {experiment!r}; ask its owner for the permission"
    if "out-of-date database schema" in low or "can't locate revision" in low:
        return (
            "refuses: its database was made by another version of MLflow; `mlflow db upgrade ADDRESS` makes an older "
            "one newer (after a backup), `pip install -U mlflow` reads a newer one"
        )
    for words, meaning in _REFUSALS:
        if words in low:
            return meaning
    if status in {404, 405} and ("<html" in low or "endpoint" in low):
        return "does not answer as an MLflow server: check the address and the port"
    return None


_REFUSALS = (
    ("readonly database", "cannot be written: the file or its disk is read-only"),
    ("read-only file system", "cannot be written: its disk is read-only"),
    ("permission denied", "cannot be written: no permission"),
    ("unable to open database file", "cannot be opened: check that its folder exists and may be written in"),
    ("file is not a database", "is no database of MLflow: move the file away, and a new one is made"),
    (
        "disk image is malformed",
        "is a damaged database: move the file away, and a new one is made from the run folders",
    ),
    ("file store", "keeps its runs in plain files, which this MLflow does not support: use sqlite:///FILE or a server"),
    (
        "filesystem tracking backend",
        "keeps its runs in plain files, which this MLflow does not support: use sqlite:///FILE",
    ),
    ("unsupported uri", "is no address of a store: expected http(s)://HOST:PORT, sqlite:///FILE or another database"),
    (
        "unable to get store",
        "is no address of a store: expected http(s)://HOST:PORT, sqlite:///FILE or another database",
    ),
    (
        "model registry functionality is unavailable",
        "is no address of a store: expected http(s)://HOST:PORT or sqlite:///FILE",
    ),
    ("invalid url", "is no address of a server: expected http(s)://HOST:PORT"),
    ("no module named", "needs a package that is not installed: the driver of that kind of database"),
    ("could not parse", "is no address of a store: expected http(s)://HOST:PORT, sqlite:///FILE or another database"),
)


def _absence(text: str) -> str | None:
    low = text.lower()
    for words, meaning in (
        ("database is locked", "its database is locked by another process"),
        ("disk is full", "its disk is full"),
        ("no space left", "its disk is full"),
        ("connection refused", "connection refused"),
        ("name or service not known", "its host is not known"),
        ("name resolution", "its host is not known"),
        ("failed to resolve", "its host is not known"),
        ("no route to host", "no route to its host"),
        ("network is unreachable", "the network is unreachable"),
        ("timed out", "it does not answer in time"),
        ("timeout", "it does not answer in time"),
    ):
        if words in low:
            return meaning
    found = re.search(r"(?:error code|too many) (\d{3})", low)
    return f"HTTP status {found[1]}" if found and found[1].startswith("5") else None


def _status(error: BaseException) -> int | None:
    """HTTP status of an MLflow error; None for another kind of error."""
    ask = getattr(error, "get_http_status_code", None)
    return int(ask()) if ask is not None else None
