"""NAT passes against an independent count: with blocks of one row nothing is filled up, so rows are passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.masked.contexts import ClassLabels
from adanat_rl.generation.masked.sampler import MaskedTokenGenerator
from adanat_rl.generation.masked.schedules import DECISION_NAMES, hand_made_schedule, masked_token_decisions
from adanat_rl.generation.noise import ImageNoise
from adanat_rl.generation.policies.base import ActorPolicy, FixedDecisionsPolicy, GenerationPolicy, SchedulePolicy, draw
from adanat_rl.generation.policies.tables import StaticTable
from tests.fakes import CountingNAT

NULL = 10


class Scene:
    def __init__(
        self, digits_generator: MaskedTokenGenerator, schedule: np.ndarray, learned=None, **cutoffs: float
    ) -> None:
        space = DecisionSpace(masked_token_decisions(0.01, 0.1, **cutoffs), schedule, learned)
        self.nat = CountingNAT(digits_generator.nat)
        self.generator = MaskedTokenGenerator(self.nat, digits_generator.tokenizer, space, 1, ClassLabels(10))

    def passes(self, policy: GenerationPolicy, context: torch.Tensor) -> list[int]:
        """Passes that the generator reports, after checking them against the rows that the NAT saw."""
        self.generator.reset(context, ImageNoise(context))  # fills the cache of the first step
        self.nat.forget()
        drawing = draw(self.generator, policy, context, ImageNoise(context + 3))
        assert drawing.num_passes.dtype == torch.int64
        assert self.nat.num_rows == drawing.num_passes.sum()
        return drawing.num_passes.tolist()


def guided(horizon: int) -> np.ndarray:
    return hand_made_schedule(horizon, guidance_scale=2)


def unguided(horizon: int) -> np.ndarray:
    return hand_made_schedule(horizon, guidance_scale=0)


def schedule_policy(schedule: np.ndarray) -> SchedulePolicy:
    return SchedulePolicy(torch.from_numpy(schedule).float())


@pytest.mark.parametrize("horizon", [1, 2, 4, 8])
def test_a_guided_image_takes_two_passes_per_step_but_none_for_the_first(digits_generator, horizon: int) -> None:
    scene = Scene(digits_generator, guided(horizon))
    assert scene.passes(schedule_policy(guided(horizon)), torch.arange(5)) == [2 * horizon - 2] * 5
    assert scene.nat.rows_of([NULL])[NULL] == 5 * (horizon - 1)


@pytest.mark.parametrize("horizon", [1, 2, 4, 8])
def test_an_unguided_image_takes_one_pass_per_step_but_none_for_the_first(digits_generator, horizon: int) -> None:
    scene = Scene(digits_generator, guided(horizon))
    assert scene.passes(schedule_policy(unguided(horizon)), torch.arange(5)) == [horizon - 1] * 5
    assert scene.nat.rows_of([NULL])[NULL] == 0


def test_the_first_step_of_a_class_is_computed_once(digits_generator) -> None:
    scene = Scene(digits_generator, guided(4))
    context = torch.tensor([3, 3, 7])
    for _ in range(3):
        scene.generator.reset(context, ImageNoise(context))
    assert sorted(label for rows in scene.nat.rows_by_call for label in rows) == [3, 7, NULL]
    assert all((tokens == 128).all() for tokens in scene.nat.tokens_seen)


def test_in_a_mixed_batch_every_image_pays_for_its_own_guidance(digits_generator) -> None:
    scene = Scene(digits_generator, guided(4))
    decisions = torch.from_numpy(np.tile(guided(4), (4, 1, 1))).float()
    decisions[1, :, 3] = 0
    decisions[2, 1:3, 3] = 0
    decisions[3, :3, 3] = 0
    passes = scene.passes(FixedDecisionsPolicy(decisions), torch.tensor([1, 2, 3, 4]))
    assert passes == [6, 3, 4, 4]
    assert scene.nat.rows_of([NULL])[NULL] == 3 + 0 + 1 + 1


def test_learned_guidance_may_be_wanted_in_every_step(digits_generator) -> None:
    scene = Scene(digits_generator, unguided(4))
    actor = ActorPolicy(StaticTable(4, 4), scene.generator.decision_space, 1)
    assert scene.passes(actor, torch.arange(3)) == [6, 6, 6]


def test_guidance_that_is_fixed_at_zero_costs_nothing(digits_generator) -> None:
    scene = Scene(digits_generator, unguided(4), learned=DECISION_NAMES[:3])
    actor = ActorPolicy(StaticTable(4, 3), scene.generator.decision_space, 1)
    assert scene.passes(actor, torch.arange(3)) == [3, 3, 3]


def test_fixed_guidance_costs_only_where_it_is_not_zero(digits_generator) -> None:
    schedule = guided(4)
    schedule[2, 3] = 0
    scene = Scene(digits_generator, schedule, learned=["mask_ratio"])
    actor = ActorPolicy(StaticTable(4, 1), scene.generator.decision_space, 1)
    assert scene.passes(actor, torch.arange(3)) == [5, 5, 5]


class ChangedMind:
    """Announces decisions without guidance, then guides the even images in step 2 after all."""

    def __init__(self, announced: torch.Tensor) -> None:
        self.announced = announced
        self.wanted = announced.clone()
        self.wanted[::2, 2, 3] = 1.5

    def plan(self, context):
        return self.announced

    def decide(self, observation, carry=None):
        return self.wanted[:, observation.step], None

    def for_images(self, rows):
        return self


def test_guidance_that_the_plan_ruled_out_is_made_up_for(digits_generator) -> None:
    scene = Scene(digits_generator, guided(4))
    policy = ChangedMind(torch.from_numpy(np.tile(unguided(4), (5, 1, 1))).float())
    context = torch.arange(5)
    assert scene.passes(policy, context) == [4, 3, 4, 3, 4]
    without_plan = FixedDecisionsPolicy(policy.wanted)
    without_plan.plan = lambda context: None
    late = draw(scene.generator, policy, context, ImageNoise(context))
    assert torch.equal(late.sample, draw(scene.generator, without_plan, context, ImageNoise(context)).sample)


def test_blocks_are_of_one_size_and_as_few_as_possible(digits_generator) -> None:
    space = digits_generator.decision_space
    nat = CountingNAT(digits_generator.nat)
    generator = MaskedTokenGenerator(nat, digits_generator.tokenizer, space, 64, ClassLabels(10))
    context = torch.arange(100) % 10
    draw(generator, schedule_policy(guided(4)), context, ImageNoise(context))
    assert {len(rows) for rows in nat.rows_by_call} == {64}
    assert len(nat.rows_by_call) == 1 + 3 * 4  # first step; then 200 rows, four blocks, three times


class Deciding:
    """Decisions that nobody knows beforehand, as those of a policy that looks at the images."""

    def __init__(self, decisions: torch.Tensor) -> None:
        self.decisions = decisions

    def plan(self, context: torch.Tensor) -> None:
        return

    def decide(self, observation, carry=None) -> tuple[torch.Tensor, None]:
        return self.decisions[:, observation.step], None


def mixed_decisions() -> torch.Tensor:
    """Of four images: always guided; never; guided in the last step alone; finished by the second step."""
    decisions = torch.from_numpy(np.tile(guided(4), (4, 1, 1))).float()
    decisions[1, :, 3] = 0
    decisions[2, 1:3, 3] = 0
    decisions[3, 1, 0] = 0
    return decisions


def test_a_scale_that_may_turn_out_to_be_zero_waits_for_the_decision_and_saves_its_pass(digits_generator) -> None:
    scene = Scene(digits_generator, guided(4), guidance_cutoff=0.1)
    assert scene.passes(Deciding(mixed_decisions()), torch.tensor([1, 2, 3, 4])) == [6, 3, 4, 6]


def test_a_finished_image_takes_no_pass_where_the_policy_may_stop(digits_generator) -> None:
    scene = Scene(digits_generator, guided(4), guidance_cutoff=0.1, mask_ratio_cutoff=0.05)
    assert scene.passes(Deciding(mixed_decisions()), torch.tensor([1, 2, 3, 4])) == [6, 3, 4, 2]
    planned = Scene(digits_generator, guided(4), mask_ratio_cutoff=0.05)
    assert planned.passes(FixedDecisionsPolicy(mixed_decisions()), torch.tensor([1, 2, 3, 4])) == [6, 3, 4, 2]


def test_all_may_finish_at_once(digits_generator) -> None:
    scene = Scene(digits_generator, guided(4), guidance_cutoff=0.1, mask_ratio_cutoff=0.05)
    decisions = mixed_decisions()
    decisions[:, 0, 0] = 0
    assert scene.passes(Deciding(decisions), torch.tensor([1, 2, 3, 4])) == [0, 0, 0, 0]


@pytest.mark.parametrize("may_stop", [False, True])
def test_what_is_saved_changes_no_bit_of_an_image(digits_generator, may_stop: bool) -> None:
    context = torch.tensor([1, 2, 3, 4])
    cutoffs = {"guidance_cutoff": 0.1, "mask_ratio_cutoff": 0.05 if may_stop else 0.0}
    saving = Scene(digits_generator, guided(4), **cutoffs).generator
    plain = Scene(digits_generator, guided(4)).generator
    drawn = draw(saving, Deciding(mixed_decisions()), context, ImageNoise(context))
    expected = draw(plain, Deciding(mixed_decisions()), context, ImageNoise(context))
    assert torch.equal(drawn.sample, expected.sample)
    alone = draw(saving, Deciding(mixed_decisions()[3:]), context[3:], ImageNoise(context[3:]))
    assert torch.equal(alone.sample[0], drawn.sample[3])
    assert alone.num_passes[0] == drawn.num_passes[3]


def test_features_of_finished_images_are_zero_and_the_same_when_computed_again(digits_generator) -> None:
    generator = Scene(digits_generator, guided(4), mask_ratio_cutoff=0.05).generator
    context = torch.tensor([1, 2, 3, 4])
    state = generator.reset(context, ImageNoise(context))
    for step in range(3):
        state = generator.step(state, mixed_decisions()[:, step])
        features = state.observation.features
        finished = torch.tensor([False, False, False, step > 0])
        assert torch.equal(generator.is_finished(state.observation.sample), finished)
        assert torch.equal((features == 0).all(dim=(1, 2)), finished)
        assert torch.equal(features, generator.features(state.observation))
