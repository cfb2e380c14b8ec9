"""The all-masked first step, which depends on the context alone: computed once per context and kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

NatCall = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`(tokens [B, L], contexts [B]) -> (logits [B, L, V], features [B, L, D])`."""


class FirstStep:
    """Logits and features of the all-masked step; the null context is always kept, the others if they all fit.

    Args:
        call: runs the NAT. num_contexts: the null context is this number. length: L. mask_token_id: fills the tokens.
        device: where everything lives.
        keep_contexts: whether rows of real contexts are kept too. It is all or none, so that the number of NAT passes
            of an image does not depend on what was drawn before.
    """

    def __init__(
        self,
        call: NatCall,
        num_contexts: int,
        length: int,
        mask_token_id: int,
        device: torch.device,
        *,
        keep_contexts: bool,
    ) -> None:
        self.keeps_contexts = keep_contexts
        self._call = call
        self._first_kept = 0 if keep_contexts else num_contexts
        self._null = num_contexts
        self._length = length
        self._mask_token_id = mask_token_id
        self._device = device
        self._forget()

    def _forget(self) -> None:
        self._known = torch.zeros(self._null + 1 - self._first_kept, dtype=torch.bool)
        self._kept: tuple[Tensor, Tensor] | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What is kept stays out of pickles and copies: large, mostly empty, and computed again when asked for."""
        return {name: value for name, value in vars(self).items() if name not in {"_known", "_kept", "_lock"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def null(self) -> tuple[Tensor, Tensor]:
        """Logits `[L, V]` and features `[L, D]` of the null context."""
        logits, features = self._rows(torch.tensor([self._null], device=self._device))
        return logits[0], features[0]

    def __call__(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, L, V]` and features `[B, L, D]` of contexts `[B]`."""
        return self._rows(context) if self.keeps_contexts else self._look(context)

    def _rows(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of what is kept; those that are missing are computed, with the null context if it is one of them."""
        rows = context - self._first_kept
        wanted = torch.cat([rows, rows.new_tensor([self._null - self._first_kept])]).unique()
        with self._lock:  # batches are drawn in several threads
            missing = wanted[~self._known.to(wanted.device)[wanted]]
            if len(missing):
                self._keep(missing, *self._look(missing + self._first_kept))
        if self._kept is None:
            raise RuntimeError("nothing is kept although nothing was missing")
        logits, features = self._kept
        return logits[rows], features[rows]

    def _look(self, context: Tensor) -> tuple[Tensor, Tensor]:
        tokens = torch.full((len(context), self._length), self._mask_token_id, device=self._device)
        return self._call(tokens, context)

    def _keep(self, rows: Tensor, logits: Tensor, features: Tensor) -> None:
        """Memory is reserved for all rows, but an untouched page of it costs nothing on a CPU."""
        if self._kept is None:
            count = len(self._known)
            self._kept = logits.new_empty(count, *logits.shape[1:]), features.new_empty(count, *features.shape[1:])
        for kept, values in zip(self._kept, (logits, features), strict=True):
            kept[rows] = values
        self._known[rows.cpu()] = True
