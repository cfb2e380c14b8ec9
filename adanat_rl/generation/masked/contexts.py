"""What stands behind the numbers of contexts: class labels as they are, or rows of a table of encoded captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from adanat_rl.generation.generator import ContextSpec

ContextLookup = Callable[[Tensor], Tensor]
"""`(contexts [B]) -> what a NAT takes for them, [B, …]`."""

_HELD_MB = 256  # embeddings that a set of images holds on the device while it is drawn


class ContextTable(Protocol):
    """Gives a NAT what it is conditioned on."""

    @property
    def spec(self) -> ContextSpec:
        """How many contexts there are, and of which kind."""
        ...

    def __call__(self, context: Tensor) -> Tensor:
        """What the NAT takes for contexts `[B]` int64, of which `spec.num_contexts` is the null one."""
        ...

    def held(self, context: Tensor) -> ContextLookup:
        """The same, bit by bit, for contexts out of `[B]` and the null one, at hand for all steps of a drawing."""
        ...


@dataclass(frozen=True)
class ClassLabels:
    """Class labels: the NAT embeds the numbers themselves."""

    num_classes: int

    @property
    def spec(self) -> ContextSpec:
        """As many contexts as classes."""
        return ContextSpec(self.num_classes)

    def __call__(self, context: Tensor) -> Tensor:
        """The labels as they are."""
        return context

    def held(self, context: Tensor) -> ContextLookup:
        """There is nothing to look up."""
        return self


class EncodedCaptions(Protocol):
    """Captions with their embeddings, memory-mapped; the last row is the empty prompt."""

    @property
    def num_contexts(self) -> int:
        """N, the number of captions without the empty prompt."""
        ...

    def hidden(self, index: Tensor) -> Tensor:
        """Last hidden states float32 `[B, S, C]` of rows `[B]` in 0 … N."""
        ...


@dataclass(frozen=True)
class CaptionContexts:
    """Captions: their embeddings are read once for a drawing, or, of very many, when a block of the NAT wants them.

    Args:
        captions: the table. device, dtype: of the NAT. held_mb: a drawing holds its embeddings if they take no more.
    """

    captions: EncodedCaptions
    device: torch.device
    dtype: torch.dtype = torch.float32
    held_mb: float = _HELD_MB

    @property
    def spec(self) -> ContextSpec:
        """As many contexts as captions."""
        return ContextSpec(self.captions.num_contexts, "text")

    def __call__(self, context: Tensor) -> Tensor:
        """Embeddings `[B, S, C]`; rows that several images share, the null one above all, are read once."""
        rows, inverse = context.cpu().unique(return_inverse=True)
        return self._embeddings(rows).to(self.device, self.dtype)[inverse.to(self.device)]

    def held(self, context: Tensor) -> ContextLookup:
        """Embeddings of the rows on the device, each once."""
        null = context.new_tensor([self.spec.num_contexts])
        rows = torch.cat([context, null]).unique().to(self.device)
        if len(rows) * self(null).nbytes > self.held_mb * 2**20:
            return self
        embeddings = self(rows)
        return lambda wanted: embeddings[torch.searchsorted(rows, wanted.to(rows.device))]

    def _embeddings(self, rows: Tensor) -> Tensor:
        return self.captions.hidden(rows)
