from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from adanat_rl.generation.masked.sampler import MaskedTokenGenerator
from adanat_rl.generation.masked.schedules import hand_made_schedule
from adanat_rl.generation.noise import ImageNoise, ShardNoise, Stream
from adanat_rl.generation.policies.base import FixedDecisionsPolicy, SchedulePolicy, draw

LENGTH, CODES, MASK, NULL = 16, 128, 128, 10


def slow_draw(generator: MaskedTokenGenerator, context: torch.Tensor, noise, decisions: np.ndarray) -> list[np.ndarray]:
    """Tokens after each step: two full passes per step in float64, image by image and position by position."""
    nat = copy.deepcopy(generator.nat).double()
    batch_size, horizon = decisions.shape[:2]
    tokens = np.full((batch_size, LENGTH), MASK)
    history = []
    for t in range(horizon):
        with torch.no_grad():
            conditional = nat(torch.from_numpy(tokens), context)[0].numpy()
            unconditional = nat(torch.from_numpy(tokens), torch.full_like(context, NULL))[0].numpy()
        g1 = -np.log(noise.exponential(t, Stream.TOKENS, (LENGTH, CODES)).double().numpy())
        g2 = -np.log(noise.exponential(t, Stream.CONFIDENCE, (LENGTH,)).double().numpy())
        following = tokens.copy()
        for b in range(batch_size):
            ratio, confidence_temperature, sampling_temperature, guidance = decisions[b, t].astype(np.float64)
            logits = conditional[b] + guidance * (conditional[b] - unconditional[b])
            log_probability = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
            confidence = np.full(LENGTH, np.inf)
            for position in np.flatnonzero(tokens[b] == MASK):
                code = int(np.argmax(logits[position] / sampling_temperature + g1[b, position]))
                following[b, position] = code
                confidence[position] = log_probability[position, code] + confidence_temperature * g2[b, position]
            if t < horizon - 1:
                cut_off = np.sort(confidence)[min(int(np.floor(np.float32(LENGTH) * np.float32(ratio))), LENGTH - 1)]
                following[b, confidence < cut_off] = MASK
        tokens = following
        history.append(tokens.copy())
    return history


