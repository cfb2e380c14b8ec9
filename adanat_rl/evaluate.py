"""Command `evaluate`: a policy or a schedule against its controls and the baselines, as table, JSON and MLflow run."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
    typed_keys,
)
from adanat_rl.config.errors import UserError
from adanat_rl.config.files import write_atomically
from adanat_rl.config.paths import ASSET_PREFIX
from adanat_rl.config.plain_files import require_plain_files
from adanat_rl.config.run_paths import RunPaths
from adanat_rl.config.schema import ExperimentConfig

SECTIONS = ("name", "data", "generator", "decisions", "evaluation", "resources", "tracking")
_SUBJECT = "a run folder, an exported policy, asset:NAME, a schedule FILE.json, or module:function"
_OWN_POLICY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command("evaluate", argv, _main)


def _main(invocation: Invocation) -> int:
    parser = command_parser("evaluate", settings=SECTIONS, folder="runs", subject=_SUBJECT)
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
        "--output",
        metavar="FILE.json",
        type=Path,
        help="where the numbers go (default: evaluations/NAME_TIME.json, in the run folder or in runs)",
    )
    add_display_options(parser)
    arguments = parser.parse_args(invocation.argv)
    wanted = _wanted(arguments)
    config = resolve_arguments(arguments)
    if arguments.dry_run:
        print_settings(config)
        return EXIT_DONE
    return _evaluate(config, arguments, wanted)


@dataclass(frozen=True)
class _Wanted:
    """What is to be evaluated; all None: the policy that ships.

    Args:
        policy: a path or asset. schedule: a file. own: `module:function`. run: the run folder that it is of.
    """

    policy: str | None = None
    schedule: Path | None = None
    own: str | None = None
    run: Path | None = None

    @property
    def name(self) -> str:
        """For the name of a file."""
        if self.own is not None:
            text = self.own
        elif self.run is not None:
            text = self.run.resolve().name
        elif self.schedule is not None:
            text = self.schedule.stem
        else:
            text = (self.policy or "shipped-policy").removeprefix(ASSET_PREFIX).rstrip("/")
            text = text if self.policy is None or self.policy.startswith(ASSET_PREFIX) else Path(text).resolve().name
        return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "policy"


def _wanted(arguments: argparse.Namespace) -> _Wanted:
    """What the command line names, and the settings of its run if it is one.

    Raises:
        UserError: nothing like it is there, or two things are named.
    """
    given = [text for text in (arguments.subject, arguments.policy, arguments.schedule) if text is not None]
    if len(given) > 1:
        raise UserError(f"{given[0]} and {given[1]}: evaluate one thing at a time")
    if arguments.schedule is not None:
        return _Wanted(schedule=arguments.schedule)
    name = arguments.subject or arguments.policy
    if name is None:
        run = None if arguments.run_dir is None else Path(arguments.run_dir).expanduser()
        return _of_run(run, arguments) if run is not None and RunPaths(run).config_file.is_file() else _Wanted()
    path = Path(name).expanduser()
    if RunPaths(path).config_file.is_file():
        return _of_run(path, arguments)
    if path.is_file() and arguments.policy is None:
        return _Wanted(schedule=path)
    if not path.exists() and _OWN_POLICY.fullmatch(name) and not name.startswith(ASSET_PREFIX):
        return _Wanted(own=name)
    if not path.exists() and not name.startswith(ASSET_PREFIX):
        raise UserError(f"{name}: there is none; expected {_SUBJECT}")
    return _Wanted(policy=name)


def _of_run(run: Path, arguments: argparse.Namespace) -> _Wanted:
    require_plain_files(run)
    paths = RunPaths(run)
    if not (paths.policy / "policy.json").is_file():
        raise UserError(
            f"{run} has no policy yet, which a finished training leaves; of a checkpoint: "
            f"adanat-rl export --run-dir {run} --output DIR, then adanat-rl evaluate DIR"
        )
    if arguments.preset is None and arguments.config is None:
        arguments.config = paths.config_file
    if arguments.run_dir is None:
        arguments.run_dir = str(run)
    return _Wanted(policy=str(run), run=run)


def _output_file(config: ExperimentConfig, arguments: argparse.Namespace, wanted: _Wanted) -> Path:
    """A file of its own: nobody's result is overwritten, and no run folder begins where none is."""
    if arguments.output is not None:
        return Path(arguments.output)
    home = Path("runs") if arguments.run_dir is None else run_directory(config)
    folder = RunPaths(home).evaluations
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = (f"{wanted.name}_{stamp}.json", *(f"{wanted.name}_{stamp}_{number}.json" for number in range(1, 1000)))
    return next(folder / name for name in names if not (folder / name).exists())


def _evaluate(config: ExperimentConfig, arguments: argparse.Namespace, wanted: _Wanted) -> int:
    from adanat_rl.evaluation.comparison import compare, panel_sentences
    from adanat_rl.evaluation.controls import possible_controls
    from adanat_rl.evaluation.drawing import DrawAndKeep
    from adanat_rl.evaluation.judge import FD_A
    from adanat_rl.evaluation.reference import join_baselines, load_baselines
    from adanat_rl.evaluation.rewarded import rewarded_judges
    from adanat_rl.experiment.build import build_baselines, draw_here
    from adanat_rl.experiment.cluster import quiet_environment
    from adanat_rl.experiment.fitting import check_baselines
    from adanat_rl.experiment.progress import open_display
    from adanat_rl.experiment.subject import load_subject

    quiet_environment()
    more = [(file, load_baselines(file.expanduser())) for file in arguments.baseline]
    output = _output_file(config, arguments, wanted)
    if output.is_dir():
        raise UserError(f"--output: {output} is a folder, expected a file name")
    subject = load_subject(config, wanted.policy, wanted.schedule, typed_keys(arguments), wanted.own)
    for file, rows in more:
        check_baselines(rows, f"--baseline: {file}", subject.evaluator.generator.context_spec.num_contexts)
    baselines = join_baselines([*build_baselines(config), *(row for _, rows in more for row in rows)])
    evaluation = config.evaluation
    seeds = list(range(evaluation.seed + 1, evaluation.seed + 1 + evaluation.num_seeds))
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
            rewarded=() if wanted.run is None else rewarded_judges(config),
            report=lambda row: display.message(f"FD {row.evaluation.mean(FD_A):.3f}  {row.title}"),
        ).as_dict()
        shutil.rmtree(pieces, ignore_errors=True)
        write_atomically(output, json.dumps(comparison, indent=1, ensure_ascii=False))
        display.table(comparison)
        for sentence in panel_sentences(comparison):
            display.message(sentence)
        if comparison["verdict"] is not None:
            display.message(comparison["verdict"]["sentence"])
        display.message(f"numbers: {output}")
        if config.tracking.enabled:
            from adanat_rl.experiment.environment import git_revision
            from adanat_rl.tracking.evaluation_run import log_evaluation

            home = run_directory(config) if arguments.run_dir is not None else Path("runs") / config.name
            revision = git_revision(Path(__file__).parent)
            log_evaluation(config, output, subject.title, display.warning, revision, home)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
