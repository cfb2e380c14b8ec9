"""Command `pretrain`: tokenizer, judges and NAT of a data set, with a model card."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

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
    parser.add_argument(
        "--start-over", action="store_true", help="begin anew where an interrupted pretraining would be gone on with"
    )
    add_display_options(parser)
    arguments = parser.parse_args(invocation.argv)
    config = resolve_arguments(arguments)
    if arguments.dry_run:
        print_settings(config)
        return EXIT_DONE
    from adanat_rl.experiment.pretraining_job import pretrain

    argv = tuple(word for word in invocation.argv if word != "--start-over")  # what goes on does not begin anew
    return pretrain(
        config,
        run_directory(config, "-pretraining"),
        replace(invocation, argv=argv).again,
        invocation.stop,
        start_over=arguments.start_over,
        quiet=arguments.quiet,
        log_json=arguments.log_json,
    )


if __name__ == "__main__":
    sys.exit(main())
