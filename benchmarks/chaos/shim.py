"""A preloaded library that makes file operations fail and the clock jump, built when it is first needed."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
_LAYOUT = struct.Struct("=qiiiii")  # `struct control` of shim.c
_SIZE = 4096


class NotPossibleError(Exception):
    """This machine cannot do what a scenario needs; the text says what is missing."""


def build_shim(folder: Path) -> Path:
    """Compiles the library into a folder.

    Raises:
        NotPossibleError: there is no C compiler, or it fails.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NotPossibleError("no C compiler (gcc) for the preloaded library")
    library = folder / "shim.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise NotPossibleError(f"the preloaded library does not compile: {built.stderr.strip()[:200]}")
    return library


class Control:
    """What the library is told, through a file that it has mapped.

    Args:
        file: made here. prefix: the folder below which file operations fail.
    """

    def __init__(self, file: Path, prefix: Path) -> None:
        file.write_bytes(bytes(_SIZE))
        self._file = file
        self._prefix = prefix
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), _SIZE)

    def environment(self, library: Path) -> dict[str, str]:
        """Of the commands that are to obey."""
        return {"LD_PRELOAD": str(library), "CHAOS_CONTROL": str(self._file), "CHAOS_PREFIX": str(self._prefix)}

    def fail(self, error: int, *, times: int, one_in: int) -> None:
        """From now on operations fail.

        Args:
            error: errno. times: how many failures are given, without end if negative. one_in: of how many operations.
        """
        self._set(0, error, times, one_in)

    def jump(self, seconds: int) -> None:
        """The time of day is so much later from now on."""
        self._set(seconds, 0, 0, 1)

    def heal(self) -> None:
        """Nothing fails any more, and the clock is right; the count of failures stays."""
        failures = self.failures
        self._set(0, 0, 0, 1)
        _LAYOUT.pack_into(self._memory, 0, 0, 0, 0, 1, 0, failures)

    @property
    def failures(self) -> int:
        """Failures given so far."""
        return int(_LAYOUT.unpack_from(self._memory)[5])

    def _set(self, seconds: int, error: int, times: int, one_in: int) -> None:
        _LAYOUT.pack_into(self._memory, 0, seconds, 0, times, one_in, 0, 0)
        _LAYOUT.pack_into(self._memory, 0, seconds, error, times, one_in, 0, 0)  # the errno arms it: last
