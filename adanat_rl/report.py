"""Command `report`: figures and report.html of a run or of a sweep again, finished or not."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from adanat_rl.cli import EXIT_DONE, CommandParser, Invocation, run_command
from adanat_rl.console.options import add_run_folder, named_run_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command("report", argv, _main)


def _main(invocation: Invocation) -> int:
    parser = CommandParser(
        prog="adanat-rl report",
        description="Make figures and report.html of a run or of a sweep again.",
        allow_abbrev=False,
    )
    add_run_folder(parser, "run or sweep")
    path = named_run_folder(parser.parse_args(invocation.argv))
    from adanat_rl.experiment.run_folder import RunFolder
    from adanat_rl.plots.report import write_report

    if (path / "trials.json").exists():
        from adanat_rl.plots.ablation.report import write_ablation_report

        print(write_ablation_report(path).sentence)
        print(f"report: {path / 'report.html'}")
        return EXIT_DONE
    folder = RunFolder(path)
    folder.saved_config()  # refuses what is no run folder
    write_report(folder)
    print(f"report: {folder.report_file}")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
