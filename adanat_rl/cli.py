"""The command line: which commands there are, what all of them understand, and how failures become exit statuses."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from adanat_rl.config.errors import RunError, UserError, nearest
from adanat_rl.config.secrets import hide_secrets
from adanat_rl.config.side_thread import any_given_up
from adanat_rl.console.failures import EXIT_DONE as EXIT_DONE
from adanat_rl.console.failures import EXIT_FAILED as EXIT_FAILED
from adanat_rl.console.failures import EXIT_USAGE as EXIT_USAGE
from adanat_rl.console.failures import complain, plain_warnings, status_of_output, unexpected
from adanat_rl.console.options import path_argument
from adanat_rl.console.streams import can_print, settle_streams
from adanat_rl.console.user import keep_out_of_home, name_this_user
from adanat_rl.stopping import StopRequest
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
    "check-judge": "try a judge of your own on real images: whether it keeps the contract, and what it sees",
    "schema": "print the JSON schema of the configuration",
}

_OTHER_NAMES = {  # of commands, in other libraries
    "fit": "train", "learn": "train", "run": "train", "resume": "train", "continue": "train", "eval": "evaluate",
    "test": "evaluate", "validate": "evaluate", "benchmark": "evaluate", "tune": "sweep", "hpo": "sweep",
    "multirun": "sweep", "generate": "sample", "draw": "sample", "predict": "sample", "plot": "report",
    "mlflow": "ui", "dashboard": "ui", "check": "doctor", "info": "doctor", "import": "import-checkpoint",
    "convert": "import-checkpoint", "config": "schema", "verify": "audit", "fsck": "audit", "preprocess": "prepare",
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `adanat-rl`."""
    settle_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) > 1 and arguments[0] == "help":
        arguments = [arguments[1], "--help"]
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(_overview())
        return status_of_output("adanat-rl", EXIT_DONE)
    if arguments[0] in {"--version", "-V", "version"}:
        print(f"adanat-rl {__version__}")
        return status_of_output("adanat-rl", EXIT_DONE)
    command, *rest = arguments
    if command not in COMMANDS:
        hint = _hint_for_command(command, rest)
        complain(f"adanat-rl: {command!r} is no command; accepted: {', '.join(COMMANDS)}{hint}")
        return EXIT_USAGE
    module = importlib.import_module(f"adanat_rl.{command.replace('-', '_')}")
    return _ended(int(module.main(rest)), is_process=argv is None)


@dataclass(frozen=True)
class Invocation:
    """The command line of a command, for messages.

    Args:
        command: its name. argv: what was typed behind it. stop: whether Ctrl-C or SIGTERM has come.
    """

    command: str
    argv: tuple[str, ...]
    stop: StopRequest

    @property
    def again(self) -> str:
        """The command that does the same once more; `***` for a password in an address."""
        return hide_secrets(shlex.join(["adanat-rl", self.command, *self.argv]))


def run_command(command: str, argv: Sequence[str] | None, body: Callable[[Invocation], int]) -> int:
    """Runs a command's body; failures become one line and an exit status, never a traceback."""
    settle_streams()
    name_this_user()
    keep_out_of_home()
    return _ended(_run_command(command, argv, body), is_process=argv is None)


