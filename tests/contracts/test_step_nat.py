"""The sampler over a small U-ViT with the stored noise: once as the official loop calls the network, once as the
generator does.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.masked.contexts import ClassLabels
from adanat_rl.generation.masked.sampler import MaskedTokenGenerator, MaskedTokenState
from adanat_rl.generation.masked.schedules import hand_made_schedule, masked_token_decisions
from adanat_rl.generation.masked.step_rule import draw_tokens, guided_logits, remask
from adanat_rl.generation.masked.uvit import UViTNAT
from adanat_rl.generation.masked.vq_tokenizer import VQTokenizer
from adanat_rl.generation.noise import Stream
from tests.contracts.parity import ParityModule, fill_network

MODULE = ParityModule("step_nat_small")
NUM_STEPS, NULL, MASK = 3, 10, 32
CONTEXTS = MODULE.tensor("contexts")[:, 0]
DECISIONS = MODULE.tensor("params").transpose(1, 2)  # [step, B, 4]


@pytest.fixture(scope="module")
def nat() -> UViTNAT:
    description = MODULE.description
    official = description["constructor"]
    network = UViTNAT(
        vocab_size=official["codebook_size"],
        grid_size=official["img_size"],
        width=official["embed_dim"],
        depth=official["depth"],
        num_heads=official["num_heads"],
        num_classes=official["num_classes"] - 1,
    )
    rows = ParityModule("nat_class_small").description["state"]
    fill_network(network, rows, description["seed"], description["overrides"])
    return network


class StoredNoise:
    """The stored Gumbel draws, as the exponential ones that the sampler asks for."""

    def exponential(self, step: int, stream: Stream, shape: tuple[int, ...]) -> Tensor:
        draws = MODULE[{Stream.TOKENS: "g1", Stream.CONFIDENCE: "g2"}[stream]][step]
        assert draws.shape[1:] == shape
        return torch.from_numpy(np.exp(-draws.astype(np.float64)).astype(np.float32))


def generator(nat: UViTNAT, horizon: int, block_rows: int = 3) -> MaskedTokenGenerator:
    space = DecisionSpace(masked_token_decisions(), hand_made_schedule(horizon))
    tokenizer = VQTokenizer(MASK, image_size=16, code_width=32, base_width=32, width_multipliers=(1, 1, 1))
    return MaskedTokenGenerator(nat, tokenizer, space, block_rows, ClassLabels(NULL))


def check_states(sampler: MaskedTokenGenerator, noise: StoredNoise, decisions: Tensor) -> MaskedTokenState:
    """Compares every state on the way and returns the last one."""
    state = sampler.reset(CONTEXTS, noise)
    MODULE.check("reset_logits", state.conditional)
    for step in range(NUM_STEPS):
        state = sampler.step(state, decisions[step])
        MODULE.check(f"masked_{step}", state.tokens)
        MODULE.check(f"logits_{step}", state.conditional)
    return state


@torch.no_grad()
def test_the_official_loop_over_our_network_and_step_rule_gives_every_stored_output(nat: UViTNAT) -> None:
    found: dict[str, Tensor | int] = {"nat_forwards": 0}

    def forward(tokens: Tensor, context: Tensor) -> Tensor:
        found["nat_forwards"] += 1
        return nat(tokens, context)[0]

    tokens = torch.full((len(CONTEXTS), 16), MASK)
    logits = found["reset_logits"] = forward(tokens, CONTEXTS)
    for step in range(NUM_STEPS):
        ratio, confidence_temperature, sampling_temperature, guidance_scale = DECISIONS[step].unbind(1)
        guided = guided_logits(logits, forward(tokens, torch.full_like(CONTEXTS, NULL)), guidance_scale)
        drawn = draw_tokens(guided, tokens, MASK, sampling_temperature, MODULE.tensor("g1")[step])
        tokens = remask(guided, tokens, drawn, MASK, ratio, confidence_temperature, MODULE.tensor("g2")[step])
        logits = forward(tokens, CONTEXTS)
        found |= {f"sampled_{step}": drawn, f"masked_{step}": tokens, f"logits_{step}": logits}
    for name, values in found.items():
        MODULE.check(name, values)
    assert set(found) == MODULE.outputs()
    assert MODULE["margin_gap"].min() > 5e-4  # so no id is a matter of rounding


@pytest.mark.parametrize("block_rows", [1, 4, 64])
def test_the_generator_passes_through_the_stored_states(nat: UViTNAT, block_rows: int) -> None:
    state = check_states(generator(nat, NUM_STEPS + 1, block_rows), StoredNoise(), DECISIONS)
    assert state.num_passes.tolist() == [int(MODULE["nat_forwards"]) - 1] * 3  # the first step is kept


@pytest.mark.parametrize("last", range(NUM_STEPS))
def test_the_generator_ends_with_the_stored_draw_of_its_last_step(nat: UViTNAT, last: int) -> None:
    sampler = generator(nat, last + 1)
    state = sampler.reset(CONTEXTS, StoredNoise())
    for step in range(last + 1):
        state = sampler.step(state, DECISIONS[step])
    MODULE.check(f"sampled_{last}", state.tokens)
    assert state.num_passes.tolist() == [2 * last] * 3  # 2T - 2, where the official loop takes 2T + 1


@pytest.mark.parametrize("wrong", ["null context", "order of decisions", "noise"])
def test_a_mistake_is_noticed(nat: UViTNAT, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decisions = DECISIONS[:, :, [0, 2, 1, 3]] if wrong == "order of decisions" else DECISIONS
    noise = StoredNoise()
    if wrong == "noise":
        monkeypatch.setattr(noise, "exponential", lambda step, stream, shape: torch.ones(3, *shape))
    sampler = generator(nat, NUM_STEPS + 1)
    if wrong == "null context":
        sampler = MaskedTokenGenerator(nat, sampler.tokenizer, sampler.decision_space, 3, ClassLabels(NULL - 1))
    with pytest.raises(AssertionError, match="masked_"):
        check_states(sampler, noise, decisions)
