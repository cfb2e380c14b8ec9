from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from adanat_rl.config.errors import UserError
from adanat_rl.config.reward_settings import AdversarialConfig
from adanat_rl.generation.weights import save_network
from adanat_rl.metrics.clip_pixels import IMAGENET_MEAN, IMAGENET_STD
from adanat_rl.rewards.adversarial import AdversarialReward
from adanat_rl.rewards.base import RewardBatch
from adanat_rl.rewards.projected import logits as projected_logits
from adanat_rl.rewards.projected.dino import (
    DinoFeatures,
    Window,
    dino_pixels,
    draw_window,
    load_dino,
)
from adanat_rl.rewards.projected.discriminator import DISCRIMINATOR_KIND, ProjectedDiscriminator
from adanat_rl.rewards.projected.head import local_groups
from tests.rewards.tiny_dino import NUM_CLASSES, SIZE, tiny_config, tiny_images, write_tiny_dino


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_dino(tmp_path_factory.mktemp("dino") / "dino.safetensors")


def build(features: Path, seed: int = 1, **changes: Any) -> AdversarialReward:
    return AdversarialReward(tiny_config(features, **changes), NUM_CLASSES, seed)


def trained(features: Path, **changes: Any) -> AdversarialReward:
    reward = build(features, **changes)
    reward.update(tiny_images(1), tiny_images(2, brightness=0.6), rng(), 2)
    return reward


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def rows(batch: RewardBatch, *index: int) -> RewardBatch:
    return batch.rows(torch.tensor(index))


def same_state(one: AdversarialReward, other: AdversarialReward) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def logits_by_hand(
    reward: AdversarialReward, eyes: DinoFeatures, batch: RewardBatch, window: Window | None, groups: list[int] | None
) -> torch.Tensor:
    with torch.no_grad():
        return reward.discriminator(eyes(dino_pixels(batch.images, SIZE, window)), batch.labels, groups)


# Scores


def test_the_score_of_an_image_does_not_depend_on_its_batch_mates(features: Path) -> None:
    reward, batch = trained(features), tiny_images(5)
    together = reward.score(batch).scores
    assert torch.equal(reward.score(rows(batch, 3)).scores, together[[3]])
    assert torch.equal(reward.score(rows(batch, 17, 3, 4)).scores, together[[17, 3, 4]])
    assert len(set(together.tolist())) == len(batch)


def test_official_scores_do_depend_on_batch_mates(features: Path) -> None:
    reward, batch = trained(features, scoring="official"), tiny_images(5, size=SIZE)
    together = reward.score(batch).scores
    with_others = reward.score(rows(batch, 3, *range(10, 17))).scores
    assert (with_others[0] - together[3]).abs() > 1e-4


def test_independent_scores_are_those_of_whole_images_in_virtual_groups(features: Path) -> None:
    reward, eyes = trained(features), load_dino(features)
    batch = tiny_images(5)
    logits = logits_by_hand(reward, eyes, batch, None, None).double().numpy()
    scores = reward.score(batch).scores
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits.mean(axis=1))), rtol=1e-4)
    assert scores.dtype == torch.float32
    assert not scores.requires_grad


def test_official_scores_crop_some_batches_and_take_groups(features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Window | None] = []

    def recorded(*args: Any) -> Window | None:
        drawn.append(draw_window(*args))
        return drawn[-1]

    monkeypatch.setattr(projected_logits, "draw_window", recorded)
    reward, eyes = trained(features, scoring="official"), load_dino(features)
    drawn.clear()
    for seed in range(12):
        batch = tiny_images(seed, count=13)
        scores = reward.score(batch).scores
        by_hand = torch.sigmoid(logits_by_hand(reward, eyes, batch, drawn[-1], [7, 6]).mean(dim=1))
        torch.testing.assert_close(scores, by_hand, rtol=1e-4, atol=1e-6)
        assert torch.equal(reward.score(batch).scores, scores)  # the coin is thrown by the batch itself
    assert len(drawn) == 24
    assert 0 < sum(window is None for window in drawn) < 24


