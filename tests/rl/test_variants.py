"""The learner without a critic and with a leash; micro-batches and features on disk change nothing of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.masked.schedules import hand_made_schedule, masked_token_decisions
from adanat_rl.rl.config import base_actions
from adanat_rl.rl.rl_module import BASE_ACTIONS, EFFECT_MASK, FEATURE_ROWS, STEP
from tests.rl.learners import HORIZON, SHARD_SIZE, SHARDS, assert_equal_to_rounding, gradients, update

ON_DISK = "ppo.features=disk"
BASE = (
    "decisions.base.curve_power=1",
    "decisions.base.confidence_temperature=4.5",
    "decisions.base.sampling_temperature=1",
    "decisions.base.guidance_scale=2",
)
VARIANTS = {
    "group_relative": ("ppo.advantage=group_relative",),
    "leave_one_out": ("ppo.advantage=leave_one_out", "ppo.normalize_advantages=true"),
    "critic_kl": ("ppo.leash=kl", "ppo.leash_coefficient=0.7"),
    "leave_one_out_l2": ("ppo.advantage=leave_one_out", "ppo.leash=l2", "decisions.residual=false"),
}
variants = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())


def batch_of(learner, shards) -> dict[str, torch.Tensor]:
    return learner._learner_connector(
        rl_module=learner.module, batch={}, episodes=shards, shared_data={}, metrics=learner.metrics
    )[DEFAULT_MODULE_ID]


@variants
def test_gradients_of_micro_batches_add_up_for_every_variant(make_learner, shards, variant) -> None:
    whole = gradients(make_learner(*variant), shards, minibatch=50)
    assert len(whole) == 3
    parts = make_learner(*variant, "ppo.micro_batch_size=16", ON_DISK)
    assert_equal_to_rounding(gradients(parts, shards, minibatch=50), whole)


@variants
def test_features_on_disk_give_the_same_bits_for_every_variant(make_learner, shards, variant) -> None:
    in_memory = make_learner(*variant, "ppo.features=recompute", "ppo.micro_batch_size=50")
    on_disk = make_learner(*variant, ON_DISK, "ppo.micro_batch_size=50")
    for learner in (in_memory, on_disk):
        update(learner, shards, num_epochs=2)
    expected, found = in_memory.training_state(), on_disk.training_state()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert np.array_equal(on_disk.last_advantages(), in_memory.last_advantages())


@pytest.mark.parametrize("leash", ["none", "kl", "l2"])
def test_without_a_critic_the_gradient_is_that_of_the_loss_written_down_again(make_learner, shards, leash) -> None:
    settings = (f"ppo.leash={leash}", "ppo.leash_coefficient=0.4", "decisions.residual=false", *BASE)
    learner = make_learner("ppo.advantage=group_relative", *settings, "ppo.micro_batch_size=29", ON_DISK)
    actor, std = learner._unwrapped.actor, learner._unwrapped.action_std
    columns = batch_of(learner, shards)
    mean = actor(learner._feature_file.read(columns[FEATURE_ROWS]), columns[STEP])
    normal = torch.distributions.Normal(mean, std)
    density = normal.log_prob(columns[Columns.ACTIONS]) * columns[EFFECT_MASK]
    ratio = (density.sum(1) - columns[Columns.ACTION_LOGP]).exp()
    advantage = torch.from_numpy(np.concatenate([shard.advantages for shard in shards])).flatten()
    loss = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
    if leash != "none":
        base = torch.cat([pre_activations(make_space())] * SHARDS * SHARD_SIZE)
        distance = (
            (mean - base) ** 2
            if leash == "l2"
            else torch.distributions.kl_divergence(normal, torch.distributions.Normal(base, std))
        )
        loss = loss + 0.4 * (distance * columns[EFFECT_MASK]).sum(1).mean()
    expected = torch.autograd.grad(loss, list(actor.parameters()))
    found = gradients(learner, shards)
    assert_equal_to_rounding(found, [torch.cat([gradient.flatten() for gradient in expected])])


def make_space(residual: bool = True, smoothing: float = 0.0, learned: tuple[str, ...] | None = None) -> DecisionSpace:
    """The space of `BASE`."""
    schedule = hand_made_schedule(HORIZON, "cosine", confidence_temperature=4.5, guidance_scale=2.0)
    return DecisionSpace(masked_token_decisions(0.01, 0.1), schedule, learned, residual=residual, smoothing=smoothing)


def pre_activations(space: DecisionSpace) -> torch.Tensor:
    """`[T, A]` of its base schedule, by the inverse of each activation."""
    schedule = space.base_schedule.double()
    ratio, rest = schedule[:, :1].clamp(0.02, 0.98), schedule[:, 1:].clamp(min=0.1)
    return torch.cat([torch.logit(ratio), torch.log(torch.expm1(rest))], dim=1).float()


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.6])
@pytest.mark.parametrize("learned", [None, ("guidance_scale", "mask_ratio")])
def test_the_leash_holds_on_to_actions_whose_decisions_are_the_base_schedule(residual, smoothing, learned) -> None:
    space = make_space(residual, smoothing, learned)
    actions = base_actions(space)
    assert actions.shape == (HORIZON, space.num_actions)
    assert actions.dtype == torch.float32
    assert bool((actions == 0).all()) == residual
    zero, carry = torch.zeros(1, space.num_actions), None
    reference = make_space(True, 0.0, learned)  # where no action is the base schedule, by definition
    for step in range(HORIZON):
        decision, carry = space.decide(actions[step][None], step, carry)
        torch.testing.assert_close(decision, reference.decide(zero, step)[0], rtol=1e-5, atol=1e-5)


def test_the_leash_is_logged_before_its_weight_and_the_critic_as_absent(make_learner, shards) -> None:
    learner = make_learner("ppo.advantage=leave_one_out", "ppo.leash=l2", "ppo.leash_coefficient=7")
    columns = batch_of(learner, shards)
    mean = learner._unwrapped.actor(columns["features"], columns[STEP]).detach()
    assert (columns[BASE_ACTIONS] == 0).all()
    expected = float(((mean**2) * columns[EFFECT_MASK]).sum(1).mean())
    logged = update(learner, shards)
    assert float(logged["leash"]) == pytest.approx(expected, rel=1e-5)
    assert expected > 1e-3
    assert float(logged["value_loss"]) == 0
    assert float(logged["explained_variance"]) == 0
    assert float(logged["gradient_norm"]) > 0


def test_without_a_leash_its_metric_is_zero_and_its_weight_without_effect(make_learner, shards) -> None:
    plain, weighted = make_learner(), make_learner("ppo.leash_coefficient=100")
    assert float(update(plain, shards)["leash"]) == 0
    update(weighted, shards)
    expected, found = plain.training_state(), weighted.training_state()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("advantage", ["group_relative", "leave_one_out"])
def test_a_critic_that_is_not_learned_keeps_its_weights_and_has_no_place_in_the_optimizer(
    make_learner, shards, advantage: str
) -> None:
    learner = make_learner(f"ppo.advantage={advantage}", "ppo.grad_clip=0.1")
    before = learner.training_state()
    update(learner, shards, num_epochs=3, minibatch=50)
    after = learner.training_state()
    critic = [name for name in before if name.startswith("module.critic.")]
    assert critic
    assert all(torch.equal(after[name], before[name]) for name in critic)
    assert any(not torch.equal(after[name], before[name]) for name in before if name.startswith("module.actor."))
    slots = {name.split(".")[2] for name in after if name.startswith("optimizer.")}
    assert slots == {"actor"}
    other = make_learner(f"ppo.advantage={advantage}")
    other.load_training_state(after)
    assert all(torch.equal(value, after[name]) for name, value in other.training_state().items())


def test_advantages_of_the_shards_are_used_as_they_are_or_standardised(make_learner, shards) -> None:
    given = np.concatenate([shard.advantages for shard in shards])
    plain = make_learner("ppo.advantage=leave_one_out")
    update(plain, shards)
    assert np.array_equal(plain.last_advantages(), given)
    standardised = make_learner("ppo.advantage=leave_one_out", "ppo.normalize_advantages=true")
    update(standardised, shards)
    expected = (given - given.mean()) / given.std(ddof=1)
    np.testing.assert_allclose(standardised.last_advantages(), expected, rtol=1e-4, atol=1e-5)


def test_a_shard_without_advantages_is_refused_by_name(make_learner, shards) -> None:
    learner = make_learner("ppo.advantage=leave_one_out")
    missing, shards[1].advantages = shards[1].advantages, None
    try:
        with pytest.raises(ValueError, match=r"shard \(0, 1, 1\) has no returns or advantages yet"):
            batch_of(learner, shards)
    finally:
        shards[1].advantages = missing
