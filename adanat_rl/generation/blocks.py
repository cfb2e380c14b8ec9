"""Runs a network in blocks of a fixed number of rows, so that a row's result does not depend on its batch mates.

Matrix kernels choose their order of summation by the shape they are given. With one shape only, a row comes out with
the same bits alone, in a batch of 64, in the rollout and in the learner (same machine, same number of threads).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def run_in_blocks(function: Callable[..., tuple[Tensor, ...]], rows: int, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Applies `function` to consecutive blocks of exactly `rows` rows and joins what it returns.

    Args:
        function: takes tensors `[rows, ...]` and returns a tuple of tensors `[rows, ...]`.
        inputs: tensors `[B, ...]` with one B > 0; the last block is filled up with copies of the last row.

    Returns:
        The outputs, each `[B, ...]`.
    """
    batch_size = len(inputs[0])
    missing = -batch_size % rows
    if missing:
        inputs = tuple(torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) for x in inputs)
    blocks = [function(*(x[start : start + rows] for x in inputs)) for start in range(0, batch_size, rows)]
    if len(blocks) == 1:
        return tuple(output[:batch_size] for output in blocks[0])
    return tuple(torch.cat(outputs)[:batch_size] for outputs in zip(*blocks, strict=True))
