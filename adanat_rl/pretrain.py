"""Command `pretrain`: tokenizer, judges and NAT of a data set, with a model card; makes the shipped weights again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from adanat_rl.cli import EXIT_DONE, Invocation, add_display_options, command_parser, resolve_arguments, run_command
from adanat_rl.config.loading import dump

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
        print(dump(config), end="")
        return EXIT_DONE
    from adanat_rl.experiment.pretraining_job import pretrain

    folder = Path(config.run_dir) if config.run_dir else Path("runs") / f"{config.name}-pretraining"
    pretrain(config, folder, quiet=arguments.quiet, log_json=arguments.log_json)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
