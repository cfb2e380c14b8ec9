"""Command `sweep`: many trainings from one file, compared in one report; the same command again goes on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from adanat_rl.cli import EXIT_DONE, Invocation, add_display_options, command_parser, run_command, setting_keys
from adanat_rl.config.errors import UserError
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.console.options import path_argument, whole_numbers

_OF_OTHER_COMMANDS = ("search", "pretraining")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command("sweep", argv, _main)


def _main(invocation: Invocation) -> int:
    parser = command_parser("sweep")
    parser.keys = setting_keys([name for name in ExperimentConfig.model_fields if name not in _OF_OTHER_COMMANDS])
    parser.add_argument(
        "file", metavar="FILE.yaml", type=path_argument, help="the sweep, such as tune_configs/credit.yaml"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of all trials")
    parser.add_argument("--run-dir", metavar="DIR", type=path_argument, help="folder of the sweep (default: runs/NAME)")
    parser.add_argument(
        "--seeds", metavar="N", type=whole_numbers(1), help="as many seeds instead of those of the file"
    )
    parser.add_argument("--address", metavar="ADDRESS", help="short for resources.ray_address")
    parser.add_argument("--dry-run", action="store_true", help="list the trials and what they take; launch nothing")
    add_display_options(parser)
    arguments = parser.parse_args(invocation.argv)
    if "=" in arguments.file.name and not arguments.file.exists():
        raise UserError(f"{arguments.file}: give the sweep file first, then settings")
    from adanat_rl.config.sweep_settings import load_sweep, validate_sweep

    sweep = load_sweep(arguments.file)
    if arguments.seeds is not None:
        sweep = validate_sweep({**sweep.model_dump(), "seeds": arguments.seeds})
    overrides = list(arguments.overrides)
    if arguments.address is not None:
        overrides.append(f"resources.ray_address={arguments.address}")
    folder = arguments.run_dir or Path("runs") / sweep.name
    from adanat_rl.experiment.cluster import quiet_environment

    quiet_environment()
    if arguments.dry_run:
        from adanat_rl.experiment.sweep.outline import describe_sweep

        print(describe_sweep(sweep, folder, tuple(overrides)))
        return EXIT_DONE
    from adanat_rl.experiment.sweep.run import run_sweep

    return run_sweep(
        sweep,
        folder,
        overrides,
        invocation.again,
        invocation.stop,
        quiet=arguments.quiet,
        log_json=arguments.log_json,
    )


if __name__ == "__main__":
    sys.exit(main())
