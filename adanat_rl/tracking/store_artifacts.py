"""Artifacts that move with their store: `adanat-rl-file:///runs/mlartifacts/…` is looked for beside the database.

MLflow writes the place of every run's artifacts into its database as an absolute path, so a folder of runs that is
moved or copied loses them. Of these addresses only the part from `mlartifacts` on is taken, with the folder of the
database in front. Where there is no database to go by, as in a client of an HTTP server, the path stands as it was
written.
"""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import unquote, urlsplit

SCHEME = "adanat-rl-file"
FOLDER = "mlartifacts"
_GROUP = "mlflow.artifact_repository"  # of the entry points by which MLflow finds kinds of artifact stores
_SERVED_STORE = "_MLFLOW_SERVER_FILE_STORE"  # what an MLflow server tells its workers about the database


def artifact_location(database: Path) -> str:
    """Address of the artifacts of a database, for a new experiment.

    It names the scheme above if MLflow can find it: not where a checkout was installed before it had the entry point.
    """
    address = (database.parent / FOLDER).as_uri()
    return address.replace("file:", f"{SCHEME}:", 1) if is_known() else address


def is_known() -> bool:
    """Whether every MLflow of this installation finds `artifact_plugin`, which reads such addresses."""
    return any(point.name == SCHEME for point in entry_points(group=_GROUP))


def database_file(uri: str | None) -> Path | None:
    """The file of an SQLite address, absolute; None for any other address."""
    if uri is None or not uri.startswith("sqlite:///"):
        return None
    name = uri.removeprefix("sqlite:///").partition("?")[0]
    return Path(name).resolve() if name and name != ":memory:" else None


def place_of(artifact_uri: str, tracking_uri: str | None) -> Path:
    """Where the artifacts lie now, or are to be written."""
    written = Path(unquote(urlsplit(artifact_uri).path))
    root = next((folder for folder in (written, *written.parents) if folder.name == FOLDER), None)
    database = _own_database() if tracking_uri is None else database_file(tracking_uri)
    if root is None or database is None:
        return written
    beside = database.parent / FOLDER / written.relative_to(root)
    return written if written.exists() and not beside.exists() else beside


def _own_database() -> Path | None:
    """The database of the server that this process is, or the one that MLflow was told to use."""
    from mlflow.tracking import get_tracking_uri

    database = database_file(os.environ.get(_SERVED_STORE)) or database_file(get_tracking_uri())
    return database if database is not None and database.exists() else None
