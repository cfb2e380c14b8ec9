"""Command `doctor`: what this machine or cluster has and lacks, with the fix for each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from adanat_rl.cli import (
    EXIT_DONE,
    EXIT_FAILED,
    Invocation,
    command_parser,
    print_settings,
    resolve_arguments,
    run_command,
    run_directory,
)

SECTIONS = ("generator", "evaluation", "resources", "tracking")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command("doctor", argv, _main)


def _main(invocation: Invocation) -> int:
    parser = command_parser("doctor", settings=SECTIONS)
    parser.add_argument("--address", metavar="ADDRESS", help="look at a running cluster too: auto or HOST:PORT")
    arguments = parser.parse_args(invocation.argv)
    if arguments.address is not None:
        arguments.overrides.append(f"resources.ray_address={arguments.address}")
    config = resolve_arguments(arguments)
    if arguments.dry_run:
        print_settings(config)
        return EXIT_DONE
    from adanat_rl.experiment.cluster import quiet_environment

    quiet_environment()
    from adanat_rl.experiment.findings import print_findings
    from adanat_rl.experiment.health import examine

    return EXIT_DONE if print_findings(examine(config, Path(run_directory(config)))) else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
