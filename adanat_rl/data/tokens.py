"""Images that were encoded to tokens beforehand: a folder with tokens, labels and a manifest.

`tokens.npy` `[N, L]` (the smallest unsigned type that holds the codes), `tokens_flipped.npy` of the mirrored images if
they were wanted, `labels.npy` `[N]` int64, `manifest.json`. The manifest comes last: a folder without it is unfinished
and is gone on with. Tokens are mapped, never read as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.config.files import sync_folder, write_atomically

_FORMAT = "adanat-rl tokens 1"
_MANIFEST, _PROGRESS = "manifest.json", "progress.json"


@dataclass(frozen=True)
class TokenRecipe:
    """What a token set is made of and how; two equal recipes give equal tokens.

    Args:
        name: of the data set. count: N. length: L. vocab_size: codes are 0 … vocab_size - 1.
        num_classes: of the labels. image_size: side of the crop. flipped: whether mirrored images are there too.
        tokenizer_hash: SHA-256 of the tokenizer's file. listing_hash: of the source.
    """

    name: str
    count: int
    length: int
    vocab_size: int
    num_classes: int
    image_size: int
    flipped: bool
    tokenizer_hash: str
    listing_hash: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """How tokens are stored; the mask token, `vocab_size`, fits too."""
        return np.min_scalar_type(self.vocab_size)

    @property
    def num_bytes(self) -> int:
        """Size of the tokens on the disk."""
        return self.count * self.length * self.dtype.itemsize * (1 + self.flipped)


class TokenWriter:
    """Writes a token set chunk by chunk, and goes on behind the last whole chunk of a writer that was killed.

    Args:
        folder: new, or with an unfinished set of the same recipe.

    Raises:
        UserError: the folder holds something else.
    """

    def __init__(self, folder: Path, recipe: TokenRecipe) -> None:
        self.folder = folder
        self.recipe = recipe
        self.done = 0
        self.damaged: dict[int, str] = {}  # which images were replaced, and why
        names = ["tokens", "tokens_flipped"] if recipe.flipped else ["tokens"]
        files = [folder / f"{name}.npy" for name in (*names, "labels")]
        folder.mkdir(parents=True, exist_ok=True)
        whole, part = _read_json(folder / _MANIFEST), _read_json(folder / _PROGRESS)
        found = whole or part
        if found is not None:
            _check_recipe(folder, found, recipe)
            self.done, self.damaged = int(found["done"]), {int(item): text for item, text in found["damaged"].items()}
            self._arrays = [] if whole else [np.lib.format.open_memmap(file, "r+") for file in files]
            return
        strangers = [file.name for file in folder.iterdir() if not file.name.startswith(".") and file not in files]
        if strangers:
            raise UserError(f"{folder} holds {strangers[0]} and no token set; choose another folder")
        shapes = [(recipe.count, recipe.length)] * len(names) + [(recipe.count,)]
        dtypes = [recipe.dtype] * len(names) + [np.dtype(np.int64)]
        self._arrays = [
            np.lib.format.open_memmap(file, "w+", dtype=dtype, shape=shape)
            for file, dtype, shape in zip(files, dtypes, shapes, strict=True)
        ]
        self._write_progress(_PROGRESS)

    @property
    def finished(self) -> bool:
        """Whether all is written."""
        return self.done == self.recipe.count and (self.folder / _MANIFEST).is_file()

    def write(self, tokens: np.ndarray, labels: np.ndarray, flipped: np.ndarray | None = None) -> None:
        """Adds the next chunk, and returns when it is on the disk.

        Args:
            tokens: `[B, L]`. labels: `[B]`. flipped: `[B, L]` of the mirrored images.
        """
        rows = slice(self.done, self.done + len(tokens))
        views = [tokens] if flipped is None else [tokens, flipped]
        for view in views:
            if view.min() < 0 or view.max() >= self.recipe.vocab_size:
                raise ValueError(f"tokens {view.min()} … {view.max()}, expected 0 … {self.recipe.vocab_size - 1}")
        for stored, values in zip(self._arrays, [*views, labels], strict=True):
            stored[rows] = values
            stored.flush()
        self.done = rows.stop
        self._write_progress(_PROGRESS)

    def finish(self) -> None:
        """Makes the set whole."""
        if self.done != self.recipe.count:
            raise ValueError(f"{self.done} of {self.recipe.count} images are encoded")
        self._write_progress(_MANIFEST)
        (self.folder / _PROGRESS).unlink(missing_ok=True)
        sync_folder(self.folder)

    def _write_progress(self, name: str) -> None:
        content = {"format": _FORMAT, **asdict(self.recipe), "done": self.done, "damaged": self.damaged}
        write_atomically(self.folder / name, json.dumps(content, indent=1, ensure_ascii=False), durable=True)


class TokenSet:
    """A finished token set.

    Args:
        folder: of `TokenWriter`. tokenizer_hash: of the tokenizer that will be used with it; None: any.

    Raises:
        UserError: the set is missing, unfinished, damaged, or of another tokenizer.
    """

    def __init__(self, folder: Path, tokenizer_hash: str | None = None) -> None:
        manifest = _read_json(folder / _MANIFEST)
        if manifest is None:
            unfinished = (folder / _PROGRESS).is_file()
            raise UserError(
                f"data.tokens: {folder} holds {'an unfinished' if unfinished else 'no'} token set; make one with: "
                "adanat-rl prepare --tokens"
            )
        try:
            self.recipe = TokenRecipe(**{name: manifest[name] for name in TokenRecipe.__dataclass_fields__})
            names = ["tokens", "tokens_flipped"] if self.recipe.flipped else ["tokens"]
            self._views = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in names]
            self.labels = torch.from_numpy(np.load(folder / "labels.npy"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"data.tokens: {folder} is damaged: {type(error).__name__}: {error}") from None
        shape = (self.recipe.count, self.recipe.length)
        if any(view.shape != shape for view in self._views) or len(self.labels) != shape[0]:
            raise UserError(f"data.tokens: {folder} is damaged: arrays do not have the shape {list(shape)}")
        if tokenizer_hash is not None and tokenizer_hash != self.recipe.tokenizer_hash:
            raise UserError(
                f"data.tokens: {folder} was made with another tokenizer ({self.recipe.tokenizer_hash[:12]}, "
                f"generator.tokenizer is {tokenizer_hash[:12]}); make it again"
            )
        self.folder = folder
        self.name = self.recipe.name
        self.num_classes = self.recipe.num_classes

    def __len__(self) -> int:
        """N."""
        return self.recipe.count

    def tokens_at(self, index: np.ndarray, flips: np.ndarray | None = None) -> Tensor:
        """Tokens int64 `[B, L]` of indices `[B]`, those with a true flip `[B]` of the mirrored image."""
        index = np.asarray(index, np.int64)
        tokens = self._views[0][index].astype(np.int64)
        if flips is not None and flips.any():
            if not self.recipe.flipped:
                raise UserError(
                    f"data.tokens: {self.folder} has no mirrored images; make it with data.horizontal_flip=true"
                )
            tokens[flips] = self._views[1][index[flips]]
        return torch.from_numpy(tokens)


class DecodedTokens:
    """Real images as the tokenizer shows them; meets `RealImages` and reads no image file.

    Args:
        tokens: the set. decode: tokens int64 `[B, L]` on `device` to images float32 `[B, C, H, W]` in [0, 1].
        image_shape: C, H, W.
    """

    def __init__(
        self,
        tokens: TokenSet,
        decode: Callable[[Tensor], Tensor],
        image_shape: tuple[int, int, int],
        device: torch.device | str = "cpu",
    ) -> None:
        self.tokens = tokens
        self.name = tokens.name
        self.labels = tokens.labels
        self.num_classes = tokens.num_classes
        self.image_shape = image_shape
        self._decode = decode
        self._device = device

    def __len__(self) -> int:
        """N."""
        return len(self.tokens)

    @torch.no_grad()
    def images_at(self, index: np.ndarray, flips: np.ndarray | None = None) -> Tensor:
        """Images float32 `[B, C, H, W]` in [0, 1] on the device."""
        return self._decode(self.tokens.tokens_at(index, flips).to(self._device))

    def pairs_at(self, index: np.ndarray, flips: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
        """The same, with their labels `[B]` int64: those of the images that were encoded."""
        return self.images_at(index, flips), self.labels[torch.as_tensor(index, dtype=torch.int64)]


def _check_recipe(folder: Path, found: Mapping[str, Any], recipe: TokenRecipe) -> None:
    if found.get("format") != _FORMAT:
        raise UserError(f"{folder} holds tokens of format {found.get('format')!r}, expected {_FORMAT!r}")
    for name, value in asdict(recipe).items():
        if found.get(name) != value:
            raise UserError(
                f"{folder} was made with {name} {found.get(name)!r}, now it is {value!r}; choose another folder"
            )


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    return content if isinstance(content, dict) else None
