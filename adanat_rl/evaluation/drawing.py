"""What an evaluation draws, and how: here in batches, or by other means; a large set in pieces that stay on disk."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from adanat_rl.config.files import write_atomically
from adanat_rl.generation.generator import Generator
from adanat_rl.generation.noise import ImageNoise
from adanat_rl.generation.policies.base import Drawing, GenerationPolicy, draw
from adanat_rl.generation.seeding import Purpose, philox
from adanat_rl.generation.threads import map_in_threads


@dataclass(frozen=True)
class EvaluationSet:
    """What an evaluation draws: contexts as in the real data, one seed per image.

    Args:
        context: `[N]` int64. seeds: `[N]` int64.
    """

    context: Tensor
    seeds: Tensor


def evaluation_set(labels: Tensor, num_images: int, seed: int) -> EvaluationSet:
    """N contexts and N image seeds that depend on `seed` and the index alone.

    Contexts are the real labels `[M]` in turn, or evenly spread over them where they are more than N: large data sets
    are sorted by class.
    """
    index = torch.arange(num_images)
    rows = index * len(labels) // num_images if num_images < len(labels) else index % len(labels)
    context = labels[rows]
    seeds = philox(Purpose.EVALUATION, seed).integers(0, 2**63, num_images)
    return EvaluationSet(context, torch.from_numpy(seeds))


class DrawSet(Protocol):
    """Draws the images of a set; the result does not depend on how."""

    def __call__(self, generator: Generator, policy: GenerationPolicy, images: EvaluationSet) -> Drawing:
        """Finished images in the order of the set."""
        ...


@dataclass(frozen=True)
class DrawHere:
    """In this process.

    Args:
        batch_size: images drawn at once. num_threads: batches drawn at once.
    """

    batch_size: int
    num_threads: int = 1

    def __call__(self, generator: Generator, policy: GenerationPolicy, images: EvaluationSet) -> Drawing:
        """Finished images in the order of the set."""
        return draw_set(generator, policy, images, self.batch_size, self.num_threads)


@dataclass(frozen=True)
class DrawAndKeep:
    """Piece by piece, each kept on disk: a drawing that was interrupted goes on behind its last piece.

    A piece is named by the hash of all that decides it, so another policy or seed never meets it. What a judge has
    gathered is kept beside them. Whoever made the folder deletes it when the evaluation is done.

    Args:
        folder: where pieces are kept. inner: draws a piece. piece_size: images of one.
        judged_size: images that are judged between two writings of what the judge has gathered.
    """

    folder: Path
    inner: DrawSet
    piece_size: int = 1024
    judged_size: int = 2048

    def __call__(self, generator: Generator, policy: GenerationPolicy, images: EvaluationSet) -> Drawing:
        """Finished images in the order of the set."""
        parts = []
        for rows in torch.arange(len(images.context)).split(self.piece_size):
            piece = EvaluationSet(images.context[rows], images.seeds[rows])
            part = policy.for_images(rows)
            file = self.folder / f"{_digest(generator, part, piece)}.npz"
            drawing = _read(file)
            if drawing is None:
                drawing = _on_cpu(self.inner(generator, part, piece))
                write_atomically(file, _dump(drawing))
            parts.append(drawing)
        return join_drawings(parts)

    def judged_file(self, generator: Generator, policy: GenerationPolicy, images: EvaluationSet) -> Path:
        """Where that is kept which a judge has gathered of the images of a set."""
        return self.folder / f"judged_{_digest(generator, policy, images)}.npz"


def draw_set(
    generator: Generator, policy: GenerationPolicy, images: EvaluationSet, batch_size: int, num_threads: int = 1
) -> Drawing:
    """Draws the set in batches, some at once; the result depends on neither number."""

    def draw_rows(rows: Tensor) -> Drawing:
        noise = ImageNoise(images.seeds[rows].to(generator.device))
        own = policy.for_images(rows).to(generator.device)
        return draw(generator, own, images.context[rows].to(generator.device), noise)

    parts = map_in_threads(draw_rows, torch.arange(len(images.context)).split(batch_size), num_threads)
    return join_drawings(parts)


def join_drawings(parts: list[Drawing]) -> Drawing:
    """Drawings one behind the other, without their steps."""
    return Drawing(
        sample=torch.cat([part.sample for part in parts]),
        decisions=torch.cat([part.decisions for part in parts]),
        num_passes=torch.cat([part.num_passes for part in parts]),
    )


def _digest(generator: Generator, policy: GenerationPolicy, images: EvaluationSet) -> str:
    """Hash of what decides a drawing, but for the frozen weights, which a run folder does not change."""
    digest = hashlib.blake2b(digest_size=16)
    for content in (policy, generator.decision_space.base_schedule, images.context, images.seeds):
        _hash_into(digest, content)
    return digest.hexdigest()


def _hash_into(digest: hashlib.blake2b, value: object) -> None:
    """Hashes what a value holds; the bytes of a pickled tensor differ from one pickling to the next."""
    digest.update(type(value).__qualname__.encode())
    if isinstance(value, Tensor):
        _hash_into(digest, value.detach().cpu().numpy())
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, nn.Module):
        _hash_into(digest, dict(value.state_dict()))
    elif isinstance(value, Mapping):
        _hash_into(digest, list(value.items()))
    elif isinstance(value, list | tuple):
        for item in value:
            _hash_into(digest, item)
    elif hasattr(value, "__dict__"):
        _hash_into(digest, vars(value))
    else:
        digest.update(repr(value).encode())


def _on_cpu(drawing: Drawing) -> Drawing:
    return Drawing(drawing.sample.cpu(), drawing.decisions.cpu(), drawing.num_passes.cpu())


def _dump(drawing: Drawing) -> bytes:
    buffer = io.BytesIO()
    columns = {"sample": drawing.sample, "decisions": drawing.decisions, "num_passes": drawing.num_passes}
    np.savez_compressed(buffer, allow_pickle=False, **{name: value.cpu().numpy() for name, value in columns.items()})
    return buffer.getvalue()


def _read(file: Path) -> Drawing | None:
    """A kept piece; None if there is none. Pieces are written atomically, so none is half a piece."""
    if not file.is_file():
        return None
    with np.load(file, allow_pickle=False) as arrays:
        return Drawing(**{name: torch.from_numpy(arrays[name]) for name in ("sample", "decisions", "num_passes")})
