"""Command `search`: the best static schedule by CMA-ES; the same command again goes on where it stopped."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from adanat_rl.cli import (
    EXIT_DONE,
    Invocation,
    add_display_options,
    command_parser,
    print_settings,
    resolve_arguments,
    run_command,
    run_directory,
)
from adanat_rl.config.schema import ExperimentConfig

SECTIONS = ("name", "run_dir", "data", "generator", "decisions", "evaluation", "search", "resources")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command("search", argv, _main)


def _main(invocation: Invocation) -> int:
    parser = command_parser("search", settings=SECTIONS, folder="runs/NAME-search")
    add_display_options(parser)
    arguments = parser.parse_args(invocation.argv)
    config = resolve_arguments(arguments)
    from adanat_rl.experiment.searching import describe_search, search

    if arguments.dry_run:
        description = describe_search(config)
        print_settings(config)
        print(description)
        return EXIT_DONE
    path = run_directory(config, "-search")
    status = search(config, path, invocation.again, invocation.stop, quiet=arguments.quiet, log_json=arguments.log_json)
    if status == EXIT_DONE and not arguments.quiet:
        _show(config, path, arguments.log_json)
    return status


def _show(config: ExperimentConfig, path: Path, log_json: bool) -> None:
    from adanat_rl.console.tables import print_table
    from adanat_rl.experiment.searching import SearchFolder, schedule_table

    summary = json.loads(SearchFolder(path).summary_file.read_text(encoding="utf-8"))
    if log_json:
        print(json.dumps({"search": summary}), flush=True)
    else:
        print_table(lambda width: schedule_table(summary, width))


if __name__ == "__main__":
    sys.exit(main())