@pytest.mark.parametrize("scoring", ["independent", "official"])
def test_scoring_changes_nothing_and_draws_nothing(features: Path, scoring: str) -> None:
    reward = trained(features, scoring=scoring)
    before, state = torch.random.get_rng_state(), reward.state_dict()
    reward.score(tiny_images(5))
    assert torch.equal(torch.random.get_rng_state(), before)
    after = reward.state_dict()
    assert all(torch.equal(state[name], after[name]) for name in state)


def test_a_virtual_group_stands_for_groups_with_random_mates(features: Path) -> None:
    reward, eyes = trained(features, batch_size=120), load_dino(features)
    batch, crowd = tiny_images(7, count=6), tiny_images(1)  # mates are generated images
    virtual = logits_by_hand(reward, eyes, batch, None, None).mean(dim=1)
    draws, official = rng(1), []
    for _ in range(60):
        mates = crowd.rows(torch.from_numpy(draws.integers(0, 30, 7)))
        for number in range(6):
            group = RewardBatch(
                torch.cat([batch.images[number : number + 1], mates.images]),
                torch.cat([batch.labels[number : number + 1], mates.labels]),
            )
            official.append(logits_by_hand(reward, eyes, group, None, [8])[0].mean())
    expected = torch.stack(official).view(60, 6).mean(dim=0)
    for name, value in reward.discriminator.state_dict().items():
        if name.endswith("mate_share"):
            assert value == 7 / 8
            value.zero_()
    alone = logits_by_hand(reward, eyes, batch, None, None).mean(dim=1)
    assert (virtual - expected).abs().mean() < 0.5 * (alone - expected).abs().mean()


def test_grey_images_are_scored_like_their_three_equal_channels(features: Path) -> None:
    reward, grey = trained(features), tiny_images(5).images[:, :1]
    labels = tiny_images(5).labels
    scores = reward.score(RewardBatch(grey, labels)).scores
    assert torch.equal(scores, reward.score(RewardBatch(grey.expand(-1, 3, -1, -1), labels)).scores)
    with pytest.raises(ValueError, match=r"images of shape \[8, 2, 40, 40\]"):
        reward.score(RewardBatch(torch.zeros(30, 2, 40, 40), labels))


# Updates


@pytest.mark.parametrize("count", [1, 7, 9, 13])
@pytest.mark.parametrize("scoring", ["independent", "official"])
def test_any_number_of_images_is_trained_on_and_scored(features: Path, count: int, scoring: str) -> None:
    reward = build(features, batch_size=count, scoring=scoring)
    before = reward.state_dict()
    metrics = reward.update(tiny_images(1), tiny_images(2), rng(), 1)
    scores = reward.score(tiny_images(3, count=count)).scores
    assert scores.shape == (count,)
    assert ((scores > 0) & (scores < 1)).all()
    assert all(math.isfinite(value) for value in metrics.values())
    assert not torch.equal(
        before["discriminator.heads.0.cls.weight_orig"], reward.state_dict()["discriminator.heads.0.cls.weight_orig"]
    )


@pytest.mark.parametrize("micro_batch_size", [8, 16])
def test_micro_batches_give_the_gradients_of_the_whole_batch(features: Path, micro_batch_size: int) -> None:
    for loss in ("cross_entropy", "logistic", "hinge"):
        batch_size = 29  # groups of 8, 7, 7 and 7 images
        one = build(features, loss=loss, batch_size=batch_size, micro_batch_size=None)
        other = build(features, loss=loss, batch_size=batch_size, micro_batch_size=micro_batch_size)
        arguments = (tiny_images(1), tiny_images(2, brightness=0.7))
        metrics = one.update(*arguments, rng(), 1), other.update(*arguments, rng(), 1)
        assert metrics[0] == pytest.approx(metrics[1], rel=1e-5)
        parameters = dict(one.discriminator.named_parameters())
        for name, parameter in other.discriminator.named_parameters():
            assert parameter.grad is not None
            assert parameters[name].grad is not None
            torch.testing.assert_close(parameter.grad, parameters[name].grad, rtol=1e-3, atol=2e-6)
        for name, value in other.discriminator.named_buffers():
            if "weight_" in name:
                assert torch.equal(value, one.discriminator.get_buffer(name))
        batch = tiny_images(5)
        torch.testing.assert_close(one.score(batch).scores, other.score(batch).scores, rtol=1e-3, atol=1e-4)


