"""Command `pretrain`: tokenizer, judges and NAT of a data set, with a model card; makes the shipped weights again."""

from __future__ import annotations

import sys
from collections.abc import Sequence

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

SECTIONS = ("name", "seed", "run_dir", "data", "pretraining", "evaluation", "resources")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command("pretrain", argv, _main)


def _main(invocation: Invocation) -> int:
    parser = command_parser("pretrain", settings=SECTIONS)
    add_display_options(parser)
    arguments = parser.parse_args(invocation.argv)
    config = resolve_arguments(arguments)
    if arguments.dry_run:
        print_settings(config)
        return EXIT_DONE
    from adanat_rl.experiment.pretraining_job import pretrain

    pretrain(config, run_directory(config, "-pretraining"), quiet=arguments.quiet, log_json=arguments.log_json)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
