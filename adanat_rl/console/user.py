"""Who runs a command, where nobody knows, and what of it lies in a home folder: nothing.

Containers run us as a number, without a home, or with one that cannot be written.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import stat
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


def keep_out_of_home() -> None:
    """Lets Matplotlib keep its list of fonts among the temporary files, unless it has a place in this home already."""
    if "MPLCONFIGDIR" in os.environ:
        return
    home = Path.home()
    if (home / ".config" / "matplotlib").is_dir() and (home / ".cache" / "matplotlib").is_dir():
        return
    folder = Path(tempfile.gettempdir()) / f"adanat-rl-{os.getuid()}"
    with contextlib.suppress(OSError):  # then Matplotlib finds a place of its own
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
            os.environ["MPLCONFIGDIR"] = str(folder)
