"""Real images that stay on the disk: decoded and cropped in threads when they are wanted.

A damaged image is named in a warning and replaced by the next readable one of its class (of the whole set, where
contexts are captions), up to `max_damaged` of them. Which one that is depends on the files alone, not on the order of
reading or on threads. Samples that the source left out count toward the same limit.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.data.crop import read_square
from adanat_rl.data.damage import too_many
from adanat_rl.data.sources import ImageSource

Key = TypeVar("Key")
Result = TypeVar("Result")


class StreamedImages:
    """Meets `RealImages`: centre crops of a source, float32 `[B, 3, size, size]` in [0, 1].

    Args:
        source: where encoded images come from.
        image_size: side of the crop.
        num_workers: decoding threads of this process.
        max_damaged: so many damaged images are replaced, those included that the source left out; one more is an error.

    Raises:
        UserError: the source has captions only.
    """

    def __init__(
        self,
        source: ImageSource,
        image_size: int,
        *,
        num_workers: int = 4,
        max_damaged: int = 16,
    ) -> None:
        if not source.has_images:
            raise UserError(f"data.name: {source.name} has captions only; this needs a data set with images")
        self.source = source
        self.name = source.name
        self.num_classes = source.num_classes
        self.labels = torch.from_numpy(np.array(source.labels, np.int64))
        self.image_shape = (3, image_size, image_size)
        self.max_damaged = max_damaged
        self._num_workers = num_workers
        self._damaged: dict[int, str] = {}
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    @property
    def damaged(self) -> dict[int, str]:
        """Damaged images met so far, with what is wrong."""
        with self._lock:
            return dict(sorted(self._damaged.items()))

    def mark_damaged(self, damaged: Mapping[int, str]) -> None:
        """Takes over what an earlier run of the same work found; it counts."""
        with self._lock:
            self._damaged.update(damaged)

    def images_at(self, index: np.ndarray, flips: np.ndarray | None = None) -> Tensor:
        """Images float32 `[B, 3, size, size]` in [0, 1] of indices `[B]`, those with a true flip `[B]` mirrored.

        Where contexts are captions, a damaged image's replacement has another caption: see `pairs_at`.

        Raises:
            RunError: more than `max_damaged` images are damaged.
        """
        return self.pairs_at(index, flips)[0]

    def pairs_at(self, index: np.ndarray, flips: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
        """The same, with the labels `[B]` int64 of the images that are really shown."""
        pixels, shown = self.pixels_at(index, flips)
        return torch.from_numpy(pixels).to(torch.float32) / 255, self.labels[torch.from_numpy(shown)]

    def pixels_at(self, index: np.ndarray, flips: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 `[B, 3, size, size]`, and the indices `[B]` int64 of the images that are really shown."""
        index = np.asarray(index, np.int64)
        if index.size and (index.min() < 0 or index.max() >= len(self)):
            raise IndexError(f"images {index.min()} … {index.max()} of {len(self)}")
        pixels = np.empty((len(index), *self.image_shape), np.uint8)
        shown = np.empty(len(index), np.int64)

        def fill(place: int) -> None:
            image, shown[place] = self._read(int(index[place]))
            pixels[place] = image[:, :, ::-1] if flips is not None and flips[place] else image

        for _ in self._map(fill, len(index)):
            pass
        return pixels, shown

    def close(self) -> None:
        """Ends the decoding threads; they start again when an image is wanted."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def __getstate__(self) -> dict[str, Any]:
        """Threads and locks stay in their process."""
        return {name: value for name, value in vars(self).items() if name not in {"_lock", "_pool"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """New ones in the new process."""
        vars(self).update(state, _lock=threading.Lock(), _pool=None)

    def _map(self, function: Any, count: int) -> Iterator[None]:
        if self._num_workers == 1 or count < 2:
            return map(function, range(count))
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._num_workers, thread_name_prefix="images")
            pool = self._pool
        return pool.map(function, range(count))

    def _read(self, item: int) -> tuple[np.ndarray, int]:
        """Pixels of an image or of its replacement, and which one it is."""
        for candidate in self._candidates(item):
            if candidate in self._damaged:
                continue
            try:
                return read_square(self.source.read(candidate), self.image_shape[1]), candidate
            except MemoryError:
                raise
            except Exception as error:  # whatever a damaged file makes Pillow say
                self._record(candidate, error)
        raise RunError(f"data.path: none of the {len(self)} images can be read, such as {self.source.where(item)}")

    def _candidates(self, item: int) -> Iterator[int]:
        """The image, then its replacements: those of its class that follow, around the end, then all others."""
        yield item
        same = np.flatnonzero(self.labels.numpy() == int(self.labels[item]))
        yield from (int(i) for i in np.roll(same, -int(np.searchsorted(same, item, side="right"))) if i != item)
        yield from (i % len(self) for i in range(item + 1, item + len(self)))

    def _record(self, item: int, error: Exception) -> None:
        text = " ".join(str(error).split())
        reason = f"{self.source.where(item)}: {type(error).__name__}{f': {text}' if text else ''}"
        with self._lock:
            known = item in self._damaged
            self._damaged[item] = reason
            found = [*self.source.damaged, *self._damaged.values()]
        if len(found) > self.max_damaged:
            raise RunError(too_many(found, self.max_damaged, "damaged images"))
        if not known:
            warnings.warn(f"damaged image left out: {reason}", RuntimeWarning, stacklevel=2)


def read_ahead(read: Callable[[Key], Result], keys: Iterable[Key], ahead: int) -> Generator[Result]:
    """`read(key)` for all keys in order, the next `ahead` of them prepared in one thread meanwhile.

    An error of `read` comes out in its turn. Closing the generator waits for what is being read and drops the rest.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
    waiting: deque[Future[Result]] = deque()
    try:
        for key in keys:
            waiting.append(thread.submit(read, key))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        thread.shutdown(wait=True, cancel_futures=True)