def test_no_more_than_a_micro_batch_is_in_memory(features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    forward = DinoFeatures.forward

    def recorded(self: DinoFeatures, pixels: torch.Tensor) -> list[torch.Tensor]:
        seen.append(len(pixels))
        return forward(self, pixels)

    monkeypatch.setattr(DinoFeatures, "forward", recorded)
    for scoring in ("independent", "official"):
        reward = build(features, scoring=scoring, batch_size=29, micro_batch_size=16)
        reward.update(tiny_images(1), tiny_images(2), rng(), 2)
        reward.score(tiny_images(3))
    assert max(seen) <= 16


def test_dino_is_neither_trained_nor_kept(features: Path) -> None:
    eyes = load_dino(features)
    before = {name: value.clone() for name, value in eyes.state_dict().items()}
    reward = trained(features)
    assert all(not value.requires_grad and value.grad is None for value in eyes.parameters())
    assert all(torch.equal(value, before[name]) for name, value in eyes.state_dict().items())
    assert not eyes.training
    kept = {name.split(".")[1] for name in reward.state_dict() if name.startswith("discriminator.")}
    assert kept == {"mapping", "heads"}
    slots = [name for name in reward.state_dict() if name.startswith("optimizer.exp_avg.")]
    assert len(slots) == len(list(reward.discriminator.parameters()))
    assert eyes is load_dino(features)  # one copy for all of the process


def test_an_update_is_a_pure_function_of_state_and_arguments(features: Path) -> None:
    one, same, other = build(features), build(features), build(features)
    before = torch.random.get_rng_state()
    metrics = [reward.update(tiny_images(1), tiny_images(2), rng(), 2) for reward in (one, same)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert metrics[0] == metrics[1]
    assert same_state(one, same)
    other.update(tiny_images(1), tiny_images(2), rng(1), 2)
    assert not same_state(one, other)


def test_a_loaded_state_goes_on_to_the_same_bits(features: Path) -> None:
    reward, other = trained(features), build(features, seed=9)
    other.load_state_dict(reward.state_dict())
    batch = tiny_images(5)
    assert torch.equal(reward.score(batch).scores, other.score(batch).scores)
    assert reward.update(tiny_images(1), tiny_images(2), rng(7), 2) == other.update(
        tiny_images(1), tiny_images(2), rng(7), 2
    )
    assert same_state(reward, other)


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_scores_of_real_and_generated_images_come_apart(features: Path, loss: str) -> None:
    def coloured(seed: int, count: int, yellow: bool) -> RewardBatch:
        """Yellow to blue, or red to green: the mean of all and the variance of a channel would be normalised away."""
        tone = 0.4 * torch.randn(count, 1, 1, 1, generator=torch.Generator().manual_seed(seed)).sign()
        noise = tiny_images(seed + 50, count, size=SIZE)
        colour = torch.cat([tone, tone if yellow else -tone, 0 * tone], dim=1)
        return RewardBatch((0.5 + colour + 0.2 * (noise.images - 0.5)).clamp(0, 1), noise.labels)

    reward = build(features, loss=loss, lr=2e-2, micro_batch_size=None)
    metrics = reward.update(coloured(1, 100, yellow=False), coloured(2, 100, yellow=True), rng(), 60)
    assert metrics["accuracy"] > 0.51
    assert metrics["real_logit"] > metrics["generated_logit"]
    assert metrics["real_score"] > metrics["generated_score"]
    real, fake = (reward.score(coloured(seed, 100, yellow=seed == 4)).scores for seed in (4, 5))
    assert (real[:, None] > fake).float().mean() > 0.9  # of all pairs


def test_the_first_weights_come_from_the_seed(features: Path) -> None:
    assert same_state(build(features, seed=3), build(features, seed=3))
    assert not same_state(build(features, seed=3), build(features, seed=4))


# Conditions


def test_a_caption_conditions_by_the_direction_of_its_embedding(features: Path) -> None:
    table = torch.randn(50, 12, generator=torch.Generator().manual_seed(0))

    def reward(scale: float) -> AdversarialReward:
        found = AdversarialReward(tiny_config(features), 50, 1, condition=lambda rows: scale * table[rows])
        found.update(tiny_images(1), tiny_images(2), rng(), 1)
        return found

    batch, one = tiny_images(5), reward(1.0)
    assert one.discriminator.condition_width == 12
    assert one.discriminator.mapping is None
    scores = one.score(batch).scores
    torch.testing.assert_close(reward(7.0).score(batch).scores, scores, rtol=1e-4, atol=1e-5)
    moved = one.score(RewardBatch(batch.images, batch.labels + 10)).scores
    assert (moved - scores).abs().max() > 1e-3
    by_hand = one.discriminator(
        load_dino(features)(dino_pixels(batch.images, SIZE)), functional.normalize(table[batch.labels], dim=1), None
    )
    torch.testing.assert_close(scores, torch.sigmoid(by_hand.mean(dim=1)).detach(), rtol=1e-4, atol=1e-6)


def test_a_label_outside_the_classes_is_an_error(features: Path) -> None:
    batch = tiny_images(5)
    with pytest.raises(RuntimeError, match="num_classes"):
        build(features).score(RewardBatch(batch.images, batch.labels + NUM_CLASSES))


# Pixels


def test_pixels_are_normalised_cut_and_averaged() -> None:
    images = tiny_images(0, count=2, size=64).images
    mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    halves = images.double().numpy().reshape(2, 3, SIZE, 2, SIZE, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(dino_pixels(images, SIZE), (halves - mean) / std, rtol=1e-4, atol=1e-5)
    cut = images.double().numpy()[:, :, 3 : 3 + SIZE, 5 : 5 + SIZE]
    np.testing.assert_allclose(dino_pixels(images, SIZE, Window(3, 5)), (cut - mean) / std, rtol=1e-4, atol=1e-5)


def test_half_of_the_batches_are_cropped_anywhere_in_the_image() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_window(generator, 36, 34, SIZE) for _ in range(2000)]
    windows = [window for window in drawn if window is not None]
    assert abs(len(windows) - 1000) < 100
    assert {window.row for window in windows} == set(range(5))
    assert {window.column for window in windows} == set(range(3))
    again = torch.Generator().manual_seed(0)
    assert drawn == [draw_window(again, 36, 34, SIZE) for _ in range(2000)]


def test_images_without_room_are_never_cropped() -> None:
    generator = torch.Generator().manual_seed(0)
    for height, width in ((SIZE, SIZE), (SIZE - 4, SIZE + 4), (8, 8)):
        assert {draw_window(generator, height, width, SIZE) for _ in range(30)} == {None}


# Files and settings


def test_trained_heads_are_where_training_starts(features: Path, tmp_path: Path) -> None:
    reward, path = trained(features), tmp_path / "heads.safetensors"
    arguments = {"condition_width": 8, "num_classes": NUM_CLASSES, "channels": 16, "num_features": 3}
    save_network(path, DISCRIMINATOR_KIND, arguments, reward.discriminator)
    started = build(features, seed=8, weights=str(path))
    batch = tiny_images(5)
    assert torch.equal(started.score(batch).scores, reward.score(batch).scores)
    started.update(tiny_images(1), tiny_images(2), rng(), 1)
    with pytest.raises(UserError, match=r"reward\.adversarial\.weights: .* has num_classes 4, needed is 5"):
        AdversarialReward(tiny_config(features, weights=str(path)), 5, 1)


def test_missing_and_wrong_weights_are_named(features: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.safetensors"):
        build(tmp_path / "absent.safetensors")
    path = tmp_path / "heads.safetensors"
    save_network(path, DISCRIMINATOR_KIND, {}, ProjectedDiscriminator(8, 4, 16, 3))
    with pytest.raises(UserError, match=r"projected_discriminator; accepted here: dino_vit"):
        build(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discriminator": "projected"}, "features: null"),
        ({"discriminator": "projected", "features": "x", "micro_batch_size": 7}, "micro_batch_size: 7"),
        ({"features": "x"}, "only discriminator=projected"),
        ({"weights": "x"}, "only discriminator=projected"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AdversarialConfig(**settings)


def test_groups_are_official_where_those_exist() -> None:
    for count in range(1, 200):
        groups = local_groups(count)
        number = math.ceil(count / 8)
        assert (len(groups), sum(groups)) == (number, count)
        assert max(groups) - min(groups) <= 1
        if count % number == 0:
            assert set(groups) == {count // number}
