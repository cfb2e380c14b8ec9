"""Command `prepare`: images to tokens, captions to embeddings, and Fréchet statistics of a data set, each done once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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
from adanat_rl.data.patterns import user_path

if TYPE_CHECKING:
    from adanat_rl.experiment.progress import Display
    from adanat_rl.metrics.reference_set import Extractor

SECTIONS = ("name", "run_dir", "data", "generator", "text", "evaluation", "resources")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command("prepare", argv, _main)


def _main(invocation: Invocation) -> int:
    arguments = _parser().parse_args(invocation.argv)
    config = resolve_arguments(arguments)
    chosen = [work for option, work in _WORKS.items() if getattr(arguments, option)]
    if not chosen:
        raise UserError("nothing to prepare: give --tokens, --captions or --statistics")
    if arguments.batch_size < 1:
        raise UserError(f"--batch-size: {arguments.batch_size} is not accepted: expected at least 1")
    if arguments.keep_features < 0:
        raise UserError(f"--keep-features: {arguments.keep_features} is not accepted: expected 0 or more")
    if arguments.captions and config.text.encoder is None and config.generator.kind != "amused":
        raise UserError("text.encoder: null is not accepted: --captions needs the folder of a CLIP of transformers")
    evaluation = config.evaluation
    if arguments.statistics and (evaluation.inception, evaluation.dinov2, evaluation.clip) == (None, None, None):
        raise UserError("evaluation.inception: null is not accepted: --statistics needs the weights of Inception-v3")
    if arguments.dry_run:
        print_settings(config)
        return EXIT_DONE

    from adanat_rl.experiment.inputs import require_named
    from adanat_rl.experiment.progress import open_display
    from adanat_rl.generation.threads import torch_threads

    require_named(config, {key for work in chosen for key in work.reads})
    arguments.device = _device(arguments.device)
    folder = run_directory(config, "-prepared")
    _require_writable(folder, "run_dir")
    shown = open_display("prepare", quiet=arguments.quiet, log_json=arguments.log_json)
    with torch_threads(config.resources.driver_threads), shown as display:
        jobs = [work.plan(config, arguments, folder, display) for work in chosen]  # all that can be refused is, first
        for job in jobs:
            job()
    return EXIT_DONE


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("prepare", settings=SECTIONS)
    add_display_options(parser)
    parser.add_argument("--tokens", action="store_true", help="encode the images with generator.tokenizer")
    parser.add_argument("--captions", action="store_true", help="encode the captions with text.encoder")
    parser.add_argument(
        "--statistics",
        action="store_true",
        help="Fréchet statistics of the images with evaluation.inception, evaluation.dinov2 and evaluation.clip",
    )
    parser.add_argument(
        "--keep-features",
        metavar="N",
        type=int,
        default=5000,
        help="images whose features stay in the statistics, for precision, recall and CMMD (default: 5000)",
    )
    parser.add_argument("--batch-size", metavar="N", type=int, default=64, help="rows of one pass (default: 64)")
    parser.add_argument("--device", metavar="NAME", help="cpu or cuda (default: cuda where there is one)")
    return parser


def _plan_tokens(config: Any, arguments: argparse.Namespace, folder: Path, display: Display) -> Job:
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
    place = _place(config.data.tokens, folder / "tokens", "data.tokens")

    def job() -> None:
        display.message(f"tokens: {recipe.count} images, {recipe.length} tokens each, {recipe.num_bytes / 1e6:.1f} MB")
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

    return job


def _plan_captions(config: Any, arguments: argparse.Namespace, folder: Path, display: Display) -> Job:
    from adanat_rl.data.loading import load_source
    from adanat_rl.generation.text.build import build_text_encoder
    from adanat_rl.generation.text.table_writer import write_caption_table

    source = load_source(config.data)
    if not len(source.captions):
        raise UserError(f"data.name: {config.data.name} at {config.data.path} has classes and no captions")
    for note in source.notes:
        display.warning(note)
    encoder = build_text_encoder(config.text, config.generator, arguments.device)
    table = _place(config.generator.captions, folder / "captions", "generator.captions")

    def job() -> None:
        write_caption_table(table, source.captions, encoder, arguments.batch_size, _progress(display))
        display.message(f"captions: {len(source.captions)} and the empty prompt")
        display.message(f"use them: generator.captions={table}")

    return job


def _plan_statistics(config: Any, arguments: argparse.Namespace, folder: Path, display: Display) -> Job:
    from adanat_rl.data.loading import load_images
    from adanat_rl.experiment.preparing import STATISTICS, reference_statistics
    from adanat_rl.metrics.statistics import sister_file

    own = folder / f"{STATISTICS}.npz"
    place = _place(config.data.statistics, own, "data.statistics")
    extractors = _extractors(config, arguments.device)
    places = {name: sister_file(place, name) if name else place for name in extractors}
    there = [] if config.data.statistics is None else [name for name, file in places.items() if file.exists()]
    if len(there) == len(places):
        raise UserError(f"data.statistics: {places[there[0]]} is there already; delete it, or name another place")
    for name in there:
        display.message(f"{places[name]} is there already and stays as it is")
    wanted = {name: load() for name, load in extractors.items() if name not in there}
    dataset = load_images(config.data)
    _tell_notes(dataset, display)

    def job() -> None:
        for name, extractor in wanted.items():
            made = sister_file(own, name) if name else own
            statistics = reference_statistics(
                dataset,
                extractor,
                folder,
                name=made.stem,
                num_kept=arguments.keep_features,
                batch_size=arguments.batch_size,
                prefetch=config.data.prefetch,
                device=arguments.device,
                progress=_progress(display),
            )
            about = f"of {len(dataset)} images, {statistics.convention or extractor.name}"
            display.message(f"statistics: {statistics.count} {about}")
            if place != own:
                _move(made, places[name])
        display.message(f"use them: data.statistics={place}")

    return job


def _extractors(config: Any, device: str) -> dict[str, Callable[[], Extractor]]:
    """What loads each network whose statistics are wanted, by the name of its file; "" is Inception."""
    from adanat_rl.config.paths import resolve_path
    from adanat_rl.evaluation.panel.photos import PHOTO_NETWORKS
    from adanat_rl.metrics.inception import load_extractor

    found: dict[str, Callable[[], Extractor]] = {}
    evaluation = config.evaluation
    if evaluation.inception is not None:
        weights = resolve_path(evaluation.inception, "evaluation.inception")
        found[""] = lambda: load_extractor(weights, evaluation.resize, device)
    for network in PHOTO_NETWORKS:
        if network.folder(config) is not None:
            found[network.name] = partial(network.load_whole, config, device)
    return found


def _move(file: Path, place: Path) -> None:
    """Whole or not at all, to another disk too."""
    from adanat_rl.config.files import write_atomically

    write_atomically(place, file.read_bytes(), durable=True)
    file.unlink()


Job = Callable[[], None]


@dataclass(frozen=True)
class _Work:
    """What an option of the command does.

    Args:
        plan: reads what it needs, refuses what is wrong, and returns what is left to do.
        reads: settings that name the files which it reads.
    """

    plan: Callable[[Any, argparse.Namespace, Path, Any], Job]
    reads: tuple[str, ...]


_PHOTOS = ("data.path", "data.captions", "data.class_names")
_WORKS = {
    "tokens": _Work(_plan_tokens, (*_PHOTOS, "generator.tokenizer")),
    "captions": _Work(_plan_captions, ("data.path", "data.captions", "text.encoder", "text.tokenizer")),
    "statistics": _Work(_plan_statistics, (*_PHOTOS, "evaluation.inception", "evaluation.dinov2", "evaluation.clip")),
}


def _place(configured: str | None, default: Path, key: str) -> Path:
    """Where something is written: where the settings look for it, else in the folder of this command.

    Raises:
        UserError: nothing can be written there.
    """
    if configured is None:
        return default
    place = user_path(configured, key)
    _require_writable(place.parent if key == "data.statistics" else place, key)
    return place


def _require_writable(folder: Path, key: str) -> None:
    """Refuses a folder that cannot be made or written, before hours of work are done for it; makes nothing.

    Raises:
        UserError: a file is in its way, or it or the nearest folder above that is there cannot be written.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise UserError(f"{key}: nothing can be written to {folder}: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{key}: nothing can be written to {folder}: {there} is read-only for this user")


def _device(name: str | None) -> str:
    """The device of the option, or the best that is there.

    Raises:
        UserError: there is no such device.
    """
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in {"cpu", "cuda"}:
        raise UserError(f"--device: {name} is not accepted: expected cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device: {name} is not there: torch sees {torch.cuda.device_count()} GPUs; use cpu")
    return name


def _tell_notes(dataset: Any, display: Display) -> None:
    for note in getattr(getattr(dataset, "source", None), "notes", ()):
        display.warning(note)


def _progress(display: Display) -> Callable[[int, int], None]:
    return lambda done, total: display.row(done, total, {"done": done, "num": total})


if __name__ == "__main__":
    sys.exit(main())
