"""Command `probe`: how much a decision could matter to a class or an image, before training; table, JSON, figures."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from adanat_rl.cli import (
    EXIT_DONE,
    Invocation,
    add_display_options,
    add_subject_options,
    command_parser,
    print_settings,
    resolve_arguments,
    run_command,
    run_directory,
    take_settings_of_run,
)
from adanat_rl.config.errors import UserError
from adanat_rl.config.files import write_atomically
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.console.options import whole_numbers

SECTIONS = ("name", "seed", "data", "generator", "decisions", "reward", "evaluation", "resources")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command("probe", argv, _main)


def _main(invocation: Invocation) -> int:
    parser = command_parser("probe", settings=SECTIONS)
    add_subject_options(parser, "start from ", "the base schedule")
    parser.add_argument(
        "--num-images",
        metavar="N",
        type=whole_numbers(8, 10**6),
        default=320,
        help="half-drawn images, as many of each class (default: 320)",
    )
    parser.add_argument(
        "--num-repeats",
        metavar="R",
        type=whole_numbers(3, 10**4),
        default=8,
        help="how often each is finished with each level (default: 8)",
    )
    parser.add_argument(
        "--offsets", metavar="X,Y,…", default="-2,-1,1,2", help="levels, in units of an action (default: -2,-1,1,2)"
    )
    parser.add_argument(
        "--reward-from",
        metavar="SOURCE",
        help="state of a trained reward: a run folder, discriminator weights, or fresh for that of a run that starts "
        "(default: the weights that ship with the data set, or else fresh)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE.json",
        type=Path,
        help="where the numbers go (default: RUN_DIR/probe.json, or RUN_DIR_probe.json while there is no such run)",
    )
    add_display_options(parser)
    arguments = parser.parse_args(invocation.argv)
    take_settings_of_run(arguments)
    config = resolve_arguments(arguments)
    offsets = _parse_offsets(arguments.offsets)
    if arguments.dry_run:
        print_settings(config)
        return EXIT_DONE
    return _probe(config, arguments, offsets)


def _parse_offsets(text: str) -> tuple[float, ...]:
    try:
        offsets = tuple(float(part) for part in text.split(","))
    except ValueError:
        offsets = ()
    if not offsets or any(not 0 < abs(offset) <= 20 for offset in offsets) or len(set(offsets)) < len(offsets):
        raise UserError(f"--offsets: {text!r} is not accepted: expected numbers such as -2,-1,1,2, none of them 0")
    return offsets


def _probe(config: ExperimentConfig, arguments: argparse.Namespace, offsets: tuple[float, ...]) -> int:
    from adanat_rl.console.tables import print_table
    from adanat_rl.evaluation.probe import run_probe
    from adanat_rl.evaluation.probe_design import ProbeDesign, probe_file
    from adanat_rl.evaluation.probe_findings import probe_table, sentences
    from adanat_rl.experiment.probing import load_probe_subject
    from adanat_rl.experiment.progress import open_display
    from adanat_rl.plots.probe import write_probe_figures

    output: Path = arguments.output or probe_file(run_directory(config))
    if output.is_dir():
        raise UserError(f"--output: {output} is a folder, expected a file name")
    design = ProbeDesign(arguments.num_images, arguments.num_repeats, offsets, seed=config.seed)
    with open_display("probe", quiet=arguments.quiet, log_json=arguments.log_json) as display:
        subject = load_probe_subject(config, arguments.policy, arguments.schedule, arguments.reward_from)
        display.message(f"start: {subject.title}; reward: {subject.reward}")
        found = run_probe(
            subject.generator,
            subject.policy,
            subject.scorer,
            design,
            batch_size=config.evaluation.batch_size,
            num_threads=config.resources.driver_threads,
            report=lambda done, total: display.row(done, total, {}),
        )
        probe = {"start": subject.title, "reward": subject.reward, **found.as_dict()}
        probe["sentences"] = sentences(probe)
        write_atomically(output, json.dumps(probe, indent=1, ensure_ascii=False))
        pictures = write_probe_figures(output, probe)
        if arguments.log_json:
            print(json.dumps({"probe": probe}), flush=True)
    if not (arguments.quiet or arguments.log_json):
        print_table(lambda width: probe_table(probe, width))
        print("\n".join(probe["sentences"]))
        print(f"numbers: {output}; figures: {', '.join(str(path) for path in pictures)}")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
