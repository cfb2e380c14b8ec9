"""A plain pre-norm transformer over image tokens: the NAT of small data sets.

`forward` takes tokens `[B, L]` (the mask token is `vocab_size`) and labels `[B]` (the null label is `num_classes`) and
returns logits `[B, L, vocab_size]` and features `[B, L, width]`, the last hidden state after the final norm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class TransformerNAT(nn.Module):
    """Masked-token predictor with learned positions and a class embedding added to every token.

    Args:
        vocab_size: V, number of codes; token V is the mask.
        grid_size: h = w of the token grid, L = grid_size².
        num_classes: number of labels; label num_classes is the null context.
        width: D. depth: number of blocks. num_heads: heads of attention, a divisor of width.
        mlp_ratio: hidden width of the MLP over D.
        dropout: probability, on attention weights and on both residual branches, in training only.
    """

    def __init__(
        self,
        vocab_size: int,
        grid_size: int,
        num_classes: int,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_heads < 1 or width % num_heads:
            raise ValueError(f"num_heads {num_heads} does not divide width {width}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; accepted: from 0 to below 1")
        self.vocab_size = vocab_size
        self.mask_token_id = vocab_size
        self.grid_size = grid_size
        self.num_classes = num_classes
        self.width = width
        self.token_embedding = nn.Embedding(vocab_size + 1, width)
        self.position_embedding = nn.Parameter(torch.empty(grid_size**2, width))
        self.class_embedding = nn.Embedding(num_classes + 1, width)
        self.blocks = nn.ModuleList(_Block(width, num_heads, mlp_ratio, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab_size)
        for weight in (self.token_embedding.weight, self.position_embedding, self.class_embedding.weight):
            nn.init.normal_(weight, std=0.02)

    def forward(self, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, L, V]` and features `[B, L, D]`."""
        hidden = self.token_embedding(tokens) + self.position_embedding + self.class_embedding(context)[:, None]
        for block in self.blocks:
            hidden = block(hidden)
        features = self.norm(hidden)
        return self.head(features), features


class _Block(nn.Module):
    def __init__(self, width: int, num_heads: int, mlp_ratio: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, mlp_ratio * width)
        self.fc2 = nn.Linear(mlp_ratio * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self._drop(self._attention(self.norm1(hidden)))
        return hidden + self._drop(self.fc2(functional.silu(self.fc1(self.norm2(hidden)))))

    def _attention(self, hidden: Tensor) -> Tensor:
        batch_size, length, width = hidden.shape
        heads = self.qkv(hidden).view(batch_size, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.proj(mixed.transpose(1, 2).reshape(batch_size, length, width))

    def _drop(self, hidden: Tensor) -> Tensor:
        return functional.dropout(hidden, self.dropout, self.training)
