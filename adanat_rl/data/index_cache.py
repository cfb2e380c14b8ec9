"""Indexes of large files, built once: arrays beside the data, or in the user's cache where that is read-only.

All processes of a machine map the same arrays. The key holds name, size and time of every file, so an index of other
files is never taken.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from adanat_rl.data.sources import listing_hash

Arrays = dict[str, np.ndarray]
_VERSION = 1
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def cached_arrays(
    kind: str, files: Sequence[Path], build: Callable[[], Mapping[str, np.ndarray]], folder: str | None = None
) -> Arrays:
    """The arrays of an index, mapped from the cache or built and put there.

    Args:
        kind: what is indexed and how. files: what the index is of. build: makes it.
        folder: where indexes are kept; None: beside the files, or else in the user's cache folder.
    """
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    name = f"{kind}-{listing_hash(_VERSION, kind, facts)[:16]}"
    places = [Path(folder).expanduser()] if folder else _places(files[0].parent)
    for place in places:
        found = _read(place / name)
        if found is not None:
            return found
    arrays = {key: np.asarray(value) for key, value in build().items()}
    for place in places:
        if _write(place / name, arrays):
            return _read(place / name) or arrays
    return arrays


def _places(data: Path) -> list[Path]:
    """Beside the data, unless their folder is marked read-only, which does not stop root; then the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adanat-rl" / "indexes"
    beside = data / ".adanat-index"
    return [beside, cache] if beside.is_dir() or data.stat().st_mode & _WRITABLE else [cache]


def _read(folder: Path) -> Arrays | None:
    """None if it is not there or damaged."""
    try:
        files = sorted(folder.glob("*.npy"))
        return {
            file.stem: np.load(file, mmap_mode="r" if file.stat().st_size > 4096 else None) for file in files
        } or None
    except (OSError, ValueError, EOFError):
        return None


def _write(folder: Path, arrays: Arrays) -> bool:
    """Whether it could be written. The folder appears whole: another process may look at any time."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        for key, value in arrays.items():
            np.save(temporary / f"{key}.npy", value)
        if _read(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)  # a damaged one
            temporary.rename(folder)
    except OSError:
        return folder.is_dir()  # another process was faster, or nothing can be written here
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True
