"""Keeps torch usable in processes that are forked: one thread there.

torch splits its kernels over threads by OpenMP. A forked process has none of its parent's threads but the memory in
which they are noted, so the first kernel that wants to share its work waits for them for ever. With one thread no
kernel asks. Worker processes that have been started by spawn or forkserver have nothing of the kind.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

_FORKED_WITHOUT_EXEC = 0x40  # PF_FORKNOEXEC of the Linux kernel, in the flags of /proc/PID/stat


def protect_forked_processes() -> None:
    """From now on, forked children of this process run torch on one thread; so does this one if it was forked itself.

    A process that has not imported torch is left alone. Who raises `torch.set_num_threads` in a forked process again
    has to know that no kernel ran on several threads before the fork.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_one_thread)
    if _is_forked():
        _one_thread()


def _one_thread() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(
        torch, "set_num_threads"
    ):  # not if the fork happened while another thread was still importing it
        torch.set_num_threads(1)


def _is_forked() -> bool:
    """Whether this process goes on from a fork: without an exec it has inherited what its parent had imported."""
    try:
        status = Path("/proc/self/stat").read_text(encoding="utf-8")
    except OSError:
        return multiprocessing.parent_process() is not None
    fields = status.rpartition(")")[2].split()  # behind the name, which may hold anything: state, ppid, … flags
    return bool(int(fields[6]) & _FORKED_WITHOUT_EXEC)
