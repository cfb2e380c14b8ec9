"""Reads the file of another program: a checkpoint of torch, safetensors, or arrays of NumPy; nothing in it can run.

What is no such file is told apart (a page of a web site, a pointer of Git LFS, a download that was cut off), because
those are what people have in hand when an import fails.
"""

from __future__ import annotations

import json
import re
import shlex
import struct
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from adanat_rl.config.errors import UserError, reason_of
from adanat_rl.config.files import file_sha256
from adanat_rl.generation.weight_header import other_program
from adanat_rl.generation.weights import read_tensors
from adanat_rl.metrics.statistics import read_arrays

_ZIP = b"PK\x03\x04"
# What torch raises for bytes that are no checkpoint
_DAMAGED = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    AssertionError,
)
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


@dataclass(frozen=True)
class ForeignFile:
    """What a file holds.

    Args:
        path: of the file. sha256: of its bytes.
        content: the outermost mapping; of an `.npz` its arrays by name.
        metadata: of a safetensors file, else empty.
    """

    path: Path
    sha256: str
    content: Mapping[str, Any]
    metadata: Mapping[str, str]


def read_foreign(path: Path) -> ForeignFile:
    """Reads a file by what it is, whatever its name says.

    Raises:
        UserError: it is missing, no checkpoint, cut off, or needs code to load.
    """
    head = _head(path)
    metadata: dict[str, str] = {}
    content: Any
    if _is_safetensors(head):
        content, metadata = read_tensors(path)
    elif head.startswith(_ZIP):
        content = _read_zip(path)
    elif head.startswith(b"\x80"):
        content = _load(path, mmap=False)
    else:
        raise UserError(f"{path} is {_not_a_checkpoint(head)}")
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, expected tensors by name (a state dict)")
    return ForeignFile(path, file_sha256(path), {str(key): value for key, value in content.items()}, metadata)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; give the file of the checkpoint") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    if not head:
        raise UserError(f"{path} is empty; download it again")
    return head


def _is_safetensors(head: bytes) -> bool:
    """Eight bytes of length, then JSON."""
    return len(head) >= 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 1 << 32


def _not_a_checkpoint(head: bytes) -> str:
    known = other_program(head)
    if known is not None:
        return known
    return "no checkpoint: neither of torch nor safetensors nor .npz; download it again, or give another file"


def _read_zip(path: Path) -> Any:
    """An `.npz` or a checkpoint of torch; every record is compared with its own checksum first."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} is cut off or damaged ({error}); download it again") from None
    if damaged is not None:
        raise UserError(f"{path} is damaged: {damaged} does not match its checksum; download it again")
    if names and all(name.endswith(".npy") for name in names):
        return read_arrays(path)
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return _load(path, mmap=True)
    raise UserError(f"{path} is an archive of {', '.join(names[:3])}, …; unpack it and give the checkpoint in it")


def _load(path: Path, *, mmap: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about protocols of pickle; what cannot be read is an error anyway
            if path.suffix == ".safetensors":  # torch goes by the name, we go by the content
                with path.open("rb") as file:
                    return torch.load(file, map_location="cpu", weights_only=True)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except UnpicklingError as error:
        raise UserError(_needs_code(path, str(error))) from None
    except _DAMAGED as error:
        reason = reason_of(error)[:150] or type(error).__name__
        raise UserError(
            f"{path} is cut off, damaged, or no checkpoint of torch ({reason}); download it again"
        ) from None


def _needs_code(path: Path, message: str) -> str:
    """Why torch refused a file, and how its weights alone can be saved."""
    found = _GLOBAL.search(message)
    if found is None:
        return f"{path} is a pickle, but no checkpoint that torch reads as weights"
    names = [found[1]]
    with suppress(ValueError, RuntimeError, OSError):  # files of old versions of torch do not list them
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path)) or names
    saver = (
        "import torch; "
        "p = lambda x: x.detach() if isinstance(x, torch.Tensor) else x if type(x) in (int, float, str, bool) else "
        "[p(v) for v in x] if isinstance(x, (list, tuple)) else "
        '{str(k): p(v) for k, v in x.items() if not str(k).startswith("opt")} if hasattr(x, "items") else '
        'p(x.state_dict()) if hasattr(x, "state_dict") else str(x); '
        f'c = torch.load({json.dumps(str(path))}, map_location="cpu", weights_only=False); '
        f"torch.save(p(c), {json.dumps(str(path.with_name(path.stem + '-weights.pth')))})"
    )
    return (
        f"{path} needs code to load: {', '.join(sorted(names))}; such a file can run anything, so it is not loaded. "
        "If you trust who made it, save its weights alone, raw and averaged ones, where that code is installed: "
        f"python -c {shlex.quote(saver)}"
    )