def _ended(status: int, *, is_process: bool) -> int:
    """The status; a process in which a thread hangs in somebody's code, or whose cluster broke, ends here: it could not
    end in good order.

    Args:
        is_process: whether the command is all that this process is for.
    """
    if is_process and (any_given_up() or _is_still_connected()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _is_still_connected() -> bool:
    """Whether Ray was not left, as it is not where it is broken: its threads may crash an interpreter that ends."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _run_command(command: str, argv: Sequence[str] | None, body: Callable[[Invocation], int]) -> int:
    prefix = f"adanat-rl {command}"
    stop = StopRequest()
    try:
        with stop.installed(), plain_warnings():
            status = body(Invocation(command, tuple(sys.argv[1:] if argv is None else argv), stop))
        if status == EXIT_DONE and stop.is_lost():
            return _stopped(prefix, stop)
        return status_of_output(prefix, status)
    except UserError as error:
        if stop.is_lost(error):
            return _stopped(prefix, stop)
        complain(f"{prefix}: {error}")
        return EXIT_USAGE
    except RunError as error:
        if stop.is_lost(error):
            return _stopped(prefix, stop)
        complain(f"{prefix}: {error.message}")
        if error.safe:
            complain(f"  safe: {error.safe}")
        if error.resume:
            complain(f"  go on with: {error.resume}")
        return EXIT_FAILED
    except KeyboardInterrupt:
        return _stopped(prefix, stop)
    except Exception as error:
        return _stopped(prefix, stop) if stop.is_lost(error) else unexpected(prefix, error)


def _stopped(prefix: str, stop: StopRequest) -> int:
    complain(f"{prefix}: {stop.word}")
    return stop.exit_status


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors look like all other user errors, and that takes settings anywhere among the options."""

    takes_subject = False
    keys: Sequence[str] = ()  # of the settings that the command takes

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Options and `KEY=VALUE` settings in any order; the first word that is no setting is the subject.

        What people are used to type elsewhere is understood where it is plain, and what was understood is printed.
        """
        from adanat_rl.config.loading import preset_names
        from adanat_rl.console.habits import understand

        options = {name: action.nargs != 0 for action in self._actions for name in action.option_strings}
        command = self.prog.rpartition(" ")[2]
        typed = understand(command, list(sys.argv[1:] if args is None else args), options, self.keys, preset_names)
        arguments = self.parse_intermixed_args(typed.words, namespace)
        is_quiet = getattr(arguments, "quiet", False) or getattr(arguments, "log_json", False)
        if typed.notes and not is_quiet:
            is_setting = any(note.startswith("-") and "=" in note.partition(" as ")[2] for note in typed.notes)
            hint = " (settings are written without dashes)" if is_setting else ""
            complain(f"{self.prog}: took {'; '.join(typed.notes)}{hint}")
        if self.takes_subject:
            words = arguments.overrides
            subjects = [word for word in words if "=" not in word or Path(word).exists()]
            arguments.subject = subjects[0] if subjects else None
            if subjects:
                arguments.overrides = [*words[: words.index(subjects[0])], *words[words.index(subjects[0]) + 1 :]]
        return arguments

    def error(self, message: str) -> NoReturn:
        """One line, exit status 2."""
        option = message.rpartition("unrecognized arguments: ")[2].split(" ")[0] if "unrecognized" in message else ""
        options = [name for action in self._actions for name in action.option_strings]
        hint = nearest(option.partition("=")[0], options) if option else ""
        raise UserError(f"{' '.join(message.split())}{hint}; see {self.prog} --help")


def command_parser(
    command: str, *, settings: Sequence[str] = (), folder: str = "runs/NAME", subject: str | None = None
) -> CommandParser:
    """A parser with the options of every configured command.

    Args:
        settings: sections of the configuration whose settings `--help` lists; empty for a command that has none.
        folder: where it writes unless told otherwise.
        subject: what the first word may name that is no setting; None where no such word is taken.
    """
    settings = ("preset", *settings) if settings else ()
    parser = CommandParser(
        prog=f"adanat-rl {command}",
        description=f"{COMMANDS[command][0].upper()}{COMMANDS[command][1:]}.",
        epilog=_settings_help(settings) if settings else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if settings:
        words, help_line = "KEY=VALUE", "settings, such as ppo.lr=1e-4"
        if subject is not None:
            parser.takes_subject = True
            words, help_line = "SUBJECT|KEY=VALUE", f"first {subject}; then {help_line}"
        parser.add_argument("overrides", nargs="*", metavar=words, help=help_line)
        parser.keys = setting_keys(settings)
        parser.add_argument(
            "--preset", metavar="NAME", help="settings to start from (default: that of the file, or digits)"
        )
        parser.add_argument(
            "--config", metavar="FILE.yaml", type=path_argument, help="settings of your own, over those of the preset"
        )
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
        "--schedule", metavar="FILE.json", type=path_argument, help=f"{start}a schedule instead: T rows of 4 numbers"
    )


def add_display_options(parser: argparse.ArgumentParser) -> None:
    """`--quiet` and `--log-json`."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="print nothing but errors and warnings")
    group.add_argument("--log-json", action="store_true", help="print one JSON object per line")


def resolve_arguments(arguments: argparse.Namespace, **top_level: Any) -> Any:
    """The configuration of parsed arguments."""
    from adanat_rl.config.loading import resolve

    for override in arguments.overrides:
        key, _, name = override.partition("=")
        if key.strip() == "preset" and arguments.preset not in (None, name):
            raise UserError(f"--preset {arguments.preset} and {override}: give one of the two")
    return resolve(arguments.preset, arguments.config, arguments.overrides, run_dir=arguments.run_dir, **top_level)


def take_settings_of_run(arguments: argparse.Namespace) -> None:
    """A run folder that is named and there brings its own settings, unless a preset or a file is given too."""
    if arguments.run_dir is None or arguments.preset is not None or arguments.config is not None:
        return
    from adanat_rl.config.run_paths import RunPaths

    file = RunPaths(Path(arguments.run_dir).expanduser()).config_file
    if file.is_file():
        arguments.config = file


def typed_keys(arguments: argparse.Namespace) -> list[str]:
    """Keys of the `KEY=VALUE` settings of a command line."""
    return [override.partition("=")[0].strip() for override in arguments.overrides]


def setting_keys(sections: Sequence[str]) -> list[str]:
    """Dotted keys of the settings in some sections."""
    from adanat_rl.config.loading import leaf_fields

    return [key for key, _ in leaf_fields() if key.split(".")[0] in sections]


def run_directory(config: Any, suffix: str = "") -> Path:
    """The folder of a configuration.

    Args:
        suffix: what the folder has behind the name of the run, unless it was named.
    """
    return Path(config.run_dir).expanduser() if config.run_dir else Path("runs") / f"{config.name}{suffix}"


def print_settings(config: Any) -> None:
    """Prints a configuration as YAML that gives it again, also where the terminal lacks some of its letters."""
    from adanat_rl.config.loading import dump

    text = dump(config)
    print(text if can_print(text) else dump(config, ascii_only=True), end="")


def _hint_for_command(word: str, rest: Sequence[str]) -> str:
    """What was probably meant by a first word that is no command."""
    if word.startswith("-") or "=" in word:
        return f"; the command comes first: adanat-rl train {shlex.join([word, *rest])}"
    from adanat_rl.config.loading import preset_names

    if word in preset_names():
        return f"; type adanat-rl train --preset {word}"
    meant = _OTHER_NAMES.get(word.lower().replace("_", "-"))
    return f" (did you mean {meant!r}?)" if meant else nearest(word, COMMANDS)


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
