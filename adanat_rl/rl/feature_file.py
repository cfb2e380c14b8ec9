"""NAT features of a train batch on disk: written once, read by every micro-batch, so that memory does not grow with
the batch.

Plain reads and writes, no memory map: mapped pages would count as memory of the process. The file has no name and goes
away with the process, however that ends.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch
from torch import Tensor


class FeatureFile:
    """Rows `[L, D]` by number.

    Args:
        row_shape: L, D. dtype: of the rows; what is written is converted.
        folder: where the space is taken; the system's folder for temporary files by default.
    """

    def __init__(self, row_shape: tuple[int, int], dtype: torch.dtype, folder: Path | None = None) -> None:
        self.row_shape = row_shape
        self.dtype = dtype
        self.row_bytes = row_shape[0] * row_shape[1] * dtype.itemsize
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115, closed by `close`

    def write(self, rows: Tensor, values: Tensor) -> None:
        """Stores `values` `[N, L, D]` as `rows` `[N]`."""
        data = _bytes_of(values.detach().to("cpu", self.dtype).contiguous())
        for position, row in enumerate(rows.tolist()):
            part = data[position * self.row_bytes : (position + 1) * self.row_bytes]
            _write_all(self._file.fileno(), part, row * self.row_bytes)

    def read(self, rows: Tensor) -> Tensor:
        """Rows `[N]` as float32 `[N, L, D]`."""
        values = torch.empty(len(rows), *self.row_shape, dtype=self.dtype)
        data = _bytes_of(values)
        for position, row in enumerate(rows.tolist()):
            part = data[position * self.row_bytes : (position + 1) * self.row_bytes]
            if os.preadv(self._file.fileno(), [part], row * self.row_bytes) != self.row_bytes:
                raise OSError(f"row {row} of the feature file was never written")
        return values.float()

    def close(self) -> None:
        """Gives the space back."""
        self._file.close()


def _bytes_of(values: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor, of any dtype."""
    return memoryview(values.view(torch.uint8).numpy()).cast("B")  # type: ignore[arg-type]


def _write_all(file: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
