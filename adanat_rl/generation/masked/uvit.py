"""The U-ViT NAT of the AdaNAT family: a transformer with long skip connections, conditioned on a class or on a text.

Names of layers and arithmetic are those of the official network (parity data `nat_class_*`, `nat_text_*`), which is a
U-ViT (Bao et al., CVPR 2023) over tokens. Sequence: context tokens first, then the L image tokens row by row. Logits
are tied to the token embedding, as in BERT's masked-language head.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from adanat_rl.config.errors import UserError

_EMBEDDING_NORM_EPS = 1e-6
_NORM_EPS = 1e-5


class UViTNAT(nn.Module):
    """Tokens `[B, L]` int64 and a context → logits `[B, L, V]` and features `[B, L, D]`, in the dtype of the weights.

    Features are the last hidden states of the image tokens after the final norm. Exactly one of `num_classes` and
    `text_width` is given and says what a context is.

    Args:
        vocab_size: V, number of codes; token V is the mask.
        grid_size: h = w of the token grid, L = grid_size².
        width: D.
        depth: number of blocks without the middle one, even; the first half send their output to the second half.
        num_heads: heads of attention, a divisor of width. mlp_ratio: hidden width of the MLP over D.
        qkv_bias: whether queries, keys and values have a bias.
        num_classes: number of labels, without the null one; contexts are `[B]` int64, num_classes is the null context.
        text_width: C; contexts are `[B, S, C]`, the last hidden states of a text encoder, with any S (CLIP: 77).
    """

    def __init__(
        self,
        vocab_size: int,
        grid_size: int,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: int = 4,
        qkv_bias: bool = False,
        num_classes: int | None = None,
        text_width: int | None = None,
    ) -> None:
        super().__init__()
        if depth < 2 or depth % 2:
            raise ValueError(f"depth is {depth}; accepted: even numbers from 2")
        if num_heads < 1 or width % num_heads:
            raise ValueError(f"num_heads {num_heads} does not divide width {width}")
        self.vocab_size = vocab_size
        self.mask_token_id = vocab_size
        self.grid_size = grid_size
        self.width = width
        self.num_classes = num_classes
        self.text_width = text_width
        self.token_emb = _Embeddings(vocab_size + 1, grid_size**2, width)
        self.context_embed: nn.Module
        if num_classes is not None and text_width is None:
            self.context_embed = _Embeddings(num_classes + 1, 1, width)
        elif num_classes is None and text_width is not None:
            self.context_embed = nn.Linear(text_width, width)
        else:
            raise ValueError(f"num_classes is {num_classes} and text_width {text_width}; give exactly one of them")
        half = range(depth // 2)
        self.in_blocks = nn.ModuleList(_Block(width, num_heads, mlp_ratio, qkv_bias) for _ in half)
        self.mid_block = _Block(width, num_heads, mlp_ratio, qkv_bias)
        self.out_blocks = nn.ModuleList(_Block(width, num_heads, mlp_ratio, qkv_bias, skip=True) for _ in half)
        self.norm = nn.LayerNorm(width, _NORM_EPS)
        self.mlm_layer = _TokenHead(vocab_size + 1, width)

    def forward(self, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, L, V]` and features `[B, L, D]`."""
        hidden = torch.cat([self._embedded_context(context), self.token_emb(tokens)], dim=1)
        skips = []
        for block in self.in_blocks:
            hidden = block(hidden)
            skips.append(hidden)
        hidden = self.mid_block(hidden)
        for block in self.out_blocks:
            hidden = block(hidden, skips.pop())
        features = self.norm(hidden[:, -tokens.shape[1] :])
        return self.head(features), features

    def head(self, features: Tensor) -> Tensor:
        """Logits `[B, L, V]` of features `[B, L, D]` of any floating dtype; the mask token is never predicted."""
        codes = self.token_emb.word_embeddings.weight[: self.vocab_size]
        return self.mlm_layer(features.to(codes.dtype), codes)

    def _embedded_context(self, context: Tensor) -> Tensor:
        """`[B, 1, D]` of classes, `[B, S, D]` of texts."""
        if self.text_width is None:
            if context.dim() != 1 or context.is_floating_point():
                raise UserError(
                    f"the NAT takes class labels [B], found {list(context.shape)} {context.dtype}; "
                    "captions need a NAT that was trained with text"
                )
            return self.context_embed(context[:, None])
        if context.dim() != 3 or context.shape[-1] != self.text_width:
            raise UserError(
                f"the NAT takes text embeddings [B, S, {self.text_width}], found {list(context.shape)}; "
                "encode the captions with the text encoder that it was trained with"
            )
        return self.context_embed(context.to(self.norm.weight.dtype))


class _Embeddings(nn.Module):
    """Ids `[B, N]` → `[B, N, width]`: embedding plus learned position, normalised."""

    def __init__(self, num_entries: int, num_positions: int, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(num_entries, width)
        self.position_embeddings = nn.Embedding(num_positions, width)
        self.LayerNorm = nn.LayerNorm(width, _EMBEDDING_NORM_EPS)
        for embedding in (self.word_embeddings, self.position_embeddings):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        positions = self.position_embeddings.weight
        if ids.shape[1] != len(positions):
            raise ValueError(f"the NAT takes {len(positions)} tokens per image, found {ids.shape[1]}")
        return self.LayerNorm(self.word_embeddings(ids) + positions)


class _Block(nn.Module):
    """A pre-norm transformer block; with `skip` it first merges the output of its partner in the first half."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: int, qkv_bias: bool, skip: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, _NORM_EPS)
        self.attn = _Attention(width, num_heads, qkv_bias)
        self.norm2 = nn.LayerNorm(width, _NORM_EPS)
        self.mlp = _MLP(width, mlp_ratio * width)
        self.skip_linear = nn.Linear(2 * width, width) if skip else None

    def forward(self, hidden: Tensor, skip: Tensor | None = None) -> Tensor:
        if self.skip_linear is not None and skip is not None:
            hidden = self.skip_linear(torch.cat([hidden, skip], dim=-1))
        hidden = hidden + self.attn(self.norm1(hidden))
        return hidden + self.mlp(self.norm2(hidden))


class _Attention(nn.Module):
    def __init__(self, width: int, num_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        batch_size, length, width = hidden.shape
        heads = self.qkv(hidden).view(batch_size, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch_size, length, width))


class _MLP(nn.Module):
    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden_width)
        self.fc2 = nn.Linear(hidden_width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(hidden)))


class _TokenHead(nn.Module):
    """Features → similarity with every code, plus a bias per code."""

    def __init__(self, num_entries: int, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 1, num_entries))
        self.fc = nn.Linear(width, width)
        self.ln = nn.LayerNorm(width, _NORM_EPS)

    def forward(self, features: Tensor, codes: Tensor) -> Tensor:
        hidden = self.ln(functional.gelu(self.fc(features)))
        return functional.linear(hidden, codes) + self.bias[..., : len(codes)]


def convert_official_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict of an official NAT's (`nnet_ema.pth`): the same names, without the buffers that only count."""
    return {name: tensor for name, tensor in state.items() if not name.endswith("position_ids")}
