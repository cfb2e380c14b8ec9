"""Measures an `.npz` before its arrays are read: what it claims to hold must be there, and be of a bearable size."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from adanat_rl.config.errors import UserError, reason_of
from adanat_rl.config.plain_files import require_plain_file

_PACKED_AT_MOST = 100  # bytes of an array for one byte of the file; measured features and covariances pack little
_FREE_BYTES = 64 * 2**20
_MAX_ARRAYS = 1_000


def check_archive(path: Path) -> None:
    """Refuses an `.npz` whose arrays are not as long as their headers say, or that unpacks to far more than its size.

    Raises:
        UserError: it does, is missing, no plain file, or no `.npz` of plain arrays.
    """
    size = require_plain_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > _MAX_ARRAYS:
                raise UserError(f"{path} holds {len(entries):,} arrays; accepted: at most {_MAX_ARRAYS:,}")
            unpacked = sum(entry.file_size for entry in entries)
            if unpacked > _PACKED_AT_MOST * size + _FREE_BYTES:
                raise UserError(f"{path} has {size:,} bytes and would unpack to {unpacked:,}; it is not read")
            for entry in entries:
                if entry.filename.endswith(".npy"):
                    _check_array(archive, entry)
    except UserError:
        raise
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        reason = reason_of(error)[:200]
        raise UserError(f"{path} is damaged or no .npz of plain arrays: {type(error).__name__}: {reason}") from None


def array_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of an `.npz` by name; the arrays are not read.

    Raises:
        UserError: as `check_archive`.
    """
    check_archive(path)
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
        return {entry.filename.removesuffix(".npy"): _header(archive, entry)[0] for entry in entries}


def _header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, dtype, and the bytes that the header itself takes."""
    with archive.open(entry) as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
        return tuple(shape), dtype, file.tell()


def _check_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """The length of an array by its header, against the length of its entry; objects of Python are nobody's to read."""
    shape, dtype, length = _header(archive, entry)
    wrong = min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != entry.file_size - length
    if wrong and not dtype.hasobject:
        raise ValueError(f"{entry.filename} is said to be {dtype} {list(shape)[:8]}, which its bytes are not")
