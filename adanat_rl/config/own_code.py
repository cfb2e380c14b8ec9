"""Finds what a user wrote and names as `module:name`, such as a reward or a policy."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from adanat_rl.config.errors import UserError, nearest
from adanat_rl.config.files import file_sha256


def import_own(name: str, key: str = "") -> Any:
    """The object of a module on PYTHONPATH or in the working directory.

    Args:
        name: `module:name`. key: of the setting that has it, for messages; empty for a word of the command line.

    Raises:
        UserError: no such module, no such name in it, or the module fails when it is imported.
    """
    prefix = f"{key}: {name}" if key else name
    module_name, _, own_name = name.partition(":")
    _look_here()
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever a user's module does when it is imported
        raise UserError(f"{prefix}: cannot import {module_name}: {type(error).__name__}: {error}") from None
    if not hasattr(module, own_name):
        raise UserError(f"{prefix}: {module_name} has no {own_name}{nearest(own_name, dir(module))}")
    return getattr(module, own_name)


def own_file_hash(name: str) -> str:
    """SHA-256 in hex of the file that the module of `module:name` is written in."""
    module = name.partition(":")[0]
    _look_here()
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # a package that is not there, or a module that was put together by hand
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return f"module {module} without a file"
    return file_sha256(Path(spec.origin))


def _look_here() -> None:
    """Where a command is a script, Python looks for modules beside that script only."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
