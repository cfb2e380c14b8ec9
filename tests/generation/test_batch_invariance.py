"""An image is the same bits alone, in any batch and in any order: the promise that evaluation and rollouts rest on."""

from __future__ import annotations

import pytest
import torch

from adanat_rl.generation.noise import ImageNoise
from adanat_rl.generation.pipeline import GenerationPipeline
from adanat_rl.generation.policies.base import ActorPolicy, FixedDecisionsPolicy, actor_mean, draw
from adanat_rl.generation.policies.network import PolicyNet
from adanat_rl.generation.seeding import seeded

CONTEXT = [index * 7 % 10 for index in range(64)]
SEEDS = [index * 10_007 + 13 for index in range(64)]
BLOCK_ROWS = 64


@pytest.fixture(scope="module")
def actor() -> PolicyNet:
    """A policy network with random weights everywhere, so that decisions differ from image to image."""
    with seeded(5):
        network = PolicyNet(96, 4, hidden_size=64, grid_size=4)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.fixture(scope="module")
def pipeline(digits_generator, actor) -> GenerationPipeline:
    policy = ActorPolicy(actor, digits_generator.decision_space, BLOCK_ROWS)
    return GenerationPipeline(digits_generator, policy)


@pytest.fixture(scope="module")
def together(pipeline):
    return pipeline(CONTEXT, SEEDS)


def assert_same(found, rows: list[int], together) -> None:
    assert (found.tokens == together.tokens[rows]).all()
    assert (found.images == together.images[rows]).all()
    assert (found.decisions.view("int32") == together.decisions[rows].view("int32")).all()
    assert (found.num_passes == together.num_passes[rows]).all()


def test_decisions_differ_between_images_and_guidance_is_on(together) -> None:
    assert (together.decisions.std(axis=0) > 1e-3).all()
    assert (together.decisions[:, :, 3] > 0).all()
    assert len({row.tobytes() for row in together.tokens}) > 60


@pytest.mark.parametrize("row", [0, 1, 17, 40, 63])
def test_an_image_drawn_alone_is_the_same_bits(pipeline, together, row: int) -> None:
    assert_same(pipeline([CONTEXT[row]], [SEEDS[row]]), [row], together)


@pytest.mark.parametrize(
    "rows", [list(range(63, -1, -1)), list(range(1, 64, 2)), [5, 5, 9], list(range(64)) + [3] * 40]
)
def test_images_in_another_order_or_batch_are_the_same_bits(pipeline, together, rows: list[int]) -> None:
    assert_same(pipeline([CONTEXT[row] for row in rows], [SEEDS[row] for row in rows]), rows, together)


@pytest.mark.parametrize("batch_size", [1, 7, 50])
def test_the_pipelines_batch_size_changes_nothing(digits_generator, pipeline, together, batch_size: int) -> None:
    small = GenerationPipeline(digits_generator, pipeline.policy, batch_size=batch_size)
    assert_same(small(CONTEXT[:20], SEEDS[:20]), list(range(20)), together)


def test_recomputed_features_are_the_bits_that_the_state_carried(digits_generator) -> None:
    context, seeds = torch.tensor(CONTEXT), torch.tensor(SEEDS)
    state = digits_generator.reset(context, ImageNoise(seeds))
    for _ in range(4):
        observation = state.observation
        assert torch.equal(digits_generator.features(observation), observation.features)
        for rows in (torch.tensor([9]), torch.arange(63, 20, -1)):
            part = type(observation)(observation.sample[rows], observation.context[rows], observation.step, None)
            assert torch.equal(digits_generator.features(part), observation.features[rows])
        state = digits_generator.step(state, torch.tensor([[0.6, 2.0, 1.0, 1.5]]).expand(64, -1))


def test_an_actors_mean_does_not_depend_on_the_batch(digits_generator, actor) -> None:
    context = torch.tensor(CONTEXT)
    observation = digits_generator.reset(context, ImageNoise(torch.tensor(SEEDS))).observation
    observation = digits_generator.step(
        digits_generator.reset(context, ImageNoise(torch.tensor(SEEDS))),
        torch.tensor([[0.6, 2.0, 1.0, 1.5]]).expand(64, -1),
    ).observation
    together = actor_mean(actor, observation, BLOCK_ROWS)
    for rows in ([3], [63, 0], list(range(40))):
        index = torch.tensor(rows)
        part = type(observation)(
            observation.sample[index], context[index], observation.step, observation.features[index]
        )
        with torch.no_grad():
            assert torch.equal(actor_mean(actor, part, BLOCK_ROWS), together[index])


def test_unguided_batch_mates_do_not_change_a_guided_image(digits_generator) -> None:
    context, seeds = torch.tensor(CONTEXT[:20]), torch.tensor(SEEDS[:20])
    decisions = torch.tensor([0.5, 2.0, 1.0, 1.0]).repeat(20, 4, 1)
    decisions[1::2, :, 3] = 0

    mixed = draw(digits_generator, FixedDecisionsPolicy(decisions), context, ImageNoise(seeds)).sample
    for rows in (torch.arange(0, 20, 2), torch.arange(1, 20, 2)):
        alone = draw(digits_generator, FixedDecisionsPolicy(decisions[rows]), context[rows], ImageNoise(seeds[rows]))
        assert torch.equal(alone.sample, mixed[rows])
