"""Text encoders: a CLIP of a local folder turns captions into the NAT's context and the discriminator's condition.

As in the CLIP models themselves, only the causal mask is used: what stands before the end token does not depend on the
padding, what stands after it does, and a NAT is trained with one kind of padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from adanat_rl.config.errors import UserError
from adanat_rl.generation.blocks import run_in_blocks
from adanat_rl.generation.text.local import (
    fingerprint,
    load_config,
    load_tokenizer,
    require_transformers,
    shared_model,
)


@dataclass(frozen=True)
class TextEmbedding:
    """B encoded captions.

    Args:
        hidden: `[B, S, C]` float32, the last hidden state after the final norm.
        pooled: `[B, P]` float32, the projected state of the end token, not normalised.
    """

    hidden: Tensor
    pooled: Tensor


class TextEncoder(Protocol):
    """What tables and caches need of a text encoder.

    `name` is for people, `fingerprint` tells encoders with different results apart; S, C and P are the sizes of what
    it returns.
    """

    name: str
    length: int  # S
    width: int  # C
    pooled_width: int  # P

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides the result."""
        ...

    def __call__(self, captions: Sequence[str]) -> TextEmbedding:
        """Embeddings of captions; each depends on its own caption alone."""
        ...


class ClipTextEncoder:
    """The text tower of any CLIP of transformers; weights are read when first used and stay out of pickles.

    Args:
        folder: of `save_pretrained`: a whole CLIPModel or its text tower with projection.
        tokenizer_folder: where its tokenizer is, if it is not in the same folder (pipelines of diffusers).
        pad_token_id: what fills captions up to S; 0 is what AdaNAT's CC3M model was trained with. None: the
            tokenizer's own padding token.
        batch_size: rows of one pass; shorter batches are filled up, so that a caption's embedding does not depend on
            its batch mates.
        device, dtype: where and in what precision the tower runs; results are float32 on that device.

    Raises:
        UserError: transformers is missing, or the folder has no text tower or no tokenizer.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        tokenizer_folder: Path | str | None = None,
        pad_token_id: int | None = 0,
        batch_size: int = 32,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        transformers = require_transformers()
        self.folder = Path(folder)
        self.tokenizer_folder = self.folder if tokenizer_folder is None else Path(tokenizer_folder)
        self.name = self.folder.resolve().name
        config = load_config(transformers.CLIPTextConfig, self.folder)
        self.length: int = config.max_position_embeddings
        self.width: int = config.hidden_size
        self.pooled_width: int = config.projection_dim
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.dtype = dtype
        self._end_token_id: int = config.eos_token_id
        self._vocab_size: int = config.vocab_size
        self._pad_token_id = pad_token_id

    @cached_property
    def fingerprint(self) -> str:
        """Hash of files, padding and precision; batch size and device change no more than rounding errors."""
        return fingerprint((self.folder, self.tokenizer_folder), self.pad_token_id, str(self.dtype))

    @property
    def pad_token_id(self) -> int:
        """The id that fills captions up."""
        return int(self._tokenizer.pad_token_id) if self._pad_token_id is None else self._pad_token_id

    def token_ids(self, captions: Sequence[str]) -> Tensor:
        """Token ids int64 `[B, S]`; longer captions are cut, and still end with the end token.

        Raises:
            UserError: tokenizer and network do not belong together.
        """
        if not captions:
            return torch.zeros(0, self.length, dtype=torch.int64)
        rows = self._tokenizer(list(captions), truncation=True, max_length=self.length)["input_ids"]
        ids = torch.tensor([row + [self.pad_token_id] * (self.length - len(row)) for row in rows], dtype=torch.int64)
        if int(ids.max()) >= self._vocab_size:
            raise UserError(
                f"{self.tokenizer_folder}: the tokenizer gives id {int(ids.max())}, but {self.folder} knows "
                f"{self._vocab_size} ids; "
                "tokenizer and weights are not of one model"
            )
        return ids

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> TextEmbedding:
        """Embeddings of B captions."""
        ids = self.token_ids(captions).to(self.device)
        if not len(ids):
            return TextEmbedding(
                torch.zeros(0, self.length, self.width, device=self.device),
                torch.zeros(0, self.pooled_width, device=self.device),
            )
        return TextEmbedding(*run_in_blocks(self._encode, self.batch_size, ids))

    def _encode(self, ids: Tensor) -> tuple[Tensor, ...]:
        output = self._network(input_ids=ids)
        return output.last_hidden_state.float(), output.text_embeds.float()

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = load_tokenizer(self.tokenizer_folder)
        ends = tokenizer("", truncation=True, max_length=self.length)["input_ids"][-1:]
        # A configuration with end token 2 is of the time when the largest id was taken for it.
        if self._end_token_id != 2 and ends != [self._end_token_id]:
            raise UserError(
                f"{self.tokenizer_folder}: captions end with token {ends}, {self.folder}/config.json expects "
                f"{self._end_token_id}"
            )
        return tokenizer

    @cached_property
    def _network(self) -> nn.Module:
        cls = require_transformers().CLIPTextModelWithProjection
        return shared_model(cls, self.folder, self.device, self.dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_network", "_tokenizer")}
