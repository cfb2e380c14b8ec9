from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.generation.blocks import run_in_blocks
from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.masked.contexts import CaptionContexts
from adanat_rl.generation.masked.sampler import MaskedTokenGenerator
from adanat_rl.generation.masked.schedules import hand_made_schedule, masked_token_decisions
from adanat_rl.generation.masked.uvit import UViTNAT
from adanat_rl.generation.masked.vq_tokenizer import VQTokenizer
from adanat_rl.generation.noise import ImageNoise
from adanat_rl.generation.weights import load_network, save_network

SIZES = {"vocab_size": 20, "grid_size": 3, "width": 24, "depth": 4, "num_heads": 3}
CLASS = {**SIZES, "num_classes": 5}
TEXT = {**SIZES, "text_width": 10}
ADANAT_L = {"vocab_size": 1024, "grid_size": 16, "width": 768, "depth": 24, "num_heads": 8, "num_classes": 1000}
CC3M = {"vocab_size": 1024, "grid_size": 16, "width": 1152, "depth": 28, "num_heads": 16, "text_width": 1280}


def build(arguments: dict[str, Any]) -> UViTNAT:
    generator = torch.Generator().manual_seed(0)
    nat = UViTNAT(**arguments).eval()
    with torch.no_grad():
        for parameter in nat.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return nat


