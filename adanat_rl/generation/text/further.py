"""Captions that only evaluations draw: a second table, whose rows stand behind the null row of the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.data.strings import LazyStrings
from adanat_rl.generation.text.table import CaptionTable, open_caption_table, table_info


class FurtherCaptions(CaptionTable):
    """Rows 0 … N-1 and the null row N of a table, and behind them rows N+1 … N+M: the M captions of another.

    `num_contexts` and `null_index` stay those of the first, so that training never meets the further captions.

    Args:
        table, further: embedded by the same text encoder.
    """

    def __init__(self, table: CaptionTable, further: CaptionTable) -> None:
        super().__init__(table.captions, table._hidden, table._pooled)
        self.table, self.further = table, further

    @property
    def all_captions(self) -> Sequence[str]:
        """Captions by row, "" in the null row."""
        return _Captions(self.table.captions, self.further.captions)

    @property
    def further_rows(self) -> Tensor:
        """Rows `[M]` int64 of the further captions."""
        return self.null_index + 1 + torch.arange(len(self.further))

    def hidden(self, index: Tensor) -> Tensor:
        """Last hidden states `[B, S, C]` float32 of rows `[B]` of either table."""
        return self._read(index, CaptionTable.hidden)

    def pooled(self, index: Tensor) -> Tensor:
        """Projected embeddings `[B, P]` float32 of rows `[B]` of either table."""
        return self._read(index, CaptionTable.pooled)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return FurtherCaptions, (self.table, self.further)

    def _read(self, index: Tensor, read: Callable[[CaptionTable, Tensor], Tensor]) -> Tensor:
        behind = index > self.null_index
        first = read(self.table, index[~behind])
        found = first.new_empty(len(index), *first.shape[1:])
        found[~behind] = first
        found[behind] = read(self.further, index[behind] - self.null_index - 1)
        return found


def open_further_captions(table: CaptionTable, encoded: str | None, folder: str) -> FurtherCaptions:
    """A table with the captions of an evaluation behind it.

    Args:
        encoded: folder of the table. folder: setting `evaluation.captions`.

    Raises:
        UserError: it is missing, unfinished, damaged, or was made by another text encoder.
    """
    path = Path(folder).expanduser()
    further = open_caption_table(path)
    own, other = table_info(Path(encoded or "").expanduser()), table_info(path)
    if own.encoder_fingerprint != other.encoder_fingerprint:
        raise UserError(
            f"evaluation.captions: {folder} was encoded by {other.encoder}, generator.captions by {own.encoder} or "
            f"with other weights; encode both alike: adanat-rl prepare --captions"
        )
    return FurtherCaptions(table, further)


class _Captions(LazyStrings):
    noun = "caption"

    def __init__(self, first: Sequence[str], further: Sequence[str]) -> None:
        self._first, self._further = first, further

    def __len__(self) -> int:
        return len(self._first) + 1 + len(self._further)

    def read(self, row: int) -> str:
        """Caption `row`."""
        null = len(self._first)
        if row < null:
            return self._first[row]
        return "" if row == null else self._further[row - null - 1]
