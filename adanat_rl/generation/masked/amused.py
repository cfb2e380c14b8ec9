"""aMUSEd behind our contracts: diffusers' networks as NAT and tokenizer, its text conditions, its schedule as a base.

diffusers' `UVit2DModel`, `VQModel` and CLIP text encoder are used as they are; the step rule is ours. What the pipeline
passes to the transformer, and what stands for it here:

* token ids `[B, h, w]`; the mask is the scheduler's `mask_token_id` (8255), above the codes; ours is V (8192);
* the penultimate hidden states `[B, S, C]` of the text encoder and its pooled, projected embedding `[B, C]`: a context
  is both in one tensor `[B, S+1, C]`, the pooled embedding last;
* five numbers of micro-conditioning: width, height, two crop coordinates, aesthetic score; constants of the NAT.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from adanat_rl.generation.masked.contexts import CaptionContexts, EncodedCaptions

NUM_STEPS, PIPELINE_GUIDANCE_SCALE, TEMPERATURES = 12, 10.0, (2.0, 0.0)  # defaults of diffusers' AmusedPipeline
AESTHETIC_SCORE, CROP = 6.0, (0, 0)


class AmusedNAT(nn.Module):
    """A `UVit2DModel` as a NAT: logits `[B, L, V]` and features `[B, L, D]` of tokens `[B, L]`.

    Features are the last hidden state after the final norm, the input of the last 1×1 convolution (`mlm_layer.conv2`,
    from here on `head`): one vector for each token on the 16×16 and the 32×32 grid alike, while the transformer layers
    of the 512 model run on a grid of half the side. D is the `in_channels` of its configuration (768).

    Args:
        transformer: is taken over: its last convolution moves to the head, so it serves no other pipeline afterwards.
        mask_token_id: of diffusers' scheduler.
        image_size: width and height in pixels that the micro-conditioning asks for.
        aesthetic_score, crop: the rest of the micro-conditioning; crop in pixels, in the pipeline's order.

    Raises:
        ValueError: the transformer's settings do not fit this layout.
    """

    micro_conditions: Tensor

    def __init__(
        self,
        transformer: Any,
        mask_token_id: int,
        image_size: int,
        *,
        aesthetic_score: float = AESTHETIC_SCORE,
        crop: tuple[int, int] = CROP,
    ) -> None:
        super().__init__()
        config = transformer.config
        if not config.codebook_size <= mask_token_id < config.vocab_size:
            raise ValueError(
                f"mask_token_id is {mask_token_id}, expected {config.codebook_size} … {config.vocab_size - 1}"
            )
        if config.encoder_hidden_size != config.cond_embed_dim:
            raise ValueError(
                f"hidden states of width {config.encoder_hidden_size} and a pooled embedding of width "
                f"{config.cond_embed_dim} do not fit in one tensor"
            )
        if not isinstance(transformer.mlm_layer.conv2, nn.Conv2d):
            raise ValueError("the transformer's last convolution is gone: another AmusedNAT has taken it over")
        self.vocab_size: int = config.codebook_size
        self.grid_size: int = config.sample_size
        self.width: int = config.in_channels
        self.text_width: int = config.encoder_hidden_size
        self.mask_token_id = mask_token_id
        self.last = transformer.mlm_layer.conv2
        transformer.mlm_layer.conv2 = nn.Identity()
        self.trunk = transformer
        micro_conditions = torch.tensor([image_size, image_size, *crop, aesthetic_score], dtype=torch.float32)
        self.register_buffer("micro_conditions", micro_conditions, persistent=False)

    def forward(self, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, L, V]` and features `[B, L, D]` of tokens `[B, L]` and text conditions `[B, S+1, C]`."""
        batch_size = len(tokens)
        context = context.to(self.last.weight.dtype)
        ids = tokens.masked_fill(tokens == self.vocab_size, self.mask_token_id)
        hidden: Tensor = self.trunk(
            ids.view(batch_size, self.grid_size, self.grid_size),
            encoder_hidden_states=context[:, :-1],
            pooled_text_emb=context[:, -1],
            micro_conds=self.micro_conditions.expand(batch_size, -1),
        )
        features = hidden.flatten(2).transpose(1, 2).contiguous()
        return self.head(features), features

    def head(self, features: Tensor) -> Tensor:
        """Logits `[B, L, V]` of features `[B, L, D]`."""
        grid = features.transpose(1, 2).unflatten(2, (self.grid_size, self.grid_size))
        logits: Tensor = self.last(grid)
        return logits.flatten(2).transpose(1, 2)