def inputs(arguments: dict[str, Any], batch_size: int = 4, text_length: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    length, mask = arguments["grid_size"] ** 2, arguments["vocab_size"]
    tokens = torch.randint(0, mask + 1, (batch_size, length), generator=generator)
    if "num_classes" in arguments:
        return tokens, torch.arange(batch_size) % (arguments["num_classes"] + 1)
    return tokens, torch.randn(batch_size, text_length, arguments["text_width"], generator=generator)


def number_of_parameters(arguments: dict[str, Any]) -> int:
    """Counted by hand: embeddings, blocks, merges of skips, final norm, head."""
    v, width, depth = arguments["vocab_size"], arguments["width"], arguments["depth"]
    tokens = (v + 1 + arguments["grid_size"] ** 2 + 2) * width
    if "num_classes" in arguments:
        context = (arguments["num_classes"] + 1 + 1 + 2) * width
    else:
        context = (arguments["text_width"] + 1) * width
    block = 3 * width**2 + (width + 1) * width + (width + 1) * 4 * width + (4 * width + 1) * width + 4 * width
    skips = depth // 2 * (2 * width + 1) * width
    head = (v + 1) + (width + 1) * width + 2 * width
    return tokens + context + (depth + 1) * block + skips + 2 * width + head


@pytest.mark.parametrize(
    ("arguments", "published"),
    [
        (CLASS, None),
        (TEXT, None),
        (ADANAT_L, 193_655_297),
        ({**ADANAT_L, "grid_size": 32}, 193_655_297 + 768 * 768),
        (CC3M, None),
    ],
)
def test_number_of_parameters_agrees_with_a_count_by_hand(arguments: dict[str, Any], published: int | None) -> None:
    with torch.device("meta"):
        nat = UViTNAT(**arguments)
    found = sum(p.numel() for p in nat.parameters())
    assert found == number_of_parameters(arguments)
    assert published in (None, found)


@pytest.mark.parametrize("grid_size", [1, 2, 5, 32])
@pytest.mark.parametrize("arguments", [CLASS, TEXT])
def test_any_square_grid_has_logits_and_features(arguments: dict[str, Any], grid_size: int) -> None:
    arguments = {**arguments, "grid_size": grid_size}
    logits, features = build(arguments)(*inputs(arguments))
    assert logits.shape == (4, grid_size**2, 20)  # the mask itself is never predicted
    assert features.shape == (4, grid_size**2, 24)
    assert logits.dtype == features.dtype == torch.float32


@pytest.mark.parametrize("arguments", [CLASS, TEXT])
def test_head_gives_the_logits_of_features(arguments: dict[str, Any]) -> None:
    nat = build(arguments)
    logits, features = nat(*inputs(arguments))
    assert torch.equal(nat.head(features), logits)


@pytest.mark.parametrize("arguments", [CLASS, TEXT])
def test_in_blocks_a_row_does_not_depend_on_its_batch_mates(arguments: dict[str, Any]) -> None:
    nat = build(arguments)
    tokens, context = inputs(arguments, batch_size=11)
    together = run_in_blocks(nat, 4, tokens, context)
    for row in range(11):
        alone = run_in_blocks(nat, 4, tokens[row : row + 1], context[row : row + 1])
        assert all(torch.equal(a[0], b[row]) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("arguments", [CLASS, TEXT])
def test_context_and_every_token_have_a_say(arguments: dict[str, Any]) -> None:
    nat = build(arguments)
    tokens, context = inputs(arguments)
    logits, _ = nat(tokens, context)
    assert not torch.allclose(nat(tokens, context.roll(1, 0))[0], logits, atol=1e-3)
    for position in range(9):
        changed = tokens.clone()
        changed[:, position] = (changed[:, position] + 1) % 21
        assert ((nat(changed, context)[0] - logits).abs().amax((1, 2)) > 1e-3).all()


def test_the_null_class_is_the_number_after_the_last() -> None:
    nat = build(CLASS)
    tokens, _ = inputs(CLASS)
    nat(tokens, torch.full((4,), nat.num_classes))
    with pytest.raises(IndexError):
        nat(tokens, torch.full((4,), nat.num_classes + 1))


def test_texts_of_any_length_are_taken_as_a_set() -> None:
    """The official network gives text features no positions of its own: their encoder has done so."""
    nat = build(TEXT)
    for length in (1, 5, 77):
        tokens, text = inputs(TEXT, text_length=length)
        logits, _ = nat(tokens, text)
        torch.testing.assert_close(nat(tokens, text.flip(1))[0], logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arguments", [CLASS, TEXT])
def test_bfloat16_weights_and_autocast_stay_near_float32(arguments: dict[str, Any]) -> None:
    nat, (tokens, context) = build(arguments), inputs(arguments)
    with torch.no_grad():
        exact, exact_features = nat(tokens, context)
        with torch.autocast("cpu", torch.bfloat16):
            mixed, _ = nat(tokens, context)
        low, low_features = nat.to(torch.bfloat16)(tokens, context)
        again = nat.head(exact_features)
    assert low.dtype == low_features.dtype == again.dtype == torch.bfloat16
    for found in (mixed, low, again):
        assert (found.float() - exact).abs().mean() < 0.05 * exact.abs().mean()


@pytest.mark.parametrize("arguments", [CLASS, TEXT])
def test_a_saved_network_comes_back_with_the_same_bits(arguments: dict[str, Any], tmp_path: Path) -> None:
    nat, path = build(arguments), tmp_path / "nat.safetensors"
    save_network(path, "uvit", arguments, nat)
    loaded = load_network(path, {"uvit": UViTNAT})
    assert not loaded.training
    assert all(torch.equal(a, b) for a, b in zip(loaded(*inputs(arguments)), nat(*inputs(arguments)), strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 3}, "depth is 3; accepted: even numbers"),
        ({"depth": 0}, "depth is 0"),
        ({"num_heads": 5}, "num_heads 5 does not divide width 24"),
        ({"text_width": 10}, "num_classes is 5 and text_width 10; give exactly one"),
        ({"num_classes": None}, "num_classes is None and text_width None"),
    ],
)
def test_arguments_that_make_no_network_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        UViTNAT(**{**CLASS, **change})
    path = tmp_path / "nat.safetensors"
    save_network(path, "uvit", {**CLASS, **change}, build(CLASS))
    with pytest.raises(UserError, match=message):
        load_network(path, {"uvit": UViTNAT})


@pytest.mark.parametrize(
    ("arguments", "context", "message"),
    [
        (TEXT, torch.zeros(4, 6, 12), r"takes text embeddings \[B, S, 10\], found \[4, 6, 12\]"),
        (TEXT, torch.zeros(4, dtype=torch.int64), r"takes text embeddings \[B, S, 10\], found \[4\]"),
        (CLASS, torch.zeros(4, 6, 10), r"takes class labels \[B\], found \[4, 6, 10\]"),
        (CLASS, torch.zeros(4), r"takes class labels \[B\], found \[4\] torch.float32"),
    ],
)
def test_a_context_of_another_kind_is_refused(arguments: dict[str, Any], context: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(arguments)(inputs(arguments)[0], context)


def test_tokens_of_another_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="9 tokens per image, found 16"):
        build(CLASS)(torch.zeros(4, 16, dtype=torch.int64), torch.zeros(4, dtype=torch.int64))


class FewCaptions:
    """A table of three captions; its last row is the empty prompt."""

    num_contexts = 3

    def __init__(self) -> None:
        self.rows = torch.randn(4, 6, 10, generator=torch.Generator().manual_seed(2))
        self.read: list[list[int]] = []

    def hidden(self, index: Tensor) -> Tensor:
        self.read.append(index.tolist())
        return self.rows[index]


def text_generator(nat: UViTNAT, captions: FewCaptions, horizon: int = 2, **settings: Any) -> MaskedTokenGenerator:
    space = DecisionSpace(masked_token_decisions(), hand_made_schedule(horizon, guidance_scale=2))
    tokenizer = VQTokenizer(20, 12, code_width=8, base_width=32, width_multipliers=(1, 1, 1))
    contexts = CaptionContexts(captions, torch.device("cpu"), **settings)
    return MaskedTokenGenerator(nat, tokenizer, space, 2, contexts)


@torch.no_grad()
def test_captions_guide_the_sampler_against_the_empty_prompt() -> None:
    captions = FewCaptions()
    nat = build(TEXT)
    generator = text_generator(nat, captions)
    context = torch.tensor([2, 0])
    state = generator.reset(context, ImageNoise(context))
    masks = torch.full((2, 9), 20)
    torch.testing.assert_close(state.conditional, nat(masks, captions.rows[[2, 0]])[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state.unconditional, nat(masks, captions.rows[[3, 3]])[0], rtol=1e-5, atol=1e-5)
    for _ in range(2):
        state = generator.step(state, torch.tensor([[0.5, 1.0, 1.0, 2.0]] * 2))
    assert state.num_passes.tolist() == [3, 3]  # 2T - 1
    assert state.tokens.max() < 20
    np.testing.assert_array_equal(generator.decode(state.tokens).shape, (2, 3, 12, 12))


def test_a_drawing_reads_its_captions_once() -> None:
    captions = FewCaptions()
    generator = text_generator(build(TEXT), captions, horizon=4)
    context = torch.tensor([2, 0, 2, 0, 0])
    generator.reset(context, ImageNoise(context))  # keeps the null context's first step
    captions.read.clear()
    drawn(generator, context)
    assert sorted(captions.read) == [[0, 2, 3], [3]], "the rows once, and the null one to know their size"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_held_captions_give_the_bits_of_those_read_block_by_block(dtype: torch.dtype) -> None:
    context = torch.tensor([2, 0, 1, 0, 2, 1, 1])
    captions = FewCaptions()
    block_wise = CaptionContexts(captions, torch.device("cpu"), dtype, held_mb=0)
    assert block_wise.held(context) is block_wise
    held = CaptionContexts(captions, torch.device("cpu"), dtype).held(context)
    wanted = torch.tensor([3, 1, 1, 0, 3])
    assert torch.equal(held(wanted), block_wise(wanted))
    assert torch.equal(held(wanted).float(), captions.rows[wanted].to(dtype).float())
    nat = build(TEXT)
    with_held, without = (drawn(text_generator(nat, captions, horizon=4, held_mb=size), context) for size in (1, 0))
    for one, other in zip(with_held, without, strict=True):
        assert torch.equal(one, other)


def drawn(generator: MaskedTokenGenerator, context: Tensor) -> list[Tensor]:
    """Tokens, logits and features of all steps; half of the images ask for guidance after it was ruled out."""
    plan = torch.tensor([0.5, 1.0, 1.0, 2.0]).repeat(len(context), generator.horizon, 1)
    plan[::2, 1, 3] = 0
    state = generator.reset(context, ImageNoise(torch.arange(len(context))), plan)
    found: list[Tensor] = []
    for _ in range(generator.horizon):
        found += [state.tokens, state.conditional, state.unconditional, state.features]
        state = generator.step(state, torch.tensor([[0.5, 1.0, 1.0, 2.0]] * len(context)))
    return [*found, state.tokens]
