"""Command `train`: one run from its configuration to its report; the same command again goes on where it stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from adanat_rl.cli import (
    EXIT_DONE,
    Invocation,
    add_display_options,
    command_parser,
    resolve_arguments,
    run_command,
    run_directory,
)
from adanat_rl.config.loading import dump
from adanat_rl.config.schema import ExperimentConfig

SECTIONS = (
    "name",
    "seed",
    "run_dir",
    "data",
    "generator",
    "text",
    "decisions",
    "policy",
    "exploration",
    "ppo",
    "reward",
    "training",
    "checkpoints",
    "evaluation",
    "resources",
    "tracking",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command("train", argv, _main)


def _main(invocation: Invocation) -> int:
    parser = command_parser("train", settings=SECTIONS)
    parser.add_argument(
        "--address", metavar="ADDRESS", help="short for resources.ray_address: local, auto or HOST:PORT"
    )
    add_display_options(parser)
    arguments = parser.parse_args(invocation.argv)
    if arguments.address is not None:
        arguments.overrides.append(f"resources.ray_address={arguments.address}")
    config = resolve_arguments(arguments)
    from adanat_rl.experiment.cluster import quiet_environment

    quiet_environment()
    from adanat_rl.experiment.build import complete_inputs

    config = complete_inputs(config)
    if arguments.dry_run:
        return _dry_run(config)
    from adanat_rl.experiment.training import train

    return train(config, run_directory(config), invocation.again, quiet=arguments.quiet, log_json=arguments.log_json)


def _dry_run(config: ExperimentConfig) -> int:
    from adanat_rl.experiment.estimate import describe_run

    print(dump(config), end="")
    print(describe_run(config, Path(run_directory(config))))
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
