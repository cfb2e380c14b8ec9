"""Command `schema`: the JSON schema of the configuration, for editors."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from adanat_rl.cli import EXIT_DONE, CommandParser, Invocation, run_command
from adanat_rl.console.options import path_argument
from adanat_rl.console.streams import can_print


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command("schema", argv, _main)


def _main(invocation: Invocation) -> int:
    parser = CommandParser(
        prog="adanat-rl schema", description="Print the JSON schema of the configuration.", allow_abbrev=False
    )
    parser.add_argument("--output", metavar="FILE.json", type=path_argument, help="write it there instead")
    parser.add_argument("--markdown", action="store_true", help="print the reference of all settings instead")
    arguments = parser.parse_args(invocation.argv)
    from adanat_rl.config.files import write_atomically
    from adanat_rl.config.loading import json_schema, settings_markdown

    text = settings_markdown() if arguments.markdown else json_schema() + "\n"
    if arguments.output is None and not arguments.markdown and not can_print(text):
        text = json_schema(ascii_only=True) + "\n"
    if arguments.output is None:
        print(text, end="")
    else:
        write_atomically(arguments.output, text)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
