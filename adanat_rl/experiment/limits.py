"""What this process may use of its machine: CPUs and memory as the kernel, a container and the shell limit them."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_UNLIMITED = 2**60  # version 1 of control groups writes a huge number where there is no limit


def usable_cpus() -> int:
    """CPUs that this process may keep busy: its affinity, and the share of its container, rounded down; at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min([count, *(int(quota) for quota in _cpu_quotas())]))


def available_memory() -> int:
    """Bytes that may still be taken: what is free on the machine, and in every control group around this process."""
    return max(0, min([psutil.virtual_memory().available, *_free_in_groups()]))


def address_space() -> int | None:
    """Bytes of `ulimit -v`; None where it is unlimited."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _cpu_quotas() -> Iterator[float]:
    for folder in _group_folders(""):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)
    for folder in _group_folders("cpu"):
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)


def _free_in_groups() -> Iterator[int]:
    """Limit minus use of each control group; cached files count as free, the kernel gives them back."""
    for controller, limit_file, used_file, cached in (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for folder in _group_folders(controller):
            limit, used = _read(folder / limit_file), _read(folder / used_file)
            if limit.isdigit() and used.isdigit() and int(limit) < _UNLIMITED:
                rows = (line.split() for line in _read(folder / "memory.stat").splitlines())
                yield int(limit) - int(used) + sum(int(row[1]) for row in rows if row[0] == cached)


def _group_folders(controller: str) -> Iterator[Path]:
    """Folders of the control groups around this process, the inner one first.

    Args:
        controller: of version 1; empty for version 2.
    """
    for line in _read(_OWN_GROUPS).splitlines():
        _, names, path = line.split(":", 2)
        if controller not in names.split(","):
            continue
        root = next((_GROUPS / name for name in (names, controller) if name and (_GROUPS / name).is_dir()), _GROUPS)
        inner = root / path.lstrip("/")
        # In a container the path may be the one outside of it; what is mounted is then the own group.
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(root) and folder.is_dir())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
