"""Work on a data set that is done once: images to tokens, captions to embeddings, images to Fréchet statistics.

Each goes on where it was killed, and does nothing where it is done.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.config.files import write_atomically
from adanat_rl.data.dataset import RealImages
from adanat_rl.data.sources import listing_hash
from adanat_rl.data.streaming import StreamedImages, read_ahead
from adanat_rl.data.tokens import TokenRecipe, TokenSet, TokenWriter
from adanat_rl.generation.masked.sampler import Tokenizer
from adanat_rl.metrics.reference_set import Extractor, ReferenceSet
from adanat_rl.metrics.statistics import FeatureStatistics, load_statistics, save_statistics

STATISTICS = "statistics"
"""Name of the files of Inception's."""

Progress = Callable[[int, int], None]  # images done, images in all

_SAVED_EVERY = 5_000  # images between two states of unfinished statistics


def _silent(done: int, total: int) -> None:
    """Tells nobody."""


def token_recipe(
    dataset: RealImages, tokenizer: Tokenizer, tokenizer_hash: str, horizontal_flip: bool = False
) -> TokenRecipe:
    """What the token set of a data set will be.

    Raises:
        UserError: the tokenizer takes images of another size or with other channels.
    """
    channels, height, width = dataset.image_shape
    taken = (tokenizer.image_channels, tokenizer.image_size, tokenizer.image_size)
    if dataset.image_shape != taken:
        raise UserError(
            f"data.image_size: images are {height}×{width} with {channels} channels, but generator.tokenizer takes "
            f"{taken[1]}×{taken[2]} with {taken[0]}"
        )
    return TokenRecipe(
        name=dataset.name,
        count=len(dataset),
        length=tokenizer.grid_size**2,
        vocab_size=tokenizer.vocab_size,
        num_classes=dataset.num_classes,
        image_size=height,
        flipped=horizontal_flip,
        tokenizer_hash=tokenizer_hash,
        listing_hash=images_hash(dataset),
    )


@torch.no_grad()
def encode_tokens(
    dataset: RealImages,
    tokenizer: Tokenizer,
    recipe: TokenRecipe,
    folder: Path,
    *,
    batch_size: int = 64,
    prefetch: int = 2,
    device: torch.device | str = "cpu",
    progress: Progress = _silent,
) -> TokenSet:
    """Encodes all images into `folder`, goes on with an unfinished set, opens a finished one.

    Args:
        recipe: of `token_recipe`. batch_size: images that are encoded and put on the disk together.
        prefetch: batches read ahead. progress: is told at the start and after each batch.

    Raises:
        UserError: the folder holds something else. RunError: too many images are damaged.
    """
    writer = TokenWriter(folder, recipe)
    if isinstance(dataset, StreamedImages):
        dataset.mark_damaged(writer.damaged)
    progress(writer.done, recipe.count)
    starts = range(writer.done, recipe.count, batch_size)
    batches = read_ahead(lambda start: _batch(dataset, start, batch_size), starts, prefetch)
    try:
        for pixels, labels, _ in batches:
            images = _as_floats(pixels).to(device)
            tokens = tokenizer.encode(images).cpu().numpy()
            flipped = tokenizer.encode(images.flip(-1)).cpu().numpy() if recipe.flipped else None
            if isinstance(dataset, StreamedImages):
                writer.damaged = dataset.damaged
            writer.write(tokens, labels.numpy(), flipped)
            progress(writer.done, recipe.count)
    finally:
        batches.close()
    if not writer.finished:
        writer.finish()
    return TokenSet(folder)


