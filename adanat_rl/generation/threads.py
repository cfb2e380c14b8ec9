"""Settings of torch in a process, and working on several batches at once without changing a bit of any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item], num_threads: int) -> list[Result]:
    """Results in order. torch's kernels run side by side; each call is the one that a plain loop would make."""
    if num_threads == 1 or len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(function, items))


def settle_process() -> None:
    """Two settings that every process of ours wants.

    torch fills fresh tensors in deterministic mode, which RLlib switches on; nothing here reads memory that was not
    written, and a cache of gigabytes that is reserved but not used should cost nothing. And float32 means float32 in
    convolutions too, whatever the GPU: TF32 is asked for by name (`precision`).
    """
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.allow_tf32 = False


@contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """Sets the threads of torch's own kernels for a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
