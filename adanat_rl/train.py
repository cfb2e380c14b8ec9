"""Command `train`: one run from its configuration to its report; the same command again goes on where it stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
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
    take_settings_of_run,
)
from adanat_rl.config.errors import UserError
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
    parser.add_argument(
        "--machine", metavar="NxNAME", help="with --dry-run: estimates the time on such a machine, such as 8xH100"
    )
    parser.add_argument(
        "--accept-change",
        action="store_true",
        help="go on with an existing run although settings or files differ from those it was made with; it is recorded",
    )
    parser.add_argument(
        "--start-over",
        action="store_true",
        help="begin from zero in an existing run folder; what is there is put aside in it",
    )
    add_display_options(parser)
    arguments = parser.parse_args(invocation.argv)
    take_settings_of_run(arguments)
    if arguments.address is not None:
        arguments.overrides.append(f"resources.ray_address={arguments.address}")
    config = resolve_arguments(arguments)
    from adanat_rl.experiment.cluster import quiet_environment

    quiet_environment()
    if arguments.dry_run:
        return _dry_run(config, arguments.machine)
    if arguments.machine is not None:
        raise UserError("--machine: only --dry-run estimates times; give both, or none")
    from adanat_rl.experiment.build import complete_inputs
    from adanat_rl.experiment.training import train

    config = complete_inputs(config)

    argv = tuple(word for word in invocation.argv if word != "--start-over")  # what goes on does not begin anew
    return train(
        config,
        run_directory(config),
        replace(invocation, argv=argv).again,
        invocation.stop,
        quiet=arguments.quiet,
        log_json=arguments.log_json,
        accept_change=arguments.accept_change,
        start_over=arguments.start_over,
    )


def _dry_run(config: ExperimentConfig, machine: str | None) -> int:
    from adanat_rl.experiment.build import complete_known_inputs
    from adanat_rl.experiment.estimate import describe_run
    from adanat_rl.experiment.machines import parse_machine

    described = None if machine is None else parse_machine(machine)
    config = complete_known_inputs(config)
    text = describe_run(config, Path(run_directory(config)), described)
    print_settings(config)
    print(text)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
