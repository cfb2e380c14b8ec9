"""The sampler as the official code runs it: 2T + 1 NAT passes for an image, nothing kept, nothing left out.

One pass at the start, and in each step one without the class for guidance and one on the new tokens for the policy,
also after the last draw, where nobody looks any more. The rule of a step is the product's own; the loop around it is
not. It is the yardstick of `benchmarks.latency`, and a test holds its tokens against the product's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.masked.sampler import NAT
from adanat_rl.generation.masked.schedules import (
    CONFIDENCE_TEMPERATURE,
    GUIDANCE_SCALE,
    MASK_RATIO,
    SAMPLING_TEMPERATURE,
)
from adanat_rl.generation.masked.step_rule import draw_tokens, guided_logits, remask
from adanat_rl.generation.noise import Stream

Gumbel = Callable[[int, Stream, tuple[int, ...]], Tensor]
"""`(step, stream, shape)` → standard Gumbel draws `[B, *shape]`."""


@torch.no_grad()
def draw_plainly(
    nat: NAT, num_classes: int, actor: nn.Module, space: DecisionSpace, context: Tensor, gumbel: Gumbel
) -> Tensor:
    """Tokens int64 `[B, L]` of one image per class label `[B]`.

    Args:
        nat: class-conditional, any precision. num_classes: the number of the null class.
        actor: `(features, step [B], context) -> action [B, A]`.
    """
    mask = nat.vocab_size
    null = torch.full_like(context, num_classes)
    tokens = torch.full((len(context), nat.grid_size**2), mask, device=context.device)
    carry = None
    logits, features = nat(tokens, context)
    for step in range(space.horizon):
        action = actor(features.float(), torch.full_like(context, step), context)
        decision, carry = space.decide(action, step, carry)
        unconditional, _ = nat(tokens, null)
        guided = guided_logits(logits.float(), unconditional.float(), decision[:, GUIDANCE_SCALE])
        noise = gumbel(step, Stream.TOKENS, tuple(guided.shape[1:]))
        drawn = draw_tokens(guided, tokens, mask, decision[:, SAMPLING_TEMPERATURE], noise)
        tokens = remask(
            guided,
            tokens,
            drawn,
            mask,
            decision[:, MASK_RATIO],
            decision[:, CONFIDENCE_TEMPERATURE],
            gumbel(step, Stream.CONFIDENCE, tuple(drawn.shape[1:])),
        )
        logits, features = nat(tokens, context)
    return drawn


def torch_gumbel(seed: int, batch_size: int, device: torch.device) -> Gumbel:
    """What a plain loop would use: torch's own random numbers."""
    generator = torch.Generator(device).manual_seed(seed)

    def draw(step: int, stream: Stream, shape: tuple[int, ...]) -> Tensor:
        values = torch.empty(batch_size, *shape, device=device).exponential_(generator=generator)
        return values.log_().neg_()

    return draw
