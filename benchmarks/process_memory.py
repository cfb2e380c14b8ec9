"""What the Linux kernel says about this process: its memory, the peak of it, and what it has read from the disk."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

_PROCESS = Path("/proc/self")
_INTERVAL_S = 0.005
MEBI = 2**20


def memory_mb() -> dict[str, float]:
    """Resident MiB now: anonymous (the process's own) and file (mapped files, which processes share)."""
    fields = _fields("status")
    return {"anonymous": fields["RssAnon"] / MEBI, "file": fields["RssFile"] / MEBI}


def own_and_shared_mb() -> dict[str, float]:
    """Resident MiB that nobody else has, and that some other process has too, by walking the page tables."""
    fields = _fields("smaps_rollup")
    return {
        "private": (fields["Private_Clean"] + fields["Private_Dirty"]) / MEBI,
        "shared": (fields["Shared_Clean"] + fields["Shared_Dirty"]) / MEBI,
        "proportional": fields["Pss"] / MEBI,
    }


def read_mb() -> dict[str, float]:
    """MiB read so far: from the disk (page faults of mapped files too), and by `read` calls, cached or not."""
    fields = _fields("io")
    return {"from_disk": fields["read_bytes"] / MEBI, "by_calls": fields["rchar"] / MEBI}


class Peak:
    """Largest memory while the block runs, beside what there was before it.

    The peak of all resident memory is the kernel's own and exact; its parts are sampled every few milliseconds.
    `getrusage` is of no use here: its peak survives an exec, so that a child inherits its parent's.
    """

    def __enter__(self) -> Self:
        (_PROCESS / "clear_refs").write_text("5")  # the kernel's peak starts anew
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._before = memory_mb()
        self._largest = dict(self._before)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._look()
        self._resident = _fields("status")["VmHWM"] / MEBI

    @property
    def numbers(self) -> dict[str, float]:
        """MiB by name; of a GPU only where there is one."""
        numbers = {
            "anonymous_before_mb": self._before["anonymous"],
            "anonymous_peak_mb": self._largest["anonymous"],
            "file_peak_mb": self._largest["file"],
            "resident_peak_mb": self._resident,
        }
        if torch.cuda.is_available():
            numbers["gpu_peak_mb"] = torch.cuda.max_memory_allocated() / MEBI
        return numbers

    def _sample(self) -> None:
        while not self._done.wait(_INTERVAL_S):
            self._look()

    def _look(self) -> None:
        for name, value in memory_mb().items():
            self._largest[name] = max(self._largest[name], value)


def _fields(file: str) -> dict[str, int]:
    """Numbers of a file of lines `NAME: NUMBER [kB]`, in bytes."""
    found = {}
    for line in (_PROCESS / file).read_text().splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if words and words[0].isdecimal():
            found[name] = int(words[0]) * (1024 if words[-1] == "kB" else 1)
    return found
