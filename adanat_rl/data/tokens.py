"""Images that were encoded to tokens beforehand: a folder with tokens, labels and a manifest.

`tokens.npy` `[N, L]` (the smallest unsigned type that holds the codes), `tokens_flipped.npy` of the mirrored images if
they were wanted, `labels.npy` `[N]` int64, `manifest.json`. The manifest comes last: a folder without it is unfinished
and is gone on with. Tokens are mapped, never read as a whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adanat_rl.config.errors import RunError, UserError, reason_of
from adanat_rl.config.files import sync_folder, write_atomically
from adanat_rl.config.text_files import printable, read_text
from adanat_rl.data.contexts import parse_json

_FORMAT = "adanat-rl tokens 1"
_MAX_MANIFEST = 64 << 20  # bytes
_MAX_NUMBER = 1 << 40
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
        shapes = [(recipe.count, recipe.length)] * len(names) + [(recipe.count,)]
        dtypes = [recipe.dtype] * len(names) + [np.dtype(np.int64)]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{printable(folder)}: tokens cannot be written there: {error.strerror or error}") from None
        whole, part = _read_json(folder / _MANIFEST), _read_json(folder / _PROGRESS)
        found = whole or part
        if found is not None:
            _check_recipe(folder, found, recipe)
            self.done, self.damaged = _progress(folder, found, recipe)
            self._arrays = [] if whole else _reopened(files, shapes, dtypes)
            return
        strangers = [file.name for file in folder.iterdir() if not file.name.startswith(".") and file not in files]
        if strangers:
            raise UserError(f"{folder} holds {strangers[0]} and no token set; choose another folder")
        free = shutil.disk_usage(folder).free
        if recipe.num_bytes > free:
            raise UserError(
                f"{printable(folder)}: the tokens need {recipe.num_bytes / 1e9:.1f} GB, the disk has {free / 1e9:.1f} "
                "GB free"
            )
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
            self.recipe = _recipe(manifest)
            names = ["tokens", "tokens_flipped"] if self.recipe.flipped else ["tokens"]
            # Mapped first: a header that tells of more than the file holds is refused before anything is taken in
            self._views = [_mapped(folder / f"{name}.npy") for name in names]
            labels = _mapped(folder / "labels.npy")
        except (OSError, EOFError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise UserError(
                f"data.tokens: {printable(folder)} is damaged: {type(error).__name__}: {reason_of(error)}"
            ) from None
        shape = (self.recipe.count, self.recipe.length)
        if any(view.shape != shape for view in self._views) or labels.shape != shape[:1]:
            raise UserError(f"data.tokens: {printable(folder)} is damaged: arrays do not have the shape {list(shape)}")
        if any(view.dtype != self.recipe.dtype for view in self._views) or labels.dtype != np.int64:
            raise UserError(
                f"data.tokens: {printable(folder)} is damaged: tokens are {self._views[0].dtype} and labels "
                f"{labels.dtype}, expected {self.recipe.dtype} and int64"
            )
        if labels.size and not 0 <= labels.min() <= labels.max() < self.recipe.num_classes:
            raise UserError(
                f"data.tokens: {printable(folder)} is damaged: labels {labels.min()} … {labels.max()}, the manifest "
                f"says {self.recipe.num_classes} classes"
            )
        self.labels = torch.from_numpy(np.array(labels))
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
        tokens = self._checked(self._views[0][index])
        if flips is not None and flips.any():
            if not self.recipe.flipped:
                raise UserError(
                    f"data.tokens: {self.folder} has no mirrored images; make it with data.horizontal_flip=true"
                )
            tokens[flips] = self._checked(self._views[1][index[flips]])
        return torch.from_numpy(tokens)

    def _checked(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens as int64.

        Raises:
            RunError: some are beyond the codebook, so the file is damaged.
        """
        if tokens.size and int(tokens.max()) >= self.recipe.vocab_size:
            raise RunError(
                f"data.tokens: {printable(self.folder)} is damaged: it holds token {int(tokens.max())}, the codebook "
                f"has {self.recipe.vocab_size} entries; make it again: adanat-rl prepare --tokens"
            )
        return tokens.astype(np.int64)


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


def _progress(folder: Path, found: Mapping[str, Any], recipe: TokenRecipe) -> tuple[int, dict[int, str]]:
    """How many images are done, and which ones are damaged.

    Raises:
        UserError: the file says something else.
    """
    try:
        done, damaged = found["done"], {int(item): str(text) for item, text in found["damaged"].items()}
        if isinstance(done, bool) or not isinstance(done, int) or not 0 <= done <= recipe.count:
            raise ValueError(f"{done!r} of {recipe.count} images are done")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{printable(folder)} is damaged: {error}; remove it and start again") from None
    return done, damaged


def _reopened(
    files: Sequence[Path], shapes: Sequence[tuple[int, ...]], dtypes: Sequence[np.dtype[Any]]
) -> list[np.memmap[Any, Any]]:
    """The arrays of an unfinished set.

    Raises:
        UserError: one is missing or damaged.
    """
    arrays = []
    for file, shape, dtype in zip(files, shapes, dtypes, strict=True):
        try:
            array = np.lib.format.open_memmap(file, "r+")
            if (array.shape, array.dtype) != (shape, dtype):
                raise ValueError(f"it holds {array.dtype} {list(array.shape)}, expected {dtype} {list(shape)}")
        except (OSError, EOFError, ValueError, OverflowError) as error:
            raise UserError(f"{printable(file)} is damaged: {error}; remove the folder and start again") from None
        arrays.append(array)
    return arrays


def _mapped(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _recipe(manifest: Mapping[str, Any]) -> TokenRecipe:
    """What a manifest says.

    Raises:
        KeyError, TypeError, ValueError: it says something else.
    """
    recipe = TokenRecipe(**{name: manifest[name] for name in TokenRecipe.__dataclass_fields__})
    for name in ("count", "length", "vocab_size", "num_classes", "image_size"):
        value = getattr(recipe, name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _MAX_NUMBER:
            raise ValueError(f"{name} is {value!r}")
    return recipe


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content = parse_json(read_text(path, "tokens", max_bytes=_MAX_MANIFEST))
    except ValueError as error:  # a UserError is one, too
        raise UserError(f"{printable(path)} is damaged: {error}") from None
    return content if isinstance(content, dict) else None
