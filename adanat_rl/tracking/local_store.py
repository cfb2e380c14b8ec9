"""The SQLite store beside the runs: made whole or not at all, and its old artifact addresses made movable."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from adanat_rl.tracking.store_artifacts import FOLDER, SCHEME, is_known

_BUSY_S = 10.0
_ADDRESSES = (  # columns of MLflow's tables that hold addresses of artifacts
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def prepare_store(database: Path) -> None:
    """Makes the store if there is none, and has a look at it if there is one.

    Two processes may do so at once: each makes a store of its own, and the first to have it in place wins.

    Raises:
        OSError, sqlite3.Error: it cannot be made, opened or read.
    """
    if not database.exists() or database.stat().st_size == 0:
        _make(database)
    make_addresses_movable(database)


def make_addresses_movable(database: Path) -> None:
    """Lets the artifacts of a store of an earlier version, or of one that was moved, be found beside the database.

    Absolute addresses of a folder `mlartifacts` that belongs to this database, or that is no longer there, get the
    scheme that looks beside the database. A folder of that name elsewhere, which someone chose, is left alone.
    """
    with closing(_connect(database)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "experiments" not in tables or not is_known():
            return
        found = connection.execute("SELECT artifact_location FROM experiments").fetchall()
        roots = {root for (address,) in found if (root := _root(address)) is not None}
        ours = {root for root in roots if _belongs(root, database)}
        if not ours:
            return
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for root in ours:
                moved = root.replace("file:", f"{SCHEME}:", 1)
                for table, column in _ADDRESSES:
                    if table in tables and column in _columns(connection, table):
                        connection.execute(
                            f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                            f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                            (moved, len(root) + 1, root, len(root) + 1, f"{root}/"),
                        )


def _make(database: Path) -> None:
    """MLflow's tables are made in a temporary folder, so nobody ever meets half of them."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    database.parent.mkdir(parents=True, exist_ok=True)
    beside = database.with_name(f".{database.name}.{os.getpid()}.tmp")
    try:
        beside.touch()  # a folder where nothing can be written is told before seconds of work
        with tempfile.TemporaryDirectory(prefix="adanat-rl-store-") as folder:
            draft = Path(folder) / database.name
            store = SqlAlchemyStore(f"sqlite:///{draft}", folder)
            store.engine.dispose()
            with closing(sqlite3.connect(draft)) as made, closing(sqlite3.connect(beside)) as copy:
                made.execute(  # the default experiment's artifacts would lie in the temporary folder
                    "UPDATE experiments SET artifact_location = replace(artifact_location, ?, ?)",
                    (str(folder), (database.parent / FOLDER).as_uri()),
                )
                made.commit()
                made.backup(copy)
        if database.exists() and database.stat().st_size == 0:
            database.unlink()
        with suppress(FileExistsError):  # another process was first
            _put(beside, database)
    finally:
        beside.unlink(missing_ok=True)


def _put(source: Path, target: Path) -> None:
    """Gives a file its name, unless there is one of that name."""
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError from None
        source.replace(target)


def _connect(database: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(database, timeout=_BUSY_S, isolation_level=None)
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # a file of another kind is found out here
    return connection


def _root(address: str | None) -> str | None:
    """The part of a `file:` address up to the folder of artifacts; None for any other address."""
    if not address or not address.startswith("file:"):
        return None
    head, found, _ = f"{address}/".rpartition(f"/{FOLDER}/")
    return f"{head}/{FOLDER}" if found else None


def _belongs(root: str, database: Path) -> bool:
    folder = Path(unquote(urlsplit(root).path))
    return not folder.exists() or folder.parent == database.parent or (folder.parent / database.name).exists()


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
