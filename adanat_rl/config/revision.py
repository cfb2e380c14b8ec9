"""The git revision that the package runs from."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git_revision() -> str | None:
    """Revision of the checkout that the package runs from, with "+changes" if files differ; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        revision = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return revision + ("+changes" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    call = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return call.stdout.strip()
