"""Command `prepare`: images to tokens, captions to embeddings, and Fréchet statistics of a data set, each done once."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adanat_rl.cli import (
    EXIT_DONE,
    Invocation,
    add_display_options,
    command_parser,
    print_settings,
    resolve_arguments,
    run_command,
    run_directory,
)
from adanat_rl.config.errors import UserError

if TYPE_CHECKING:
    from adanat_rl.experiment.progress import Display

SECTIONS = ("name", "run_dir", "data", "generator", "text", "evaluation", "resources")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command("prepare", argv, _main)


def _main(invocation: Invocation) -> int:
    arguments = _parser().parse_args(invocation.argv)
    config = resolve_arguments(arguments)
    chosen = [work for work in (_tokens, _captions, _statistics) if getattr(arguments, work.__name__[1:])]
    if not chosen:
        raise UserError("nothing to prepare: give --tokens, --captions or --statistics")
    if arguments.batch_size < 1:
        raise UserError(f"--batch-size: {arguments.batch_size} is not accepted: expected at least 1")
    if arguments.keep_features < 0:
        raise UserError(f"--keep-features: {arguments.keep_features} is not accepted: expected 0 or more")
    if arguments.captions and config.text.encoder is None:
        raise UserError("text.encoder: null is not accepted: --captions needs the folder of a CLIP of transformers")
    if arguments.statistics and config.evaluation.inception is None:
        raise UserError("evaluation.inception: null is not accepted: --statistics needs the weights of Inception-v3")
    if arguments.dry_run:
        print_settings(config)
        return EXIT_DONE
    import torch

    from adanat_rl.experiment.inputs import require_named
    from adanat_rl.experiment.progress import open_display
    from adanat_rl.generation.threads import torch_threads

    require_named(config, {key for work in chosen for key in _READ[work]})
    arguments.device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    folder = run_directory(config, "-prepared")
    shown = open_display("prepare", quiet=arguments.quiet, log_json=arguments.log_json)
    with torch_threads(config.resources.driver_threads), shown as display:
        for work in chosen:
            work(config, arguments, folder, display)
    return EXIT_DONE


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("prepare", settings=SECTIONS)
    add_display_options(parser)
    parser.add_argument("--tokens", action="store_true", help="encode the images with generator.tokenizer")
    parser.add_argument("--captions", action="store_true", help="encode the captions with text.encoder")
    parser.add_argument(
        "--statistics", action="store_true", help="Fréchet statistics of the images with evaluation.inception"
    )
    parser.add_argument(
        "--keep-features",
        metavar="N",
        type=int,
        default=5000,
        help="images whose features stay in the statistics, for precision and recall (default: 5000)",
    )
    parser.add_argument("--batch-size", metavar="N", type=int, default=64, help="rows of one pass (default: 64)")
    parser.add_argument("--device", metavar="NAME", help="cpu or cuda (default: cuda where there is one)")
    return parser


def _tokens(config: Any, arguments: argparse.Namespace, folder: Path, display: Display) -> None:
    from adanat_rl.config.files import file_sha256
    from adanat_rl.config.paths import resolve_path
    from adanat_rl.data.loading import load_images
    from adanat_rl.experiment.preparing import encode_tokens, token_recipe
    from adanat_rl.generation.build import load_tokenizer

    dataset = load_images(config.data)
    _tell_notes(dataset, display)
    tokenizer = load_tokenizer(config.generator, arguments.device)
    digest = file_sha256(resolve_path(config.generator.tokenizer, "generator.tokenizer"))
    recipe = token_recipe(dataset, tokenizer, digest, config.data.horizontal_flip)
    display.message(f"tokens: {recipe.count} images, {recipe.length} tokens each, {recipe.num_bytes / 1e6:.1f} MB")
    place = _place(config.data.tokens, folder / "tokens")
    encode_tokens(
        dataset,
        tokenizer,
        recipe,
        place,
        batch_size=arguments.batch_size,
        prefetch=config.data.prefetch,
        device=arguments.device,
        progress=_progress(display),
    )
    display.message(f"use them: data.tokens={place}")


def _captions(config: Any, arguments: argparse.Namespace, folder: Path, display: Display) -> None:
    from adanat_rl.data.loading import load_source
    from adanat_rl.generation.text.build import build_text_encoder
    from adanat_rl.generation.text.table_writer import write_caption_table

    source = load_source(config.data)
    if not len(source.captions):
        raise UserError(f"data.name: {config.data.name} at {config.data.path} has classes and no captions")
    for note in source.notes:
        display.warning(note)
    encoder = build_text_encoder(config.text, config.generator, arguments.device)
    table = _place(config.generator.captions, folder / "captions")
    write_caption_table(table, source.captions, encoder, arguments.batch_size, _progress(display))
    display.message(f"captions: {len(source.captions)} and the empty prompt")
    display.message(f"use them: generator.captions={table}")


def _statistics(config: Any, arguments: argparse.Namespace, folder: Path, display: Display) -> None:
    from adanat_rl.config.paths import resolve_path
    from adanat_rl.data.loading import load_images
    from adanat_rl.experiment.preparing import reference_statistics
    from adanat_rl.metrics.inception import load_extractor

    place = _place(config.data.statistics, folder / "statistics.npz")
    if config.data.statistics is not None and place.exists():
        raise UserError(f"data.statistics: {place} is there already; delete it, or name another place")
    weights = resolve_path(config.evaluation.inception, "evaluation.inception")
    extractor = load_extractor(weights, config.evaluation.resize, arguments.device)
    dataset = load_images(config.data)
    _tell_notes(dataset, display)
    statistics = reference_statistics(
        dataset,
        extractor,
        folder,
        num_kept=arguments.keep_features,
        batch_size=arguments.batch_size,
        prefetch=config.data.prefetch,
        device=arguments.device,
        progress=_progress(display),
    )
    display.message(f"statistics: {statistics.count} of {len(dataset)} images, {statistics.convention}")
    if place != folder / "statistics.npz":
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder / "statistics.npz", place)
    display.message(f"use them: data.statistics={place}")


_PHOTOS = ("data.path", "data.captions", "data.class_names")
_READ = {
    _tokens: (*_PHOTOS, "generator.tokenizer"),
    _captions: ("data.path", "data.captions", "text.encoder", "text.tokenizer"),
    _statistics: (*_PHOTOS, "evaluation.inception"),
}
"""Settings that name the files which a piece of work reads."""


def _place(configured: str | None, default: Path) -> Path:
    """Where something is written: where the settings look for it, else in the folder of this command."""
    return default if configured is None else Path(configured).expanduser()


def _tell_notes(dataset: Any, display: Display) -> None:
    for note in getattr(getattr(dataset, "source", None), "notes", ()):
        display.warning(note)


def _progress(display: Display) -> Callable[[int, int], None]:
    return lambda done, total: display.row(done, total, {"done": done, "num": total})


if __name__ == "__main__":
    sys.exit(main())
