from __future__ import annotations

import numpy as np
import pytest
import torch

from adanat_rl.config.reward_settings import AdversarialConfig
from adanat_rl.rewards.adversarial import AdversarialReward
from adanat_rl.rewards.base import Requirement, RewardBatch

CONFIG = AdversarialConfig(channels=8, batch_size=32)


def batch(seed: int, count: int = 64, brightness: float = 0.5) -> RewardBatch:
    generator = torch.Generator().manual_seed(seed)
    images = (brightness + 0.2 * torch.randn(count, 1, 8, 8, generator=generator)).clamp(0, 1)
    return RewardBatch(images, torch.arange(count) % 4)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def reward() -> AdversarialReward:
    return AdversarialReward(CONFIG, num_classes=4, seed=1)


def same_state(one: AdversarialReward, other: AdversarialReward) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_scores_are_the_sigmoid_of_the_mean_patch_logit(reward: AdversarialReward) -> None:
    images = batch(0)
    scores = reward.score(images).scores
    with torch.no_grad():
        logits = reward.discriminator(images.images, images.labels).double().numpy()
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits.mean(axis=1))), rtol=1e-5)
    assert scores.shape == (64,)
    assert scores.dtype == torch.float32
    assert ((scores > 0) & (scores < 1)).all()
    assert not scores.requires_grad


