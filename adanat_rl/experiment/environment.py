"""What a run is started with beside its settings: git revision, packages, hardware, command."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from adanat_rl.config.files import write_atomically
from adanat_rl.config.secrets import hide_secrets

LATER_STARTS = "later_starts"
_STARTED = "started"
_PACKAGES = ("adanat-rl", "ray", "torch", "numpy", "gymnasium", "mlflow", "torchmetrics", "pydantic", "safetensors")
_MAX_LATER_STARTS = 100


def describe_environment() -> dict[str, Any]:
    """Git revision, package versions and hardware of this process."""
    installed: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed[package] = None
    return {
        "git_revision": git_revision(Path(__file__).parent.parent),
        "command": [hide_secrets(word) for word in sys.argv],
        "python": platform.python_version(),
        "packages": installed,
        "platform": platform.platform(),
        "processor": _processor(),
        "num_cpus": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        _STARTED: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def note_start(file: Path) -> None:
    """Writes the environment of this start; that of the first start stays, later ones stand behind it in order."""
    now = describe_environment()
    first = _read(file)
    if first is None:
        write_atomically(file, json.dumps(now, indent=2))
        return
    earlier = first.get(LATER_STARTS, [])
    later = [*(earlier if isinstance(earlier, list) else []), now][-_MAX_LATER_STARTS:]
    write_atomically(file, json.dumps({**first, LATER_STARTS: later}, indent=2))


def _read(file: Path) -> dict[str, Any] | None:
    """The description of a file; None if there is none, or it is damaged."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def git_revision(package: Path) -> str | None:
    """Revision of the checkout that a package belongs to, with "+changes" if files differ.

    None outside a checkout, and where the package only lies in somebody else's, as in a virtual environment in a
    project's folder.

    Args:
        package: folder of the package; it lies at the top of its checkout.
    """
    try:
        if Path(_git(package, "rev-parse", "--show-toplevel")).resolve() != package.resolve().parent:
            return None
        if not _git(package, "ls-files", "--", "__init__.py"):
            return None
        revision = _git(package, "rev-parse", "HEAD")
        changed = _git(package, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return revision + ("+changes" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    call = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return call.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
