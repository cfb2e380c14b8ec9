"""The masked-token generator: T steps of parallel decoding around a frozen NAT and tokenizer.

Cost per guided image: 2T - 2 NAT passes with class labels, 2T - 1 with captions, at most. The all-masked first step
depends on the context alone and is kept (of captions only the null one's); nothing runs after the last draw. An image
whose guidance scale is 0 takes no unconditional pass; where the policy may set it to 0, that pass waits for the
decision. Where the policy may stop early, an image that has no masked token left takes no pass at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from adanat_rl.generation.blocks import run_in_blocks
from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.generator import Observation, SampleSpec
from adanat_rl.generation.masked.contexts import ContextLookup, ContextTable
from adanat_rl.generation.masked.first_step import FirstStep
from adanat_rl.generation.masked.schedules import (
    CONFIDENCE_TEMPERATURE,
    GUIDANCE_SCALE,
    MASK_RATIO,
    SAMPLING_TEMPERATURE,
)
from adanat_rl.generation.masked.step_rule import draw_tokens, guided_logits, remask
from adanat_rl.generation.noise import Noise, Stream, gumbel
from adanat_rl.generation.precision import Precision, matmul_precision, weight_dtype


class Tokenizer(Protocol):
    """What the generator needs of a tokenizer."""

    vocab_size: int
    grid_size: int
    image_size: int
    image_channels: int

    def encode(self, images: Tensor) -> Tensor:
        """Tokens int64 `[B, L]` of images."""
        ...

    def decode(self, tokens: Tensor) -> Tensor:
        """Images float32 `[B, C, H, W]` in [0, 1]; shows `vocab_size`, the mask, in some neutral way."""
        ...


class NAT(Protocol):
    """What the generator needs of a NAT: a torch module with these attributes."""

    vocab_size: int
    grid_size: int
    width: int

    def __call__(self, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, L, V]` and features `[B, L, D]` of tokens `[B, L]` and what the context table gives."""
        ...

    def eval(self) -> Self:
        """Evaluation mode."""
        ...

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freezes the parameters."""
        ...


@dataclass(frozen=True)
class MaskedTokenState:
    """B half-drawn images. Logits belong to the draw of `step`; `unconditional` is None where it is not needed yet."""

    tokens: Tensor  # [B, L] int64
    context: Tensor  # [B] int64
    lookup: ContextLookup  # what the NAT takes for these contexts and the null one
    step: int
    noise: Noise
    plan: Tensor | None  # [B, T, 4]
    features: Tensor | None  # [B, L, D]; 0 for finished images
    conditional: Tensor | None  # [B, L, V]
    unconditional: Tensor | None  # [B, L, V]; rows that took no unconditional pass hold the conditional logits
    has_unconditional: Tensor  # [B] bool: which rows took it
    num_passes: Tensor  # [B] int64

    @property
    def observation(self) -> Observation:
        """Tokens, context, step and features."""
        return Observation(self.tokens, self.context, self.step, self.features)


class MaskedTokenGenerator:
    """Implements the `Generator` contract.

    Args:
        nat, tokenizer: on `device`, frozen from here on.
        decision_space: its four decisions in the order of `schedules.DECISION_NAMES`.
        block_rows: rows of one call of the NAT; part of what makes results reproducible (see `blocks`).
        contexts: what the NAT is conditioned on.
        first_step_mb: the first step is kept for all class labels if it takes no more than this.
        decode_rows: images that the tokenizer decodes at once.
        precision: of the NAT; logits and features are float32 in any case.
    """

    def __init__(
        self,
        nat: NAT,
        tokenizer: Tokenizer,
        decision_space: DecisionSpace,
        block_rows: int,
        contexts: ContextTable,
        *,
        first_step_mb: int = 2048,
        decode_rows: int = 256,
        precision: Precision = "float32",
        device: torch.device | str = "cpu",
    ) -> None:
        self.nat = nat.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.decision_space = decision_space
        self.horizon = decision_space.horizon
        self.block_rows = block_rows
        self.contexts = contexts
        self.device = torch.device(device)
        self.precision = precision
        self.decode_rows = decode_rows
        length, vocab_size = tokenizer.grid_size**2, tokenizer.vocab_size
        storage = np.min_scalar_type(vocab_size)  # the mask token is the largest value
        self.sample_spec = SampleSpec("tokens", (length,), torch.int64, 0, vocab_size, storage)
        self.context_spec = contexts.spec
        self.feature_shape = (length, nat.width)
        self.feature_dtype = weight_dtype(precision)
        self.image_shape = (tokenizer.image_channels, tokenizer.image_size, tokenizer.image_size)
        self._mask_token_id = vocab_size
        self._may_stop = decision_space.can_be_zero(decision_space.names[MASK_RATIO])
        self._first_step_mb = first_step_mb
        self._first_step = self._make_first_step()

    def with_base_schedule(self, base_schedule: np.ndarray) -> MaskedTokenGenerator:
        """The same networks around another base schedule `[T, 4]`, whose length is the new horizon."""
        return self._with(self.decision_space.with_base_schedule(base_schedule), self.contexts)

    def with_contexts(self, contexts: ContextTable) -> MaskedTokenGenerator:
        """The same networks with another table of contexts, whose null one is the same."""
        return self._with(self.decision_space, contexts)

    def _with(self, decision_space: DecisionSpace, contexts: ContextTable) -> MaskedTokenGenerator:
        other = MaskedTokenGenerator(
            self.nat,
            self.tokenizer,
            decision_space,
            self.block_rows,
            contexts,
            first_step_mb=self._first_step_mb,
            decode_rows=self.decode_rows,
            precision=self.precision,
            device=self.device,
        )
        other._first_step = self._first_step
        return other

    @torch.no_grad()
    def reset(self, context: Tensor, noise: Noise, plan: Tensor | None = None) -> MaskedTokenState:
        """All tokens masked; logits and features of the first step are computed once per label, not per image."""
        tokens = torch.full((len(context), *self.sample_spec.shape), self._mask_token_id, device=self.device)
        lookup = self.contexts.held(context)
        if self._first_step.keeps_contexts:
            logits, features = self._first_step(context)
        else:
            logits, features = self._forward(tokens, context, lookup)
        null, _ = self._first_step.null()
        num_passes = torch.full((len(context),), 0 if self._first_step.keeps_contexts else 1, device=self.device)
        return MaskedTokenState(
            tokens=tokens,
            context=context,
            lookup=lookup,
            step=0,
            noise=noise,
            plan=plan,
            features=features,
            conditional=logits,
            unconditional=null.expand(len(context), *null.shape),
            has_unconditional=torch.ones(len(context), dtype=torch.bool, device=self.device),
            num_passes=num_passes,
        )

    @torch.no_grad()
    def step(self, state: MaskedTokenState, decision: Tensor) -> MaskedTokenState:
        """Draws tokens under `decision` `[B, 4]`, masks the least confident again, and looks at the result."""
        guidance_scale = decision[:, GUIDANCE_SCALE]
        missing = (guidance_scale != 0) & ~state.has_unconditional & ~self.is_finished(state.tokens)
        state = self._complete_unconditional(state, missing)
        if state.conditional is None or state.unconditional is None:
            raise ValueError(f"the trajectory is complete: step {state.step} of {self.horizon}")
        logits = guided_logits(state.conditional, state.unconditional, guidance_scale)
        token_gumbel = gumbel(state.noise, state.step, Stream.TOKENS, tuple(logits.shape[1:])).to(self.device)
        drawn = draw_tokens(logits, state.tokens, self._mask_token_id, decision[:, SAMPLING_TEMPERATURE], token_gumbel)
        step = state.step + 1
        if step == self.horizon:
            return replace(state, tokens=drawn, step=step, features=None, conditional=None, unconditional=None)
        confidence_gumbel = gumbel(state.noise, state.step, Stream.CONFIDENCE, tuple(drawn.shape[1:])).to(self.device)
        tokens = remask(
            logits,
            state.tokens,
            drawn,
            self._mask_token_id,
            decision[:, MASK_RATIO],
            decision[:, CONFIDENCE_TEMPERATURE],
            confidence_gumbel,
        )
        return self._look(replace(state, tokens=tokens, step=step))

    @torch.no_grad()
    def features(self, observation: Observation) -> Tensor:
        """Features `[B, L, D]` by a conditional pass, or from the cache at step 0; 0 for finished images."""
        if observation.step == 0:
            return self._first_step(observation.context)[1]
        chosen = (~self.is_finished(observation.sample)).nonzero()[:, 0]
        _, features = self._forward(observation.sample[chosen], observation.context[chosen])
        return _spread_rows(features, chosen, len(observation.sample))

    def is_finished(self, sample: Tensor) -> Tensor:
        """`[B]` bool: images without a masked token, where the policy may stop early (`mask_ratio_cutoff`)."""
        if not self._may_stop:
            return torch.zeros(len(sample), dtype=torch.bool, device=sample.device)
        return (sample != self._mask_token_id).all(dim=1)

    @torch.no_grad()
    def decode(self, sample: Tensor) -> Tensor:
        """Images of tokens, some at a time; masks are mid-grey."""
        return torch.cat([self.tokenizer.decode(part) for part in sample.split(self.decode_rows)])

    def _look(self, state: MaskedTokenState) -> MaskedTokenState:
        """Passes of the coming step: conditional for all unfinished images, in the same blocks unconditional for those
        that are known to need it.
        """
        unfinished = ~self.is_finished(state.tokens)
        wanted = self._will_be_guided(state) & unfinished
        looking, guided = unfinished.nonzero()[:, 0], wanted.nonzero()[:, 0]
        null = torch.full_like(guided, self.context_spec.num_contexts)
        logits, features = self._forward(
            torch.cat([state.tokens[looking], state.tokens[guided]]),
            torch.cat([state.context[looking], null]),
            state.lookup,
        )
        batch_size, count = len(state.tokens), len(looking)
        conditional = _spread_rows(logits[:count], looking, batch_size)
        return replace(
            state,
            features=_spread_rows(features[:count], looking, batch_size),
            conditional=conditional,
            unconditional=_merge_rows(conditional, guided, logits[count:]),
            has_unconditional=wanted,
            num_passes=state.num_passes + unfinished.long() + wanted.long(),
        )

    def _will_be_guided(self, state: MaskedTokenState) -> Tensor:
        """`[B]` bool: False where the coming guidance scale is, or may turn out to be, 0."""
        if state.plan is not None:
            return state.plan[:, state.step, GUIDANCE_SCALE] != 0
        space = self.decision_space
        name = space.names[GUIDANCE_SCALE]
        if name in space.learned:
            is_certain = not space.can_be_zero(name)
        else:
            is_certain = bool(space.base_schedule[state.step, GUIDANCE_SCALE] != 0)
        return torch.full((len(state.tokens),), is_certain, device=self.device)

    def _complete_unconditional(self, state: MaskedTokenState, missing: Tensor) -> MaskedTokenState:
        """The unconditional passes that waited for the decision, or that were ruled out beforehand against it."""
        chosen = missing.nonzero()[:, 0]
        if len(chosen) == 0 or state.unconditional is None:
            return state
        null = torch.full_like(chosen, self.context_spec.num_contexts)
        logits, _ = self._forward(state.tokens[chosen], null, state.lookup)
        return replace(
            state,
            unconditional=_merge_rows(state.unconditional, chosen, logits),
            num_passes=state.num_passes + missing.long(),
        )

    def _forward(self, tokens: Tensor, context: Tensor, lookup: ContextLookup | None = None) -> tuple[Tensor, Tensor]:
        """Logits and features. Without a lookup each block looks its own contexts up in the table."""
        if len(tokens) == 0:
            length, width = self.feature_shape
            empty = torch.zeros(0, length, self._mask_token_id, device=self.device)
            return empty, torch.zeros(0, length, width, device=self.device)
        look_up = self.contexts if lookup is None else lookup

        def call_nat(tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
            return self.nat(tokens, look_up(context))

        with matmul_precision(self.precision):
            logits, features = run_in_blocks(call_nat, self.block_rows, tokens, context)
        return logits.float(), features.float()

    def _make_first_step(self) -> FirstStep:
        num_contexts, (length, width) = self.context_spec.num_contexts, self.feature_shape
        size_mb = 4 * (num_contexts + 1) * length * (self._mask_token_id + width) / 2**20
        keep = self.context_spec.kind == "class" and size_mb <= self._first_step_mb
        return FirstStep(self._forward, num_contexts, length, self._mask_token_id, self.device, keep_contexts=keep)


def _spread_rows(rows: Tensor, chosen: Tensor, count: int) -> Tensor:
    """`[count, …]` with `rows` at the places `chosen`, ascending, and 0 elsewhere."""
    if len(chosen) == count:
        return rows
    spread = rows.new_zeros(count, *rows.shape[1:])
    spread[chosen] = rows
    return spread


def _merge_rows(base: Tensor, chosen: Tensor, rows: Tensor) -> Tensor:
    """`base` with the rows `chosen` replaced."""
    if len(chosen) == len(base):
        return rows
    if len(chosen) == 0:
        return base
    merged = base.clone()
    merged[chosen] = rows
    return merged
