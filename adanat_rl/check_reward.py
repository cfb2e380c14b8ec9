"""Command `check-reward`: tries a reward model on images of a preset and says which rules of the contract it keeps."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adanat_rl.cli import (
    EXIT_DONE,
    EXIT_FAILED,
    CommandParser,
    Invocation,
    command_parser,
    print_settings,
    resolve_arguments,
    run_command,
)
from adanat_rl.config.errors import UserError
from adanat_rl.config.reward_settings import COMPOSITE, REWARD_KINDS
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.console.options import whole_numbers

if TYPE_CHECKING:
    from adanat_rl.config.findings import Finding

SECTIONS = ("seed", "data", "generator", "decisions", "reward", "resources")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command("check-reward", argv, _main)


def _main(invocation: Invocation) -> int:
    parser = command_parser("check-reward", settings=SECTIONS)
    parser.description = f"{parser.description}\n\nREWARD is module:Class of your own, or a kind such as classifier."
    parser.usage = "adanat-rl check-reward REWARD [options] [KEY=VALUE ...]"
    parser.add_argument(
        "--num-images",
        metavar="N",
        type=whole_numbers(4, 10**6),
        help="generated images to score (default: 48; a shard for a reward of sets)",
    )
    arguments = parser.parse_args(invocation.argv)
    kind = _take_kind(parser, arguments.overrides)
    arguments.overrides += [f"reward.kind={kind}", "reward.parts=[]"]
    config: ExperimentConfig = resolve_arguments(arguments)
    if arguments.dry_run:
        print_settings(config)
        return EXIT_DONE
    return _check(config, arguments.num_images)


def _take_kind(parser: CommandParser, words: list[str]) -> str:
    """Takes the name of the reward out of the words on the command line; the others are settings."""
    names = [word for word in words if "=" not in word]
    kinds = [kind for kind in REWARD_KINDS if kind != COMPOSITE]
    if len(names) != 1:
        raise UserError(f"expected one reward, got {len(names)}; accepted: {', '.join(kinds)}, or module:Class")
    if names[0] == COMPOSITE:
        raise UserError("composite is not accepted: check its parts one by one")
    words.remove(names[0])
    return names[0]


def _check(config: ExperimentConfig, num_images: int | None) -> int:
    from adanat_rl.config.findings import failures
    from adanat_rl.rewards.checking import check_in_process

    findings = check_in_process(config, num_images)
    _print(config.reward.kind, findings)
    return EXIT_FAILED if failures(findings) else EXIT_DONE


def _print(name: str, findings: Sequence[Finding]) -> None:
    from adanat_rl.config.findings import Status
    from adanat_rl.console.findings import print_findings, print_verdict
    from adanat_rl.rewards.conformance import CONSTANT

    print_findings(f"reward {name}", findings)
    if any(finding.rule == CONSTANT and finding.status is Status.NOTE for finding in findings):
        print(f"{name}: warning: it gave all images the same score, from which a policy learns nothing")
    print_verdict(name, findings)


if __name__ == "__main__":
    sys.exit(main())
