"""Sequences of strings that are not in memory: each is read when it is asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload


class LazyStrings(Sequence[str]):
    """Indexing, from the end too, and slicing over `read`."""

    noun = "string"  # what messages call one

    @abstractmethod
    def read(self, row: int) -> str:
        """String `row` of 0 … len - 1."""

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """One string, or a list of some."""
        if isinstance(index, slice):
            return [self.read(row) for row in range(*index.indices(len(self)))]
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"{self.noun} {index} of {len(self)}")
        return self.read(row)
