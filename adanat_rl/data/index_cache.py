"""Indexes of large files, built once: arrays beside the data, or in the user's cache where that is read-only.

All processes of a machine map the same arrays. The key holds name, size and time of every file, so an index of other
files is never taken; a checksum of every array tells one that is damaged, which is built again. Where nothing can be
written an index is built and kept in memory.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adanat_rl.data.patterns import user_path
from adanat_rl.data.sources import listing_hash

Arrays = dict[str, np.ndarray]
_VERSION = 2
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_MANIFEST = "index.json"
_MAPPED_BYTES = 4096  # a larger file is mapped


def cached_arrays(
    kind: str, files: Sequence[Path], build: Callable[[], Mapping[str, np.ndarray]], folder: str | None = None
) -> Arrays:
    """The arrays of an index, mapped from the cache or built and put there.

    Args:
        kind: what is indexed and how. files: what the index is of. build: makes it.
        folder: where indexes are kept; None: beside the files, or else in the user's cache folder.
    """
    name = _name(kind, files)
    places = [user_path(folder, "data.index_folder")] if folder else _places(files[0].parent)
    for place in places:
        found = _read(place / name)
        if found is not None:
            return found
    arrays = {key: np.asarray(value) for key, value in build().items()}
    if _name(kind, files) != name:  # the files changed meanwhile: this index is of neither state
        return arrays
    for place in places:
        if _write(place / name, arrays):
            return _read(place / name) or arrays
    return arrays


def _name(kind: str, files: Sequence[Path]) -> str:
    facts = []
    for file in files:
        status = file.stat()
        facts.append((file.name, status.st_size, status.st_mtime_ns))
    return f"{kind}-{listing_hash(_VERSION, kind, facts)[:16]}"


def _places(data: Path) -> list[Path]:
    """Beside the data, unless their folder is marked read-only, which does not stop root; then the user's cache."""
    beside, cache = data / ".adanat-index", _user_cache()
    writable = os.path.isdir(beside) or _mode(data) & _WRITABLE  # noqa: PTH112  (never raises)
    return [*([beside] if writable else []), *([cache] if cache else [])]


def _mode(folder: Path) -> int:
    try:
        return folder.stat().st_mode
    except OSError:
        return 0


def _user_cache() -> Path | None:
    """XDG's cache folder, or the one in the home folder; None for who has neither, such as a user without an entry."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    if Path(named).is_absolute():  # XDG's rule: others are ignored
        return Path(named) / "adanat-rl" / "indexes"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return None if home == Path(home.anchor) else home / ".cache" / "adanat-rl" / "indexes"


def _read(folder: Path) -> Arrays | None:
    """None if it is not there, damaged or of another version."""
    try:
        manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["version"] != _VERSION:
            return None
        return {name: _load(folder / f"{name}.npy", checksum) for name, checksum in manifest["arrays"].items()} or None
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _load(path: Path, checksum: int) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode="r" if path.stat().st_size > _MAPPED_BYTES else None)
    if _checksum(array) != checksum:
        raise ValueError("damaged")
    return array


def _checksum(array: np.ndarray) -> int:
    """Of content, shape and type."""
    head = f"{array.dtype.str} {array.shape}".encode()
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, zlib.crc32(head))


def _write(folder: Path, arrays: Arrays) -> bool:
    """Whether it is there now. The folder appears whole: another process may look, or write the same, at any time."""
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.tmp")
    try:
        temporary.mkdir(parents=True)
        for key, value in arrays.items():
            np.save(temporary / f"{key}.npy", value)
        manifest = {"version": _VERSION, "arrays": {key: _checksum(value) for key, value in arrays.items()}}
        (temporary / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        if _read(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)  # a damaged one
            temporary.rename(folder)
    except OSError:
        return _read(folder) is not None  # another process was faster, or nothing can be written here
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True
