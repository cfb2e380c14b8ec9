"""The loop that latency is measured against draws the images that the product draws, with 2T + 1 passes for each."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.masked.contexts import ClassLabels
from adanat_rl.generation.masked.sampler import MaskedTokenGenerator
from adanat_rl.generation.masked.schedules import hand_made_schedule, masked_token_decisions
from adanat_rl.generation.masked.uvit import UViTNAT
from adanat_rl.generation.noise import ImageNoise, Stream, gumbel
from adanat_rl.generation.policies.base import ActorPolicy, draw
from adanat_rl.generation.policies.network import PolicyNet
from adanat_rl.generation.seeding import Purpose, seeded
from benchmarks.latency import _teraflops
from benchmarks.plain_sampler import draw_plainly, torch_gumbel
from tests.fakes import CountingNAT

NUM_CLASSES = 10


@pytest.fixture(scope="module")
def actor() -> PolicyNet:
    """A policy whose decisions differ from image to image."""
    with seeded(Purpose.POLICY_WEIGHTS, 3):
        network = PolicyNet(96, 4, hidden_size=64, grid_size=4)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


class Scene:
    """Both samplers around the digits' networks, for T steps."""

    def __init__(self, digits_generator: MaskedTokenGenerator, actor: PolicyNet, horizon: int) -> None:
        space = DecisionSpace(
            masked_token_decisions(0.01, 0.1), hand_made_schedule(horizon, guidance_scale=2), smoothing=0.3
        )
        self.nat = CountingNAT(digits_generator.nat)
        self.nat.grid_size = digits_generator.nat.grid_size
        self.generator = MaskedTokenGenerator(self.nat, digits_generator.tokenizer, space, 2, ClassLabels(NUM_CLASSES))
        self.actor = actor

    def ours(self, context: torch.Tensor) -> torch.Tensor:
        policy = ActorPolicy(self.actor, self.generator.decision_space, 2)
        return draw(self.generator, policy, context, ImageNoise(torch.arange(len(context)))).sample

    def plain(self, context: torch.Tensor) -> torch.Tensor:
        noise = partial(gumbel, ImageNoise(torch.arange(len(context))))
        return draw_plainly(self.nat, NUM_CLASSES, self.actor, self.generator.decision_space, context, noise)


@pytest.mark.parametrize("horizon", [1, 2, 4, 8])
def test_both_loops_draw_the_same_tokens(digits_generator, actor, horizon: int) -> None:
    scene = Scene(digits_generator, actor, horizon)
    context = torch.arange(24) % NUM_CLASSES
    expected, found = scene.ours(context), scene.plain(context)
    assert found.dtype == torch.int64
    assert ((found >= 0) & (found < digits_generator.nat.vocab_size)).all()
    assert (found == expected).float().mean() > 0.99  # kernels of another batch size may turn a close draw around
    assert len({row.numpy().tobytes() for row in found}) > 20


@pytest.mark.parametrize("horizon", [1, 4, 8])
def test_the_plain_loop_takes_two_passes_per_step_and_one_at_the_start(digits_generator, actor, horizon: int) -> None:
    scene = Scene(digits_generator, actor, horizon)
    context = torch.tensor([3, 7, 7])
    scene.plain(context)
    assert scene.nat.num_rows == 3 * (2 * horizon + 1)
    assert scene.nat.rows_of([NUM_CLASSES])[NUM_CLASSES] == 3 * horizon
    scene.ours(context)
    scene.nat.forget()
    scene.ours(context)  # the first step is known by now, and blocks of two rows are full
    rows = 3 * (2 * horizon - 2)
    assert scene.nat.num_rows == rows + rows % 2


def test_torch_gumbel_noise_repeats_for_a_seed_and_is_gumbel() -> None:
    first, again = (torch_gumbel(3, 2, torch.device("cpu")) for _ in range(2))
    values = first(0, Stream.TOKENS, (200, 500))
    assert torch.equal(values, again(0, Stream.TOKENS, (200, 500)))
    assert not torch.equal(values, first(1, Stream.TOKENS, (200, 500)))
    assert values.mean() == pytest.approx(np.euler_gamma, abs=0.01)
    assert values.var() == pytest.approx(np.pi**2 / 6, rel=0.02)


def test_flops_of_a_nat_are_those_counted_by_hand_with_attention() -> None:
    width, depth, length, vocab_size, rows = 16, 2, 16, 6, 3
    nat = UViTNAT(vocab_size, 4, width, depth, num_heads=2, num_classes=5).requires_grad_(False)
    with torch.no_grad():
        found = _teraflops(lambda: nat(torch.zeros(rows, length, dtype=torch.int64), torch.zeros(rows).long()))
    tokens = rows * (length + 1)
    per_block = tokens * width * width * (3 + 1 + 4 + 4) + 2 * rows * (length + 1) ** 2 * width
    skips = depth // 2 * tokens * 2 * width * width
    head = rows * length * width * (width + vocab_size)
    assert found * 1e12 == pytest.approx(2 * ((depth + 1) * per_block + skips + head))