def reference_statistics(
    dataset: RealImages,
    extractor: Extractor,
    folder: Path,
    *,
    name: str = STATISTICS,
    num_kept: int = 0,
    batch_size: int = 64,
    prefetch: int = 2,
    device: torch.device | str = "cpu",
    progress: Progress = _silent,
) -> FeatureStatistics:
    """Fréchet statistics of all readable images, in `folder/NAME.npz`; damaged ones are left out, not replaced.

    Args:
        extractor: on `device`. name: of the file, and of the JSON beside it.
        num_kept: images whose features are kept for precision and recall.
        progress: is told at the start and after each batch.

    Raises:
        UserError: the folder holds statistics of something else. RunError: too many images are damaged.
    """
    path, facts_path = folder / f"{name}.npz", folder / f"{name}.json"
    facts = {
        "name": dataset.name,
        "listing_hash": images_hash(dataset),
        "num_images": len(dataset),
        "image_shape": list(dataset.image_shape),
        "extractor": extractor.name,
        "extractor_hash": extractor.content_hash(),
        "convention": extractor.convention,
        "num_kept": num_kept,
    }
    if path.exists():
        _check_facts(path, facts_path, facts)
        return load_statistics(path)
    gathered = ReferenceSet(extractor, len(dataset), min(num_kept, len(dataset)), batch_size, device)
    unfinished = folder / f".{name}-{listing_hash(json.dumps(facts, sort_keys=True))[:16]}.npz"
    if unfinished.exists():
        gathered.restore(unfinished)
    missing = gathered.missing()
    progress(len(dataset) - len(missing), len(dataset))
    groups = np.split(missing, range(batch_size, len(missing), batch_size)) if len(missing) else []
    batches = read_ahead(lambda index: (index, *_pixels(dataset, index)), groups, prefetch)
    since_saved, done = 0, len(dataset) - len(missing)
    try:
        for index, pixels, shown in batches:
            whole = shown == index
            gathered.add(_in_colour(pixels[torch.from_numpy(whole)]), index[whole])
            done, since_saved = done + len(index), since_saved + len(index)
            if since_saved >= _SAVED_EVERY:
                gathered.save(unfinished)
                since_saved = 0
            progress(done, len(dataset))
    finally:
        batches.close()
    statistics = gathered.statistics()
    damaged = list(dataset.damaged.values()) if isinstance(dataset, StreamedImages) else []
    text = json.dumps({**facts, "count": statistics.count, "damaged": damaged}, indent=1, ensure_ascii=False)
    write_atomically(facts_path, text)
    save_statistics(path, statistics)
    unfinished.unlink(missing_ok=True)
    return statistics


def images_hash(dataset: RealImages) -> str:
    """Hash of the listing of images on the disk, or of the pixels of those in memory."""
    if isinstance(dataset, StreamedImages):
        return dataset.source.listing_hash
    images = dataset.images_at(np.arange(len(dataset)))
    return listing_hash("in memory", dataset.name, images.numpy(), dataset.labels.numpy())


def _batch(dataset: RealImages, start: int, batch_size: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Pixels as `_pixels`, labels `[B]` int64 and indices of the images that are shown from `start` on."""
    pixels, shown = _pixels(dataset, np.arange(start, min(start + batch_size, len(dataset))))
    return pixels, dataset.labels[torch.from_numpy(shown)], shown


def _pixels(dataset: RealImages, index: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Images `[B, C, H, W]`, uint8 from files or float32 in [0, 1] from memory, and which ones they are `[B]`."""
    if isinstance(dataset, StreamedImages):
        pixels, shown = dataset.pixels_at(index)
        return torch.from_numpy(pixels), shown
    return dataset.images_at(index), index


def _as_floats(pixels: Tensor) -> Tensor:
    """Float32 in [0, 1], as `images_at` gives them."""
    return pixels.to(torch.float32) / 255 if pixels.dtype == torch.uint8 else pixels


def _in_colour(pixels: Tensor) -> Tensor:
    """Grey images with their value in all three channels."""
    return pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels


def _check_facts(path: Path, facts_path: Path, facts: dict[str, Any]) -> None:
    try:
        found = json.loads(facts_path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError, RecursionError):
        raise UserError(f"{path} is there already, but not {facts_path.name} that says of what; remove it") from None
    for name, value in facts.items():
        if found.get(name) != value:
            raise UserError(f"{path} was made with {name} {found.get(name)!r}, now it is {value!r}; remove it")
