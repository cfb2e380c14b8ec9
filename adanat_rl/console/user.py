"""Who runs a command, where nobody knows: in containers that run us as a number, without a home."""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path


def name_this_user() -> None:
    """Names a home and a user in the environment where there are none: libraries ask for both when imported."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.gettempdir()
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = f"uid{os.getuid()}"