def test_scoring_changes_nothing(reward: AdversarialReward) -> None:
    before = reward.state_dict()
    first, again = reward.score(batch(0)).scores, reward.score(batch(0)).scores
    assert torch.equal(first, again)
    after = reward.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_seed_decides_the_first_weights() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (AdversarialReward(CONFIG, 4, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)  # the global generator is left alone
    assert same_state(one, same)
    assert not same_state(one, other)


def test_the_settings_say_how_often_it_is_trained() -> None:
    reward = AdversarialReward(AdversarialConfig(num_updates=7, num_warmup_updates=11), 4, 0)
    assert (reward.num_updates, reward.num_warmup_updates) == (7, 11)
    assert reward.requires == {Requirement.LABELS, Requirement.REAL_IMAGES}


def test_an_update_is_a_pure_function_of_state_and_arguments(reward: AdversarialReward) -> None:
    other = AdversarialReward(CONFIG, 4, 1)
    torch.manual_seed(5)  # must not matter
    metrics = [reward.update(batch(1), batch(2), rng(), 3)]
    torch.manual_seed(6)
    metrics.append(other.update(batch(1), batch(2), rng(), 3))
    assert metrics[0] == metrics[1]
    assert same_state(reward, other)
    assert torch.equal(reward.score(batch(0)).scores, other.score(batch(0)).scores)


def test_another_generator_gives_another_update(reward: AdversarialReward) -> None:
    other = AdversarialReward(CONFIG, 4, 1)
    reward.update(batch(1), batch(2), rng(0), 3)
    other.update(batch(1), batch(2), rng(1), 3)
    assert not same_state(reward, other)


@pytest.mark.parametrize("num_updates_before", [0, 4])
def test_a_loaded_state_goes_on_to_the_same_bits(num_updates_before: int) -> None:
    reward, other = AdversarialReward(CONFIG, 4, 1), AdversarialReward(CONFIG, 4, 99)
    other.update(batch(3), batch(4), rng(3), 2)  # a past of its own, to be forgotten
    if num_updates_before:
        reward.update(batch(1), batch(2), rng(), num_updates_before)
    other.load_state_dict(reward.state_dict())
    assert same_state(reward, other)
    assert torch.equal(reward.score(batch(0)).scores, other.score(batch(0)).scores)
    assert reward.update(batch(1), batch(2), rng(7), 3) == other.update(batch(1), batch(2), rng(7), 3)
    assert same_state(reward, other)


def test_a_state_is_a_flat_dict_of_tensors_that_later_updates_do_not_change(reward: AdversarialReward) -> None:
    reward.update(batch(1), batch(2), rng(), 1)
    state = reward.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    kept = {name: value.clone() for name, value in state.items()}
    reward.update(batch(1), batch(2), rng(), 1)
    assert all(torch.equal(state[name], kept[name]) for name in state)
    other = AdversarialReward(CONFIG, 4, 1)
    other.load_state_dict(state)
    other.update(batch(1), batch(2), rng(), 1)
    assert all(torch.equal(state[name], kept[name]) for name in state)


def test_one_update_is_one_adam_step_on_the_smoothed_cross_entropy() -> None:
    reward, reference = AdversarialReward(CONFIG, 4, 1), AdversarialReward(CONFIG, 4, 1)
    generated, real = batch(1), batch(2, brightness=0.8)
    metrics = reward.update(generated, real, rng(), 1)

    draws = rng()
    fake_rows, real_rows = (torch.from_numpy(draws.integers(0, 64, 32)) for _ in range(2))
    network = reference.discriminator.train()
    real_logit = network(real.images[real_rows], real.labels[real_rows]).mean(dim=1)
    fake_logit = network(generated.images[fake_rows], generated.labels[fake_rows]).mean(dim=1)
    p, q = torch.sigmoid(real_logit), torch.sigmoid(fake_logit)
    loss = -(0.95 * p.log() + 0.05 * (1 - p).log()).mean() - (1 - q).log().mean()
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    for before, after, gradient in zip(
        AdversarialReward(CONFIG, 4, 1).discriminator.parameters(),
        reward.discriminator.parameters(),
        gradients,
        strict=True,
    ):
        step = CONFIG.lr * gradient / (gradient.abs() + 1e-8)  # Adam's first step
        clear = gradient.abs() > 1e-4
        np.testing.assert_allclose((before - after)[clear].detach(), step[clear], rtol=2e-2, atol=1e-6)
    assert metrics["loss"] == pytest.approx(loss.item() / 2, rel=1e-4)
    assert metrics["real_score"] == pytest.approx(p.mean().item(), rel=1e-4)
    assert metrics["generated_score"] == pytest.approx(q.mean().item(), rel=1e-4)


def test_scores_of_real_and_generated_images_come_apart() -> None:
    reward = AdversarialReward(CONFIG, 4, 1)
    real, generated = batch(1, 200, brightness=0.7), batch(2, 200, brightness=0.3)
    metrics = reward.update(generated, real, rng(), 80)
    held_out_real, held_out_fake = batch(3, brightness=0.7), batch(4, brightness=0.3)
    assert reward.score(held_out_real).scores.min() > 0.6
    assert reward.score(held_out_fake).scores.max() < 0.4
    assert metrics["real_score"] > metrics["generated_score"]


def test_scores_depend_on_whether_image_and_label_belong_together() -> None:
    def labelled(seed: int, swapped: bool) -> RewardBatch:
        labels = torch.arange(200) % 2
        shown = 1 - labels if swapped else labels
        noise = 0.1 * torch.randn(200, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
        return RewardBatch((0.3 + 0.4 * shown[:, None, None, None] + noise).clamp(0, 1), labels)

    reward = AdversarialReward(CONFIG, 2, 1)
    reward.update(labelled(1, swapped=True), labelled(2, swapped=False), rng(), 120)
    right, wrong = reward.score(labelled(3, swapped=False)).scores, reward.score(labelled(4, swapped=True)).scores
    assert right.mean() > wrong.mean() + 0.3


def test_no_updates_leave_the_weights_alone(reward: AdversarialReward) -> None:
    before = reward.state_dict()
    reward.update(batch(1), batch(2), rng(), 0)
    after = reward.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_failed_update_leaves_the_model_ready_to_score(reward: AdversarialReward) -> None:
    bad = RewardBatch(batch(2).images, torch.full((64,), 9))
    with pytest.raises(IndexError):
        reward.update(batch(1), bad, rng(), 1)
    first = reward.score(batch(0)).scores
    assert torch.equal(reward.score(batch(0)).scores, first)  # scoring still changes nothing


@pytest.mark.parametrize("loss", ["cross_entropy", "logistic", "hinge"])
def test_micro_batches_give_the_gradients_and_scores_of_the_whole_batch(loss: str) -> None:
    configs = [AdversarialConfig(channels=8, batch_size=32, loss=loss, micro_batch_size=size) for size in (None, 5)]
    whole, parts = (AdversarialReward(config, 4, 1) for config in configs)
    metrics = [reward.update(batch(1), batch(2, brightness=0.8), rng(), 1) for reward in (whole, parts)]
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-5)
    wanted = dict(whole.discriminator.named_parameters())
    for name, parameter in parts.discriminator.named_parameters():
        assert parameter.grad is not None
        assert wanted[name].grad is not None
        torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=1e-3, atol=1e-6)
    for name, value in parts.discriminator.named_buffers():
        assert torch.equal(value, whole.discriminator.get_buffer(name))
    torch.testing.assert_close(parts.score(batch(3)).scores, whole.score(batch(3)).scores, rtol=1e-3, atol=1e-4)


def test_bfloat16_changes_scores_by_its_rounding_alone(digits, digits_generator) -> None:
    batch = RewardBatch(digits.images[:64], digits.labels[:64])
    single, half = (AdversarialReward(AdversarialConfig(precision=name), 10, 0) for name in ("float32", "bfloat16"))
    for model in (single, half):
        metrics = model.update(batch, batch, np.random.default_rng(0), 2)
        assert np.isfinite(metrics["loss"])
    scores = [model.score(batch).scores for model in (single, half)]
    assert {score.dtype for score in scores} == {torch.float32}
    assert not torch.equal(*scores)
    torch.testing.assert_close(*scores, atol=0.02, rtol=0)
    assert all(value.dtype != torch.bfloat16 for value in half.state_dict().values())
