"""Options that several commands share: paths, and the run folder that a command looks at."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from adanat_rl.config.errors import UserError
from adanat_rl.config.text_files import text_problem

DEFAULT_RUN = Path("runs") / "digits"
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")


def path_argument(text: str) -> Path:
    """The path that an option names, with the home folder for `~`.

    Raises:
        argparse.ArgumentTypeError: no path can be called so.
    """
    problem = text_problem(text) if text else "expected a path"
    if problem is not None:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not accepted: {problem}")
    return Path(text).expanduser()


def whole_number(text: str) -> int | None:
    """A whole number of at most 18 of the digits 0 to 9; None for anything else, such as `²`, which `isdigit` takes."""
    return int(text) if _WHOLE_NUMBER.fullmatch(text) else None


def whole_numbers(least: int, most: int = 10**9) -> Callable[[str], int]:
    """Reads the number of an option.

    Args:
        least, most: of what is accepted, both included.
    """

    def read(text: str) -> int:
        number = whole_number(text.removeprefix("-"))
        signed = None if number is None else -number if text.startswith("-") else number
        if signed is None or not least <= signed <= most:
            raise argparse.ArgumentTypeError(
                f"{text[:40]!s} is not accepted: expected a whole number, at least {least} and at most {most:,}"
            )
        return signed

    return read


def add_run_folder(parser: argparse.ArgumentParser, what: str) -> None:
    """A run folder as the first word, or as `--run-dir`.

    Args:
        what: may be in it, such as "run or sweep".
    """
    parser.add_argument("folder", metavar="DIR", nargs="?", type=path_argument, help=f"the {what}, as --run-dir")
    parser.add_argument(
        "--run-dir", metavar="DIR", type=path_argument, help=f"the {what} (default: {DEFAULT_RUN.as_posix()})"
    )


def named_run_folder(arguments: argparse.Namespace) -> Path:
    """The folder that was named either way, or that of the default run.

    Raises:
        UserError: both ways, and they differ.
    """
    folder, option = arguments.folder, arguments.run_dir
    if folder is not None and option is not None and folder != option:
        raise UserError(f"{folder} and --run-dir {option}: give one of the two")
    return Path(folder or option or DEFAULT_RUN)
