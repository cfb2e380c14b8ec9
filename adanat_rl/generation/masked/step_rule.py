"""One parallel decoding step on given logits: guidance, token draw, confidence, re-masking.

Pure functions, all randomness comes in. The rule is that of the official AdaNAT sampler (parity data `step_logits`).
Shapes: logits float32 `[B, L, V]`, tokens int64 `[B, L]`, per-image parameters float32 `[B]`; `mask_token_id` is V.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def guided_logits(conditional: Tensor, unconditional: Tensor, guidance_scale: Tensor) -> Tensor:
    """Classifier-free guidance `cond + w·(cond - uncond)`."""
    return conditional + guidance_scale[:, None, None] * (conditional - unconditional)


def draw_tokens(
    logits: Tensor, tokens: Tensor, mask_token_id: int, sampling_temperature: Tensor, token_gumbel: Tensor
) -> Tensor:
    """Draws masked positions from `softmax(logits / sampling_temperature)` by the Gumbel-max trick; known tokens stay.

    Args:
        token_gumbel: `[B, L, V]` standard Gumbel draws.
    """
    drawn = (logits / sampling_temperature[:, None, None] + token_gumbel).argmax(dim=-1)
    return torch.where(tokens == mask_token_id, drawn, tokens)


def remask(
    logits: Tensor,
    tokens: Tensor,
    drawn: Tensor,
    mask_token_id: int,
    mask_ratio: Tensor,
    confidence_temperature: Tensor,
    confidence_gumbel: Tensor,
) -> Tensor:
    """Masks the drawn tokens of least confidence again.

    Confidence is the log-probability without the sampling temperature plus `confidence_temperature` times Gumbel noise,
    infinite for tokens known before. Positions strictly below the `min(floor(L·ratio), L-1)`-th smallest are masked, so
    ties at the cut-off stay, and where the cut-off is infinite every token of this step is masked again.

    Args:
        tokens: before the draw. drawn: after it.
        confidence_gumbel: `[B, L]` standard Gumbel draws.
    """
    length = tokens.shape[1]
    log_probability = functional.log_softmax(logits, dim=-1).gather(-1, drawn[..., None])[..., 0]
    confidence = log_probability + confidence_temperature[:, None] * confidence_gumbel
    confidence = confidence.masked_fill(tokens != mask_token_id, torch.inf)
    num_masked = (mask_ratio * length).floor().clamp(0, length - 1).long()
    cut_off = confidence.sort(dim=1).values.gather(1, num_masked[:, None])
    return torch.where(confidence < cut_off, mask_token_id, drawn)
