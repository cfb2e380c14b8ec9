"""The command line: which commands there are, what all of them understand, and how failures become exit statuses."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from adanat_rl.config.errors import RunError, UserError, nearest
from adanat_rl.config.secrets import hide_secrets
from adanat_rl.version import __version__

COMMANDS = {
    "train": "train a generation policy; goes on where a run folder stopped",
    "sweep": "train many policies from one file, in parallel, and compare them in one report",
    "evaluate": "compare a policy or schedule with baselines and controls",
    "probe": "measure how much decisions could matter to classes and images, before training",
    "search": "search for the best schedule that is the same for all images; goes on where it stopped",
    "sample": "draw images with a policy or schedule",
    "pretrain": "train tokenizer, NAT and judges of a data set that has none",
    "prepare": "encode images to tokens or captions to embeddings, or take statistics of images, once",
    "import-checkpoint": "turn published weights of others into files of this product",
    "export": "copy a policy into a folder of its own",
    "report": "make figures and report.html of a run or of a sweep again",
    "ui": "open the MLflow dashboard of the runs here, on 127.0.0.1",
    "doctor": "check what this machine or cluster has and lacks",
    "audit": "check a run folder: checkpoints, trajectories, metric rows",
    "check-reward": "try a reward, your own or built in, on a few images: whether it keeps the contract",
    "schema": "print the JSON schema of the configuration",
}

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `adanat-rl`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(_overview())
        return EXIT_DONE
    if arguments[0] == "--version":
        print(f"adanat-rl {__version__}")
        return EXIT_DONE
    command, *rest = arguments
    if command not in COMMANDS:
        print(
            f"adanat-rl: {command!r} is no command; accepted: {', '.join(COMMANDS)}{nearest(command, COMMANDS)}",
            file=sys.stderr,
        )
        return EXIT_USAGE
    module = importlib.import_module(f"adanat_rl.{command.replace('-', '_')}")
    return int(module.main(rest))


@dataclass(frozen=True)
class Invocation:
    """The command line of a command, for messages.

    Args:
        command: its name. argv: what was typed behind it.
    """

    command: str
    argv: tuple[str, ...]

    @property
    def again(self) -> str:
        """The command that does the same once more; `***` for a password in an address."""
        return hide_secrets(shlex.join(["adanat-rl", self.command, *self.argv]))


def run_command(command: str, argv: Sequence[str] | None, body: Callable[[Invocation], int]) -> int:
    """Runs a command's body; failures become one line and an exit status, never a traceback."""
    invocation = Invocation(command, tuple(sys.argv[1:] if argv is None else argv))
    prefix = f"adanat-rl {command}"
    try:
        return body(invocation)
    except UserError as error:
        print(f"{prefix}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except RunError as error:
        print(f"{prefix}: {error.message}", file=sys.stderr)
        if error.safe:
            print(f"  safe: {error.safe}", file=sys.stderr)
        if error.resume:
            print(f"  go on with: {error.resume}", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError:  # the reader of our output has gone, such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt:
        print(f"{prefix}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        return _unexpected(prefix, error)


def _unexpected(prefix: str, error: Exception) -> int:
    """One line; the traceback goes into a file, because this is an error of ours."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS}:
        where = f" ({error.filename})" if error.filename else ""
        print(f"{prefix}: cannot write: {error.strerror}{where}", file=sys.stderr)
        return EXIT_FAILED
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile("w", prefix="adanat-rl-", suffix=".log", delete=False) as file:
            file.write(text)
        where = f"traceback in {file.name}"
    except OSError:
        where = text
    first_line = str(error).strip().splitlines()
    print(
        f"{prefix}: unexpected {type(error).__name__}: {first_line[0] if first_line else ''}; {where}", file=sys.stderr
    )
    return EXIT_FAILED


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors look like all other user errors, and that takes settings anywhere among the options."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Options and `KEY=VALUE` settings in any order."""
        return self.parse_intermixed_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """One line, exit status 2."""
        option = message.rpartition("unrecognized arguments: ")[2].split(" ")[0] if "unrecognized" in message else ""
        options = [name for action in self._actions for name in action.option_strings]
        hint = nearest(option.partition("=")[0], options) if option else ""
        raise UserError(f"{message}{hint}; see --help")


def command_parser(command: str, *, settings: Sequence[str] = (), folder: str = "runs/NAME") -> CommandParser:
    """A parser with the options of every configured command.

    Args:
        settings: sections of the configuration whose settings `--help` lists; empty for a command that has none.
        folder: where it writes unless told otherwise.
    """
    parser = CommandParser(
        prog=f"adanat-rl {command}",
        description=f"{COMMANDS[command][0].upper()}{COMMANDS[command][1:]}.",
        epilog=_settings_help(settings) if settings else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if settings:
        parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, such as ppo.lr=1e-4")
        source = parser.add_mutually_exclusive_group()
        source.add_argument("--preset", metavar="NAME", help="settings that ship with the package (default: digits)")
        source.add_argument("--config", metavar="FILE.yaml", type=Path, help="settings of your own")
        parser.add_argument("--run-dir", metavar="DIR", help=f"folder of the run (default: {folder})")
        parser.add_argument("--dry-run", action="store_true", help="print the resolved settings and launch nothing")
    return parser


def add_subject_options(parser: argparse.ArgumentParser, start: str = "", default: str = "the shipped policy") -> None:
    """`--policy` and `--schedule`.

    Args:
        start: before what they name, such as "start from ". default: what stands without them.
    """
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--policy",
        metavar="PATH",
        help=f"{start}an exported policy, run folder, or asset:NAME (default: {default})",
    )
    what.add_argument(
        "--schedule", metavar="FILE.json", type=Path, help=f"{start}a schedule instead: T rows of 4 numbers"
    )


def add_display_options(parser: argparse.ArgumentParser) -> None:
    """`--quiet` and `--log-json`."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="print nothing but errors and warnings")
    group.add_argument("--log-json", action="store_true", help="print one JSON object per line")


def resolve_arguments(arguments: argparse.Namespace, **top_level: Any) -> Any:
    """The configuration of parsed arguments."""
    from adanat_rl.config.loading import resolve

    return resolve(arguments.preset, arguments.config, arguments.overrides, run_dir=arguments.run_dir, **top_level)


def typed_keys(arguments: argparse.Namespace) -> list[str]:
    """Keys of the `KEY=VALUE` settings of a command line."""
    return [override.partition("=")[0].strip() for override in arguments.overrides]


def run_directory(config: Any) -> Path:
    """The run folder of a configuration."""
    return Path(config.run_dir).expanduser() if config.run_dir else Path("runs") / config.name


def _overview() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return (
        "usage: adanat-rl COMMAND [options] [KEY=VALUE ...]\n\n"
        f"Reinforcement learning of generation policies for masked-token image generators.\n\ncommands:\n{rows}\n\n"
        "Without arguments a command does the embedded default, digits.\n"
        "`adanat-rl COMMAND --help` lists its options and settings; `python -m adanat_rl.COMMAND` is the same.\n"
        "Exit status: 0 done, 1 failed while running, 2 wrong input, 130 interrupted (Ctrl-C), 143 terminated."
    )


def _settings_help(sections: Sequence[str]) -> str:
    from adanat_rl.config.loading import DEFAULT_PRESET, describe_settings

    lines = [f"settings (defaults; the {DEFAULT_PRESET} preset may differ):"]
    lines += [
        f"  {row.key}={row.default}\n      {row.help}{f' [{row.unit}]' if row.unit else ''}"
        for row in describe_settings(sections)
    ]
    return "\n".join(lines)
