"""Command `evaluate`: a policy or a schedule against its controls and the baselines, as table, JSON and MLflow run."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from adanat_rl.cli import (
    EXIT_DONE,
    Invocation,
    add_display_options,
    add_subject_options,
    command_parser,
    resolve_arguments,
    run_command,
    run_directory,
    typed_keys,
)
from adanat_rl.config.errors import UserError
from adanat_rl.config.files import write_atomically
from adanat_rl.config.loading import dump
from adanat_rl.config.schema import ExperimentConfig

SECTIONS = ("name", "data", "generator", "decisions", "evaluation", "resources", "tracking")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command("evaluate", argv, _main)


def _main(invocation: Invocation) -> int:
    parser = command_parser("evaluate", settings=SECTIONS)
    add_subject_options(parser)
    parser.add_argument(
        "--baseline",
        metavar="FILE.json",
        type=Path,
        action="append",
        default=[],
        help="one more baseline: a schedule, as `search` finds it, or a reference file; may be given again",
    )
    parser.add_argument(
        "--output", metavar="FILE.json", type=Path, help="where the numbers go (default: RUN_DIR/evaluation.json)"
    )
    add_display_options(parser)
    arguments = parser.parse_args(invocation.argv)
    config = resolve_arguments(arguments)
    if arguments.dry_run:
        print(dump(config), end="")
        return EXIT_DONE
    return _evaluate(config, arguments)


def _evaluate(config: ExperimentConfig, arguments: argparse.Namespace) -> int:
    from adanat_rl.evaluation.comparison import compare
    from adanat_rl.evaluation.controls import possible_controls
    from adanat_rl.evaluation.drawing import DrawAndKeep
    from adanat_rl.evaluation.judge import FD_A
    from adanat_rl.evaluation.reference import join_baselines, load_baselines
    from adanat_rl.experiment.build import build_baselines, draw_here
    from adanat_rl.experiment.cluster import quiet_environment
    from adanat_rl.experiment.progress import open_display
    from adanat_rl.experiment.subject import load_subject

    quiet_environment()
    more = [row for file in arguments.baseline for row in load_baselines(file.expanduser())]
    subject = load_subject(config, arguments.policy, arguments.schedule, typed_keys(arguments))
    baselines = join_baselines([*build_baselines(config), *more])
    evaluation = config.evaluation
    seeds = list(range(evaluation.seed + 1, evaluation.seed + 1 + evaluation.num_seeds))
    output = arguments.output or run_directory(config) / "evaluation.json"
    if output.is_dir():
        raise UserError(f"--output: {output} is a folder, expected a file name")
    controls = possible_controls(subject.evaluator.generator) if subject.looks_at_images else ()
    with open_display("evaluate", quiet=arguments.quiet, log_json=arguments.log_json) as display:
        evaluator, pieces = subject.evaluator, output.with_suffix(".pieces")
        if evaluation.keep_pieces:
            evaluator = evaluator.drawing_by(DrawAndKeep(pieces, draw_here(config)))
        comparison = compare(
            evaluator,
            subject.policy,
            subject.title,
            baselines,
            seeds,
            controls=controls,
            report=lambda row: display.message(f"FD {row.evaluation.mean(FD_A):.3f}  {row.title}"),
        ).as_dict()
        shutil.rmtree(pieces, ignore_errors=True)
        write_atomically(output, json.dumps(comparison, indent=1, ensure_ascii=False))
        display.table(comparison)
        if comparison["verdict"] is not None:
            display.message(comparison["verdict"]["sentence"])
        display.message(f"numbers: {output}")
        if config.tracking.enabled:
            from adanat_rl.config.revision import git_revision
            from adanat_rl.tracking.evaluation_run import log_evaluation

            log_evaluation(config, output, subject.title, display.message, git_revision())
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
