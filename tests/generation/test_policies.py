from __future__ import annotations

import pytest
import torch

from adanat_rl.config.schema import PolicyConfig
from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.generator import Observation
from adanat_rl.generation.masked.contexts import ClassLabels
from adanat_rl.generation.masked.sampler import MaskedTokenGenerator
from adanat_rl.generation.noise import ImageNoise
from adanat_rl.generation.policies.base import (
    ActorPolicy,
    ClassSchedulePolicy,
    FixedDecisionsPolicy,
    SchedulePolicy,
    actor_mean,
    draw,
)
from adanat_rl.generation.policies.build import PolicySpec
from adanat_rl.generation.policies.network import PolicyNet
from adanat_rl.generation.policies.tables import ClassTable, StaticTable

SCHEDULE = torch.arange(12.0).view(3, 4)
CONTEXT = torch.tensor([2, 0, 1, 2])


def observation(step: int) -> Observation:
    return Observation(torch.zeros(4, 16, dtype=torch.int64), CONTEXT, step, torch.zeros(4, 16, 96))


@pytest.mark.parametrize(
    ("policy", "plan"),
    [
        (SchedulePolicy(SCHEDULE), SCHEDULE.expand(4, 3, 4)),
        (
            ClassSchedulePolicy(torch.stack([SCHEDULE, SCHEDULE + 100, SCHEDULE + 200])),
            torch.stack([SCHEDULE + 200, SCHEDULE, SCHEDULE + 100, SCHEDULE + 200]),
        ),
        (FixedDecisionsPolicy(SCHEDULE + CONTEXT[:, None, None]), SCHEDULE + CONTEXT[:, None, None]),
    ],
    ids=["schedule", "per class", "fixed"],
)
def test_a_known_policy_decides_what_it_planned(policy, plan: torch.Tensor) -> None:
    assert torch.equal(policy.plan(CONTEXT), plan)
    for step in range(3):
        decision, carry = policy.decide(observation(step))
        assert torch.equal(decision, plan[:, step])
        assert carry is None


def test_fixed_decisions_follow_the_images_and_other_policies_stay_themselves() -> None:
    decisions = torch.rand(4, 3, 4)
    part = FixedDecisionsPolicy(decisions).for_images(torch.tensor([3, 1]))
    assert torch.equal(part.decisions, decisions[[3, 1]])
    schedule = SchedulePolicy(SCHEDULE)
    assert schedule.for_images(torch.tensor([1])) is schedule


def test_tables_look_up_step_and_class() -> None:
    static, per_class = StaticTable(3, 2), ClassTable(3, 5, 2)
    with torch.no_grad():
        static.table.copy_(torch.arange(6.0).view(3, 2))
        per_class.table.copy_(torch.arange(30.0).view(3, 5, 2))
    step, context = torch.tensor([2, 0]), torch.tensor([4, 1])
    assert static(None, step, context).tolist() == [[4, 5], [0, 1]]
    assert per_class(None, step, context).tolist() == [[28, 29], [2, 3]]


def test_tables_start_at_the_base_schedule(digits_generator) -> None:
    space = digits_generator.decision_space
    for actor in (StaticTable(4, 4), ClassTable(4, 10, 4)):
        drawing = draw(digits_generator, ActorPolicy(actor, space, 8), CONTEXT, ImageNoise(CONTEXT))
        for step in range(4):
            expected = space.decide(torch.zeros(4, 4), step)[0]
            assert torch.equal(drawing.decisions[:, step], expected)


def test_an_actor_needs_features_to_decide() -> None:
    final = Observation(torch.zeros(4, 16, dtype=torch.int64), CONTEXT, 4, None)
    with pytest.raises(ValueError, match="nothing is left to decide at step 4"):
        actor_mean(StaticTable(4, 4), final, 8)


def test_an_actor_with_smoothing_hands_its_carry_on(digits_generator) -> None:
    space = digits_generator.decision_space
    smooth = DecisionSpace(space.decisions, space.base_schedule.numpy(), smoothing=0.5)
    generator = MaskedTokenGenerator(digits_generator.nat, digits_generator.tokenizer, smooth, 64, ClassLabels(10))
    actor = StaticTable(4, 4)
    actions = torch.tensor([[1.0, -1.0, 0.5, 2.0], [0.0] * 4, [-1.0] * 4, [0.3] * 4])
    with torch.no_grad():
        actor.table.copy_(actions)
    drawing = draw(generator, ActorPolicy(actor, smooth, 64), CONTEXT, ImageNoise(CONTEXT))
    carry = None
    for step in range(4):
        decision, carry = smooth.decide(actions[step].expand(4, -1), step, carry)
        assert torch.equal(drawing.decisions[:, step], decision)


@pytest.mark.parametrize("kind", ["adaptive", "per_class", "static"])
def test_a_spec_builds_actor_and_critic_for_a_generator(digits_generator, kind: str) -> None:
    spec = PolicySpec.of(PolicyConfig(kind=kind, hidden_size=16), digits_generator)
    assert PolicySpec(**spec.as_dict()) == spec
    assert spec.needs_features == (kind == "adaptive")
    features, step = torch.randn(3, 16, 96), torch.tensor([0, 3, 1])
    context = torch.tensor([9, 0, 4])
    action, value = spec.build_actor()(features, step, context), spec.build_critic()(features, step, context)
    assert action.shape == (3, 4)
    assert value.shape == (3, 1)
    assert (action == 0).all()  # training starts at the base schedule


def test_an_adaptive_policy_needs_a_square_map_of_features() -> None:
    spec = PolicySpec("adaptive", 16, 4, 10, 4, feature_length=6, feature_width=8)
    with pytest.raises(ValueError, match="square"):
        spec.build_actor()


@pytest.mark.parametrize("grid_size", [1, 3, 4, 7, 16])
def test_the_policy_network_takes_any_grid(grid_size: int) -> None:
    network = PolicyNet(12, 4, hidden_size=8, grid_size=grid_size)
    with torch.no_grad():
        assert torch.equal(network(torch.randn(2, grid_size**2, 12), torch.tensor([0, 1])), torch.zeros(2, 4))
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        features, step = torch.randn(2, grid_size**2, 12), torch.tensor([0, 1])
        assert network(features, step).shape == (2, 4)
        assert not torch.equal(network(features, step), network(features, step + 1))


def test_drawing_keeps_the_sample_after_each_step(digits_generator) -> None:
    policy = SchedulePolicy(digits_generator.decision_space.base_schedule)
    drawing = draw(digits_generator, policy, CONTEXT, ImageNoise(CONTEXT), keep_steps=True)
    assert drawing.steps.shape == (4, 4, 16)
    assert torch.equal(drawing.steps[:, -1], drawing.sample)
    masked = (drawing.steps == 128).sum(dim=2)
    assert (masked.diff(dim=1) <= 0).all()
    assert (masked[:, 0] > 0).all()
    assert draw(digits_generator, policy, CONTEXT, ImageNoise(CONTEXT)).steps is None