def random_decisions(batch_size: int, horizon: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    decisions = np.stack(
        [
            rng.uniform(0, 1, (batch_size, horizon)),
            rng.uniform(0, 6, (batch_size, horizon)),
            rng.uniform(0.3, 1.5, (batch_size, horizon)),
            rng.uniform(0, 3, (batch_size, horizon)) * (rng.random((batch_size, horizon)) < 0.6),
        ],
        axis=2,
    )
    return decisions.astype(np.float32)


@pytest.mark.parametrize("horizon", [1, 4, 7])
def test_tokens_are_those_of_a_plain_loop_without_any_cache(digits_generator, horizon: int) -> None:
    generator = digits_generator.with_base_schedule(hand_made_schedule(horizon))
    context, seeds = torch.arange(20) % 10, torch.arange(20) * 31 + 5
    decisions = random_decisions(20, horizon)
    drawing = draw(
        generator, FixedDecisionsPolicy(torch.from_numpy(decisions)), context, ImageNoise(seeds), keep_steps=True
    )
    expected = slow_draw(generator, context, ImageNoise(seeds), decisions)
    np.testing.assert_array_equal(drawing.steps, np.stack(expected, axis=1))
    np.testing.assert_array_equal(drawing.sample, expected[-1])
    np.testing.assert_array_equal(drawing.decisions, decisions)
    assert drawing.sample.dtype == torch.int64


def test_tokens_of_shard_noise_are_those_of_a_plain_loop(digits_generator) -> None:
    context, noise = torch.arange(12) % 10, ShardNoise((1, 2, 3), 12)
    schedule = hand_made_schedule(4).astype(np.float32)
    drawing = draw(digits_generator, SchedulePolicy(torch.from_numpy(schedule)), context, noise)
    np.testing.assert_array_equal(
        drawing.sample, slow_draw(digits_generator, context, noise, np.tile(schedule, (12, 1, 1)))[-1]
    )


def test_a_plan_changes_the_cost_but_not_the_tokens(digits_generator) -> None:
    context = torch.arange(20) % 10
    decisions = torch.from_numpy(random_decisions(20, 4))
    states = []
    for plan in (None, decisions):
        state = digits_generator.reset(context, ImageNoise(context + 40), plan)
        for t in range(4):
            state = digits_generator.step(state, decisions[:, t])
        states.append(state)
    assert torch.equal(states[0].tokens, states[1].tokens)
    assert (states[1].num_passes <= states[0].num_passes).all()
    assert states[1].num_passes.sum() < states[0].num_passes.sum()


def test_a_trajectory_starts_all_masked_and_ends_without_masks(digits_generator) -> None:
    context = torch.arange(10)
    state = digits_generator.reset(context, ImageNoise(context))
    assert (state.observation.sample == MASK).all()
    assert state.observation.step == 0
    assert state.num_passes.tolist() == [0] * 10
    known = torch.zeros(10, 16, dtype=torch.bool)
    for t in range(4):
        before = state.observation.sample
        state = digits_generator.step(state, torch.tensor([0.5, 1.0, 1.0, 1.0]).expand(10, -1))
        assert state.observation.step == t + 1
        assert torch.equal(state.observation.sample[known], before[known])  # known tokens stay
        known = state.observation.sample != MASK
    assert known.all()
    assert state.observation.features is None


def test_a_finished_trajectory_takes_no_further_step(digits_generator) -> None:
    context = torch.arange(2)
    state = digits_generator.reset(context, ImageNoise(context))
    decision = torch.tensor([[0.5, 1.0, 1.0, 1.0]]).expand(2, -1)
    for _ in range(4):
        state = digits_generator.step(state, decision)
    with pytest.raises(ValueError, match="complete: step 4 of 4"):
        digits_generator.step(state, decision)


def test_a_step_leaves_the_state_it_started_from_alone(digits_generator) -> None:
    context = torch.arange(4)
    state = digits_generator.reset(context, ImageNoise(context))
    decision = torch.tensor([[0.5, 1.0, 1.0, 1.0]]).expand(4, -1)
    first = digits_generator.step(state, decision)
    again = digits_generator.step(state, decision)
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.num_passes, again.num_passes)
    assert (state.tokens == MASK).all()


def test_the_contract_describes_the_digits(digits_generator) -> None:
    spec = digits_generator.sample_spec
    assert (spec.name, spec.shape, spec.low, spec.high) == ("tokens", (16,), 0, 128)
    assert np.iinfo(spec.storage_dtype).max >= spec.high
    assert digits_generator.context_spec.num_contexts == 10
    assert digits_generator.feature_shape == (16, 96)
    assert digits_generator.image_shape == (1, 8, 8)
    tokens = torch.full((3, 16), MASK)
    assert digits_generator.decode(tokens).shape == (3, 1, 8, 8)


def test_the_network_is_frozen(digits_generator) -> None:
    assert not digits_generator.nat.training
    assert not any(parameter.requires_grad for parameter in digits_generator.nat.parameters())


def test_another_schedule_gives_a_generator_of_its_horizon(digits_generator) -> None:
    other = digits_generator.with_base_schedule(hand_made_schedule(6))
    assert (other.horizon, other.decision_space.horizon, digits_generator.horizon) == (6, 6, 4)
    assert other.nat is digits_generator.nat


def test_a_draw_of_the_largest_uniform_number_does_not_override_the_logits(digits_generator) -> None:
    # Seed 4696 draws 24 ones for position 2, code 120; a cold draw has to follow the logits nevertheless.
    context, seeds = torch.tensor([7]), torch.tensor([4696])
    generator = digits_generator.with_base_schedule(hand_made_schedule(1))
    drawing = draw(generator, SchedulePolicy(torch.tensor([[0.0, 0.0, 0.01, 0.0]])), context, ImageNoise(seeds))
    with torch.no_grad():
        logits, _ = generator.nat(torch.full((1, 16), MASK), context)
    assert drawing.sample[0, 2] == logits[0, 2].argmax()
