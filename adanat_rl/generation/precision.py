"""Numerical precision of frozen networks and of the learner: what float32, TF32, bfloat16 and float16 mean here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch

Precision = Literal["float32", "tf32", "bfloat16", "float16"]

_DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def weight_dtype(precision: Precision) -> torch.dtype:
    """What the weights of a frozen network are stored as."""
    return _DTYPES[precision]


@contextmanager
def matmul_precision(precision: Precision) -> Iterator[None]:
    """Lets float32 matrix products and convolutions of a block run in TF32 where asked for; full float32 otherwise.

    The settings belong to the process: on a GPU, blocks of different precision must not run in several threads.
    """
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    wanted = ("high", True) if precision == "tf32" else ("highest", False)
    if wanted == before:
        yield
        return
    _set_float32(*wanted)
    try:
        yield
    finally:
        _set_float32(*before)


def _set_float32(matmul: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = convolutions


def autocast(precision: Precision, device_type: str) -> AbstractContextManager[object]:
    """Automatic mixed precision for networks that are trained: their weights stay float32."""
    if precision in ("float32", "tf32"):
        return nullcontext()
    return torch.autocast(device_type, _DTYPES[precision])
