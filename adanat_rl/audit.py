"""Command `audit`: whether a run folder is what it should be."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from adanat_rl.cli import EXIT_DONE, EXIT_FAILED, CommandParser, Invocation, run_command
from adanat_rl.console.options import add_run_folder, named_run_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command("audit", argv, _main)


def _main(invocation: Invocation) -> int:
    parser = CommandParser(
        prog="adanat-rl audit",
        description="Check a run folder: checkpoints by manifest, trajectories exactly once, metric rows without gaps.",
        allow_abbrev=False,
    )
    add_run_folder(parser, "run")
    path = named_run_folder(parser.parse_args(invocation.argv))
    from adanat_rl.experiment.auditing import audit
    from adanat_rl.experiment.findings import print_findings
    from adanat_rl.experiment.run_folder import RunFolder

    return EXIT_DONE if print_findings(audit(RunFolder(path))) else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