class AmusedTokenizer(nn.Module):
    """A `VQModel` as a tokenizer: images float32 `[B, 3, H, H]` in [0, 1] ↔ tokens int64 `[B, L]`, row by row.

    aMUSEd's autoencoder works on [0, 1] itself; its output is clipped to that range. float16 overflows in it (diffusers
    runs it in float32 for that reason, its setting `force_upcast`).

    Args:
        vqvae: one that looks tokens up in its codebook.
        grid_size: h = w; H is grid_size times the autoencoder's factor (16).
    """

    grey_tokens: Tensor

    def __init__(self, vqvae: Any, grid_size: int) -> None:
        super().__init__()
        config = vqvae.config
        if not config.lookup_from_codebook:
            raise ValueError("the VQModel has lookup_from_codebook off: it decodes latents, not tokens")
        self.vqvae = vqvae
        self.vocab_size: int = config.num_vq_embeddings
        self.grid_size = grid_size
        self.image_channels: int = config.out_channels
        self._code_width: int = config.vq_embed_dim or config.latent_channels
        self._factor = 2 ** (len(config.block_out_channels) - 1)
        self.image_size = grid_size * self._factor
        grey = torch.full((1, self.image_channels, self.image_size, self.image_size), 0.5)
        with torch.no_grad():
            grey_tokens = self.encode(grey.to(vqvae.device))[0]
        self.register_buffer("grey_tokens", grey_tokens, persistent=False)

    def encode(self, images: Tensor) -> Tensor:
        """Tokens `[B, L]` of images in [0, 1]."""
        latents = self.vqvae.encode(images.to(self.vqvae.dtype)).latents
        _, _, (_, _, tokens) = self.vqvae.quantize(latents)
        return tokens.view(len(images), -1)

    def decode(self, tokens: Tensor) -> Tensor:
        """Images of tokens; patches of masks are mid-grey, and their neighbours see the tokens of a grey image."""
        grid = self.grid_size
        masked = tokens == self.vocab_size
        shown = torch.where(masked, self.grey_tokens, tokens).view(-1, grid, grid)
        shape = (len(tokens), grid, grid, self._code_width)
        images: Tensor = self.vqvae.decode(shown, force_not_quantize=True, shape=shape).sample
        patches = masked.view(-1, 1, grid, grid)
        pixels = patches.repeat_interleave(self._factor, 2).repeat_interleave(self._factor, 3)
        return images.float().clamp(0, 1).masked_fill(pixels, 0.5)


class PooledCaptions(EncodedCaptions, Protocol):
    """Encoded captions that hold the pooled embedding too; hidden states must be the penultimate ones."""

    def pooled(self, index: Tensor) -> Tensor:
        """Pooled, projected embeddings float32 `[B, C]` of rows `[B]` in 0 … N."""
        ...


@dataclass(frozen=True)
class AmusedContexts(CaptionContexts):
    """Captions as aMUSEd takes them: text conditions `[B, S+1, C]`."""

    captions: PooledCaptions

    def _embeddings(self, rows: Tensor) -> Tensor:
        return join_text(self.captions.hidden(rows), self.captions.pooled(rows))


def join_text(hidden: Tensor, pooled: Tensor) -> Tensor:
    """One context `[B, S+1, C]` of hidden states `[B, S, C]` and pooled embeddings `[B, C]`."""
    return torch.cat([hidden, pooled[:, None]], dim=1)


def amused_schedule(
    horizon: int = NUM_STEPS,
    *,
    pipeline_guidance_scale: float = PIPELINE_GUIDANCE_SCALE,
    temperatures: tuple[float, float] = TEMPERATURES,
) -> np.ndarray:
    """The schedule `[T, 4]` under which our step rule is that of diffusers' `AmusedScheduler` (cosine).

    The mask ratio is cos(π/2 · (t+1)/T); the confidence temperature falls linearly from the first value in the first
    step to the second in the last one, where it has no effect (both rules add it times standard Gumbel noise to the
    log-probability of the guided logits); tokens are drawn at temperature 1. The guidance is the same in all steps.
    diffusers computes `uncond + s·(cond - uncond)`, we compute `cond + w·(cond - uncond)`, so w = s - 1; it takes
    no unconditional pass for s ≤ 1, which is w = 0.

    Its scheduler also reveals at least one token in each step and keeps one masked until the last. The cosine does so
    by itself for T up to 35 on a 16×16 grid and up to 71 on a 32×32 one; beyond, our rule may spend a step on nothing.

    Args:
        horizon: T.
        pipeline_guidance_scale: s, in diffusers' convention.
        temperatures: of the first and of the last step.
    """
    done = (torch.arange(horizon) + 1) / horizon
    ratio = torch.cos(done * math.pi / 2)  # in float32 like there: whole numbers of tokens fall to the same side
    columns = (
        ratio.double().numpy().clip(0, 1),
        np.linspace(*temperatures, horizon),
        np.ones(horizon),
        np.full(horizon, max(pipeline_guidance_scale - 1, 0.0)),
    )
    return np.stack(columns, axis=1)
