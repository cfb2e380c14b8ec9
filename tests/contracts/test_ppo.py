from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from adanat_rl.config.schema import ExplorationConfig
from adanat_rl.generation.policies.network import PolicyNet
from adanat_rl.rl.exploration import action_std
from adanat_rl.rl.losses import (
    explained_variance,
    gaussian_entropy,
    gaussian_log_prob,
    leash_distance,
    ppo_loss,
    standardise_returns,
)
from tests.contracts.fill import digest, noise
from tests.contracts.parity import ParityModule, fill_network

MODULE = ParityModule("ppo")
WEIGHTS = {"value_coefficient": 0.5, "entropy_coefficient": 0.01}


def given_loss(clip: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    log_prob = MODULE.tensor("given_logp_new").requires_grad_()
    values = MODULE.tensor("given_values").requires_grad_()
    loss = ppo_loss(
        log_prob,
        MODULE.tensor("given_logp_old"),
        MODULE.tensor("given_advantages"),
        values[:, 0],
        MODULE.tensor("given_returns"),
        MODULE.tensor("given_entropy"),
        clip=clip,
        **WEIGHTS,
    )
    return loss.total, log_prob, values


def test_loss_and_gradients_on_given_tensors_are_official() -> None:
    loss, log_prob, values = given_loss(0.2)
    loss.backward()
    MODULE.check("given_loss", loss[None])
    MODULE.check("given_grad_logp", log_prob.grad)
    MODULE.check("given_grad_values", values.grad)
    MODULE.check("given_loss_clip005", given_loss(0.05)[0][None])


class ActorCritic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        settings = MODULE.description["constructor"]
        self.actor = PolicyNet(settings["feat_dim"], settings["action_dim"], settings["hidden"])
        self.critic = PolicyNet(settings["feat_dim"], 1, settings["hidden"])
        description = MODULE.description
        for name in ("actor", "critic"):
            network = getattr(self, name)
            fill_network(network, description["state"], description["seed"], description["overrides"], f"{name}.")

    def losses(self, std: float, suffix: str) -> dict[str, torch.Tensor]:
        features, step = torch.from_numpy(noise("ppo.feat", (8, 256, 64))), MODULE.tensor("net_timestep")
        mean, values = self.actor(features, step), self.critic(features, step)
        all_effective = torch.ones(8, 4, dtype=torch.bool)
        log_prob = gaussian_log_prob(MODULE.tensor("net_actions"), mean, torch.full((4,), std), all_effective)
        entropy = gaussian_entropy(torch.full((4,), std), all_effective)
        loss = ppo_loss(
            log_prob,
            MODULE.tensor(f"net_old_logp{suffix}"),
            MODULE.tensor("net_advantages"),
            values[:, 0],
            MODULE.tensor("net_returns"),
            entropy,
            clip=0.2,
            **WEIGHTS,
        )
        return {"mean": mean, "values": values, "logp": log_prob, "entropy": entropy, "loss": loss.total}


def gradient_norms(network: nn.Module) -> np.ndarray:
    parameters = dict(network.named_parameters())
    return np.array([parameters[name].grad.double().norm() for name in MODULE.description["grad_param_order"]])


@pytest.fixture(scope="module")
def network() -> ActorCritic:
    return ActorCritic()


def test_the_features_are_those_of_the_data() -> None:
    np.testing.assert_array_equal(digest(noise("ppo.feat", (8, 256, 64))), MODULE["net_feat_digest"])


def test_actor_critic_loss_gradients_and_adam_step_are_official() -> None:
    network = ActorCritic()
    found = network.losses(0.6, "")
    for name in ("mean", "values", "logp", "entropy"):
        MODULE.check(f"net_{name}", found[name])
    MODULE.check("net_loss", found["loss"][None])
    found["loss"].backward()
    MODULE.check("net_gradnorm", gradient_norms(network))
    MODULE.check("net_grad_actor_linear3_w", network.actor.linear3.weight.grad[:, :32])
    MODULE.check("net_grad_critic_linear3_b", network.critic.linear3.bias.grad)
    before = network.critic.linear3.bias.detach().clone()
    torch.optim.Adam(network.parameters(), lr=1e-5).step()
    MODULE.check("net_adam_delta_critic_b", network.critic.linear3.bias.detach() - before)
    with torch.no_grad():
        MODULE.check("net_loss_after_step", network.losses(0.6, "")["loss"][None])


def test_a_smaller_std_gives_the_official_densities_and_gradients(network: ActorCritic) -> None:
    network.zero_grad()
    found = network.losses(0.3, "_std03")
    MODULE.check("net_logp_std03", found["logp"])
    MODULE.check("net_entropy_std03", found["entropy"])
    MODULE.check("net_loss_std03", found["loss"][None])
    found["loss"].backward()
    MODULE.check("net_gradnorm_std03", gradient_norms(network))


def test_returns_are_standardised_as_in_the_official_buffer() -> None:
    rewards = MODULE.tensor("buf_final_reward")[..., 0]  # [rollout, B]
    num_rollouts, batch_size = rewards.shape
    horizon = MODULE["buf_returns"].size // rewards.numel()
    ours = standardise_returns(rewards.flatten(), horizon)  # [rollout·B, T]
    in_buffer_order = ours.view(num_rollouts, batch_size, horizon).transpose(1, 2).flatten()
    MODULE.check("buf_standardised", in_buffer_order)
    MODULE.check("buf_advantages", in_buffer_order - MODULE.tensor("buf_values"))
    steps = torch.arange(horizon).expand(num_rollouts, batch_size, horizon).transpose(1, 2).flatten()
    MODULE.check("buf_timestep", steps)


def test_log_density_and_entropy_agree_with_scipy_over_the_effective_entries() -> None:
    from scipy import stats

    rng = np.random.default_rng(0)
    action, mean = rng.normal(size=(2, 6, 4))
    std = np.array([0.3, 0.6, 1.0, 2.0])
    mask = rng.random((6, 4)) < 0.6
    density = (stats.norm.logpdf(action, mean, std) * mask).sum(1)
    entropy = (stats.norm.entropy(scale=std) * mask).sum(1)
    to = torch.from_numpy
    np.testing.assert_allclose(gaussian_log_prob(to(action), to(mean), to(std), to(mask)), density, rtol=1e-12)
    np.testing.assert_allclose(gaussian_entropy(to(std), to(mask)), entropy, rtol=1e-12)


def test_standardised_returns_have_mean_zero_and_unbiased_variance_one() -> None:
    rewards = np.random.default_rng(1).random(32).astype(np.float32)
    returns = standardise_returns(torch.from_numpy(rewards), 4)
    repeated = np.repeat(rewards.astype(np.float64)[:, None], 4, axis=1)
    expected = (repeated - repeated.mean()) / (repeated.std(ddof=1) + 1e-7)
    np.testing.assert_allclose(returns, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reward", [0.0, 0.1, 0.3, 0.7])
def test_equal_rewards_give_returns_of_zero(reward: float) -> None:
    returns = standardise_returns(torch.full((512,), reward), 4)
    assert returns.abs().max() < 1e-3  # rounding of the mean must not be blown up by the tiny spread


def test_diagnostics_of_the_loss_agree_with_numpy() -> None:
    rng = np.random.default_rng(2)
    new, old, advantages, values, returns = rng.normal(size=(5, 50)) * 0.3
    to = torch.from_numpy
    loss = ppo_loss(
        to(new), to(old), to(advantages), to(values), to(returns), torch.ones(50), clip=0.2,
        value_coefficient=0.7, entropy_coefficient=0.1,
    )  # fmt: skip
    ratio = np.exp(new - old)
    policy = -np.minimum(ratio * advantages, np.clip(ratio, 0.8, 1.2) * advantages).mean()
    value = ((values - returns) ** 2).mean()
    assert loss.policy.item() == pytest.approx(policy)
    assert loss.value.item() == pytest.approx(value)
    assert loss.total.item() == pytest.approx(policy + 0.7 * value - 0.1)
    assert loss.approx_kl.item() == pytest.approx((ratio - 1 - (new - old)).mean())
    assert loss.clip_fraction.item() == pytest.approx((np.abs(ratio - 1) > 0.2).mean(), abs=1e-6)


def random_terms() -> list[torch.Tensor]:
    """New and old log-densities, advantages, values, returns, entropy and leash `[50]`, float32."""
    return list(torch.from_numpy((np.random.default_rng(3).normal(size=(7, 50)) * 0.3).astype(np.float32)))


def test_without_a_critic_the_value_loss_is_left_out_and_nothing_else() -> None:
    *terms, _ = random_terms()
    with_critic = ppo_loss(*terms, clip=0.2, value_coefficient=0.0, entropy_coefficient=0.1)
    terms[3] = None
    without = ppo_loss(*terms, clip=0.2, value_coefficient=0.7, entropy_coefficient=0.1)
    assert with_critic.value > 0
    assert without.value == 0
    assert without.total == with_critic.total
    assert without.policy == with_critic.policy


def test_the_leash_is_added_with_its_weight() -> None:
    *terms, leash = random_terms()
    settings = {"clip": 0.2, "value_coefficient": 0.7, "entropy_coefficient": 0.1, "leash_coefficient": 0.3}
    without, held = ppo_loss(*terms, **settings), ppo_loss(*terms, leash, **settings)
    assert without.leash == 0
    assert held.leash == leash.mean()
    assert held.total.item() == pytest.approx(without.total.item() + 0.3 * leash.double().mean().item(), rel=1e-5)


def test_the_kl_leash_is_the_divergence_that_torch_knows_over_the_effective_entries() -> None:
    rng = np.random.default_rng(4)
    mean, base = torch.from_numpy(rng.normal(size=(2, 6, 4)))
    std = torch.tensor([0.3, 0.6, 1.0, 2.0], dtype=torch.float64)
    mask = torch.from_numpy(rng.random((6, 4)) < 0.6)
    normal = torch.distributions.Normal
    divergence = torch.distributions.kl_divergence(normal(mean, std), normal(base, std))
    expected = torch.where(mask, divergence, 0).sum(1)
    torch.testing.assert_close(leash_distance(mean, base, std, mask, "kl"), expected, rtol=1e-12, atol=0)


def test_the_l2_leash_is_the_squared_distance_over_the_effective_entries() -> None:
    rng = np.random.default_rng(5)
    mean, base = rng.normal(size=(2, 6, 4))
    mask = rng.random((6, 4)) < 0.6
    expected = [
        sum(d**2 for d, m in zip(row, use, strict=True) if m) for row, use in zip(mean - base, mask, strict=True)
    ]
    to = torch.from_numpy
    found = leash_distance(to(mean), to(base), torch.tensor(0.1), to(mask), "l2")
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_explained_variance_is_one_for_perfect_and_zero_for_constant_values() -> None:
    returns = torch.tensor([1.0, 2.0, 4.0, 8.0])
    assert explained_variance(returns + 3, returns).item() == pytest.approx(1)
    assert explained_variance(torch.full((4,), 2.0), returns).item() == pytest.approx(0)
    assert explained_variance(-returns, returns).item() == pytest.approx(-3)
    assert explained_variance(returns, torch.ones(4)).item() == 0


@pytest.mark.parametrize(
    ("iteration", "std"), [(1, 0.6), (500, 0.6), (501, 0.3), (1000, 0.3), (1001, 0.1), (9999, 0.1)]
)
def test_action_std_falls_in_steps_to_its_minimum(iteration: int, std: float) -> None:
    assert action_std(ExplorationConfig(), iteration) == pytest.approx(std)


def test_action_std_is_never_raised_to_the_minimum() -> None:
    assert action_std(ExplorationConfig(std=0.05, min_std=0.1), 1) == 0.05
