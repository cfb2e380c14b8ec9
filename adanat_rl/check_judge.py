"""Command `check-judge`: tries a judge of one's own on real images and says which rules of the contract it keeps."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from adanat_rl.cli import (
    EXIT_DONE,
    EXIT_FAILED,
    Invocation,
    command_parser,
    print_settings,
    resolve_arguments,
    run_command,
)
from adanat_rl.config.errors import UserError
from adanat_rl.config.section import OWN_NAME

SECTIONS = ("data", "resources")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command("check-judge", argv, _main)


def _main(invocation: Invocation) -> int:
    parser = command_parser("check-judge", settings=SECTIONS)
    parser.description = f"{parser.description}\n\nJUDGE is module:Class of your own."
    parser.usage = "adanat-rl check-judge JUDGE [options] [KEY=VALUE ...]"
    arguments = parser.parse_args(invocation.argv)
    name = _take_name(arguments.overrides)
    config = resolve_arguments(arguments)
    if arguments.dry_run:
        print_settings(config)
        return EXIT_DONE
    from adanat_rl.config.findings import failures
    from adanat_rl.console.findings import print_findings, print_verdict
    from adanat_rl.evaluation.panel.trying import check_in_process

    findings = check_in_process(name, config)
    print_findings(f"judge {name}", findings)
    print_verdict(name, findings)
    return EXIT_FAILED if failures(findings) else EXIT_DONE


def _take_name(words: list[str]) -> str:
    """Takes the name of the judge out of the words on the command line; the others are settings."""
    names = [word for word in words if "=" not in word]
    if len(names) != 1 or not OWN_NAME.fullmatch(names[0]):
        raise UserError(f"{' '.join(names) or 'no judge'}: expected one judge, module:Class")
    words.remove(names[0])
    return names[0]


if __name__ == "__main__":
    sys.exit(main())
