"""Command `sample`: images of a policy or a schedule as a PNG grid, a folder of PNGs, or an `.npz` file."""

from __future__ import annotations

import argparse
import os
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
    print_settings,
    resolve_arguments,
    run_command,
    typed_keys,
)
from adanat_rl.config.errors import UserError
from adanat_rl.console.options import path_argument, whole_number, whole_numbers

if TYPE_CHECKING:
    from adanat_rl.generation.pipeline import PipelineOutput

_MOST_IMAGES = 1_000_000
_FILES = frozenset((".png", ".npz"))
_OTHER_FILES = frozenset(
    f".{kind}"
    for kind in [
        "jpg",
        "jpeg",
        "jpe",
        "gif",
        "webp",
        "bmp",
        "tif",
        "tiff",
        "svg",
        "pdf",
        "ppm",
        "npy",
        "pt",
        "pth",
        "safetensors",
        "json",
        "zip",
        "tar",
    ]
)
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
        "--prompts",
        metavar="FILE.txt",
        type=path_argument,
        help="captions to draw, one a line, encoded with text.encoder",
    )
    parser.add_argument(
        "--per-context",
        metavar="N",
        type=whole_numbers(1, _MOST_IMAGES),
        default=8,
        help="images of each label (default: 8)",
    )
    parser.add_argument(
        "--seed",
        metavar="S",
        type=whole_numbers(0, 2**32 - 1),
        default=0,
        help="seed of the first image; the others follow (default: 0)",
    )
    parser.add_argument("--steps", action="store_true", help="show the half-drawn images too: one row per image")
    parser.add_argument(
        "--output",
        metavar="PATH",
        type=path_argument,
        default=Path("samples.png"),
        help="FILE.png, FILE.npz, or a folder for a PNG of each image (default: samples.png)",
    )
    arguments = parser.parse_args(invocation.argv)
    config = resolve_arguments(arguments)
    check_output(arguments.output)
    if arguments.dry_run:
        print_settings(config)
        return EXIT_DONE
    from adanat_rl.experiment.subject import check_preset, load_drawer
    from adanat_rl.generation.text.build import read_prompts

    prompts = None if arguments.prompts is None else read_prompts(arguments.prompts)
    check_preset(config, arguments.policy, _named(arguments), typed_keys(arguments))
    pipeline = load_drawer(config, arguments.policy, arguments.schedule, prompts, typed_keys(arguments))
    labels = parse_labels(arguments.context, pipeline.generator.context_spec.num_contexts)
    if len(labels) * arguments.per_context > _MOST_IMAGES:
        raise UserError(
            f"--per-context: {len(labels)} labels with {arguments.per_context:,} images each are more than "
            f"{_MOST_IMAGES:,}; draw them in parts, with --seed"
        )
    context = np.repeat(labels, arguments.per_context)
    seeds = np.arange(arguments.seed, arguments.seed + len(context))
    output = pipeline(context, seeds, keep_steps=arguments.steps)
    print(_write(arguments, output, context, seeds))
    return EXIT_DONE


def _named(arguments: argparse.Namespace) -> str | None:
    """Option and name of the settings that were asked for; None where the default ones are meant."""
    if arguments.preset is not None:
        return f"--preset {arguments.preset}"
    return None if arguments.config is None else f"--config {arguments.config}"


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
        begin = whole_number(first)
        end = whole_number(last) if dash else begin
        if begin is None or end is None or end < begin:
            raise UserError(
                f"--context: {text[:80]!r} is not accepted: expected labels 0 … {num_classes - 1}, such as 3,3,7 or 0-9"
            )
        if end >= num_classes:
            raise UserError(f"--context: {end} is no label; accepted: 0 … {num_classes - 1}")
        labels += range(begin, end + 1)
    return np.array(labels)


def check_output(path: Path) -> None:
    """Whether images can be written there, before they are drawn.

    Raises:
        UserError: a kind of file that is not written here, a folder where a file is meant or the other way round, or
            no permission.
    """
    suffix = path.suffix.lower()
    if suffix in _FILES:
        if path.is_dir():
            raise UserError(f"--output: {path} is a folder, expected a file name")
    elif suffix in _OTHER_FILES or path.is_file():
        raise UserError(f"--output: {path} is not accepted: expected FILE.png, FILE.npz or a folder")
    home = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if home.is_dir() and not os.access(home, os.W_OK):
        raise UserError(f"--output: no permission to write in {home}")
    if not home.is_dir() and home != path:
        raise UserError(f"--output: {home} is a file, expected a folder")


def _write(arguments: argparse.Namespace, output: PipelineOutput, context: np.ndarray, seeds: np.ndarray) -> str:
    from adanat_rl.config.files import write_atomically
    from adanat_rl.experiment.gallery import image_grid, png_bytes, write_npz

    path: Path = arguments.output
    suffix = path.suffix.lower()
    if suffix == ".npz":
        write_npz(path, output, context, seeds)
        return f"{len(context)} images: {path}"
    if suffix == ".png":
        if output.steps is None:
            grid = image_grid(output.images, arguments.per_context)
        else:
            grid = image_grid(output.steps.reshape(-1, *output.images.shape[1:]), output.steps.shape[1])
        write_atomically(path, png_bytes(grid))
        return f"{len(context)} images: {path}"
    for label, seed, image in zip(context, seeds, output.images, strict=True):
        write_atomically(path / f"label_{label}_seed_{seed}.png", png_bytes(image_grid(image[None], 1)))
    return f"{len(context)} images in {path}"


if __name__ == "__main__":
    sys.exit(main())
