"""Command `sample`: images of a policy or a schedule as a PNG grid, a folder of PNGs, or an `.npz` file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adanat_rl.cli import (
    EXIT_DONE,
    Invocation,
    add_subject_options,
    command_parser,
    resolve_arguments,
    run_command,
    typed_keys,
)
from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import dump

if TYPE_CHECKING:
    from adanat_rl.generation.pipeline import PipelineOutput

SECTIONS = ("generator", "text", "evaluation", "resources")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command("sample", argv, _main)


def _main(invocation: Invocation) -> int:
    parser = command_parser("sample", settings=SECTIONS)
    add_subject_options(parser)
    drawn = parser.add_mutually_exclusive_group()
    drawn.add_argument("--context", metavar="LABELS", help="what to draw, such as 3,3,7 or 0-9 (default: every class)")
    drawn.add_argument(
        "--prompts", metavar="FILE.txt", type=Path, help="captions to draw, one a line, encoded with text.encoder"
    )
    parser.add_argument("--per-context", metavar="N", type=int, default=8, help="images of each label (default: 8)")
    parser.add_argument(
        "--seed", metavar="S", type=int, default=0, help="seed of the first image; the others follow (default: 0)"
    )
    parser.add_argument("--steps", action="store_true", help="show the half-drawn images too: one row per image")
    parser.add_argument(
        "--output",
        metavar="PATH",
        type=Path,
        default=Path("samples.png"),
        help="FILE.png, FILE.npz or a folder (default: samples.png)",
    )
    arguments = parser.parse_args(invocation.argv)
    config = resolve_arguments(arguments)
    if arguments.per_context < 1:
        raise UserError(f"--per-context: {arguments.per_context} is not accepted: expected at least 1")
    if arguments.dry_run:
        print(dump(config), end="")
        return EXIT_DONE
    from adanat_rl.experiment.subject import load_drawer
    from adanat_rl.generation.text.build import read_prompts

    prompts = None if arguments.prompts is None else read_prompts(arguments.prompts)
    pipeline = load_drawer(config, arguments.policy, arguments.schedule, prompts, typed_keys(arguments))
    labels = parse_labels(arguments.context, pipeline.generator.context_spec.num_contexts)
    context = np.repeat(labels, arguments.per_context)
    seeds = np.arange(arguments.seed, arguments.seed + len(context))
    output = pipeline(context, seeds, keep_steps=arguments.steps)
    print(_write(arguments, output, context, seeds))
    return EXIT_DONE


def parse_labels(text: str | None, num_classes: int) -> np.ndarray:
    """Labels of a list such as "3,3,7" or "0-4,9"; all classes for None.

    Raises:
        UserError: it is no such list.
    """
    if text is None:
        return np.arange(num_classes)
    labels: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise UserError(
                f"--context: {text!r} is not accepted: expected labels 0 … {num_classes - 1}, such as 3,3,7 or 0-9"
            )
        labels += range(int(first), int(last) + 1) if dash else [int(first)]
    if not labels:
        raise UserError(f"--context: {text!r} names no label; expected labels 0 … {num_classes - 1}")
    return np.array(labels)


def _write(arguments: argparse.Namespace, output: PipelineOutput, context: np.ndarray, seeds: np.ndarray) -> str:
    from adanat_rl.config.files import write_atomically
    from adanat_rl.experiment.gallery import image_grid, png_bytes, write_npz

    path: Path = arguments.output
    if path.suffix == ".npz":
        write_npz(path, output, context, seeds)
        return f"{len(context)} images: {path}"
    if path.suffix == ".png":
        if output.steps is None:
            grid = image_grid(output.images, arguments.per_context)
        else:
            grid = image_grid(output.steps.reshape(-1, *output.images.shape[1:]), output.steps.shape[1])
        write_atomically(path, png_bytes(grid))
        return f"{len(context)} images: {path}"
    if path.suffix or path.is_file():
        raise UserError(f"--output: {path} is not accepted: expected FILE.png, FILE.npz or a folder")
    for label, seed, image in zip(context, seeds, output.images, strict=True):
        write_atomically(path / f"label_{label}_seed_{seed}.png", png_bytes(image_grid(image[None], 1)))
    return f"{len(context)} images in {path}"


if __name__ == "__main__":
    sys.exit(main())
