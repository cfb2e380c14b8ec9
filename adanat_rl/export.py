"""Command `export`: the policy of a run, or of one of its checkpoints, as a folder that loads without Ray."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from adanat_rl.cli import EXIT_DONE, CommandParser, Invocation, run_command
from adanat_rl.config.errors import UserError
from adanat_rl.console.options import add_run_folder, named_run_folder, path_argument, whole_numbers


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command("export", argv, _main)


def _main(invocation: Invocation) -> int:
    parser = CommandParser(
        prog="adanat-rl export", description="Copy a policy into a folder of its own.", allow_abbrev=False
    )
    add_run_folder(parser, "run")
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=path_argument,
        required=True,
        help="folder for policy.safetensors and policy.json",
    )
    parser.add_argument(
        "--iteration", metavar="N", type=whole_numbers(0), help="a checkpoint instead of the newest one"
    )
    arguments = parser.parse_args(invocation.argv)
    if arguments.output.exists() and (not arguments.output.is_dir() or any(arguments.output.iterdir())):
        raise UserError(f"--output: {arguments.output} exists and is not empty; choose another folder")
    from adanat_rl.experiment.exporting import export_from_checkpoint
    from adanat_rl.experiment.run_folder import RunFolder

    iteration = export_from_checkpoint(RunFolder(named_run_folder(arguments)), arguments.iteration, arguments.output)
    print(f"policy after iteration {iteration}: {arguments.output}")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
