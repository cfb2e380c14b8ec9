"""Which data a run is made of, by content: a copy at another place is the same, other files of the same names are not.

A training set is too large to be hashed at each start. Its fingerprint covers the whole listing (names, sizes, labels,
captions) and the bytes of some images spread over it; times of files are no part of it, since copies change them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from adanat_rl.config.schema import DataConfig
from adanat_rl.data.loading import load_source
from adanat_rl.data.sources import ImageSource, listing_hash
from adanat_rl.data.tokens import TokenSet

_SAMPLED_IMAGES = 64  # whose bytes are hashed
_SAMPLED_SIZES = 100_000  # images whose size is asked for where the listing does not know it


def data_fingerprint(config: DataConfig) -> dict[str, Any]:
    """What identifies the data of a configuration; two equal dictionaries are the same data.

    Returns:
        "images" (hex, SHA-256; of bundled sets a constant), "num_images", "num_contexts", and "tokens" (hex) where
        `data.tokens` names encoded images. It can be written as JSON.

    Raises:
        UserError: files are missing or damaged.
    """
    if config.path is None:
        found: dict[str, Any] = {"images": listing_hash("bundled", config.name), "num_images": None}
        found["num_contexts"] = None
    else:
        source = load_source(config)
        found = {
            "images": source_fingerprint(source),
            "num_images": len(source),
            "num_contexts": source.num_classes,
        }
    if config.tokens is not None:
        found["tokens"] = tokens_fingerprint(Path(config.tokens).expanduser())
    return found


def source_fingerprint(source: ImageSource) -> str:
    """SHA-256 in hex of a source: its listing, its labels, sizes of its images and the bytes of 64 of them."""
    parts: list[object] = ["source", source.name, source.listing_hash, source.num_classes]
    parts.append(np.asarray(source.labels, np.int64))
    if source.has_images:
        rows = _spread(len(source), _SAMPLED_SIZES)
        parts.append(np.array([source.size_of(int(row)) for row in rows], np.int64))
        parts += [_bytes_hash(source, int(row)) for row in _spread(len(source), _SAMPLED_IMAGES)]
    return listing_hash(*parts)


def tokens_fingerprint(folder: Path) -> str:
    """SHA-256 in hex of a token set: what it was made of, its labels, and tokens of 64 images.

    Raises:
        UserError: it is missing, unfinished or damaged.
    """
    tokens = TokenSet(folder)
    rows = _spread(len(tokens), _SAMPLED_IMAGES)
    return listing_hash("tokens", tokens.recipe, tokens.labels.numpy(), tokens.tokens_at(rows).numpy())


def _spread(count: int, most: int) -> np.ndarray:
    """At most so many rows of 0 … count - 1, evenly spread, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _bytes_hash(source: ImageSource, row: int) -> str:
    try:
        return hashlib.sha256(source.read(row)).hexdigest()
    except (OSError, ValueError):
        return "unreadable"
