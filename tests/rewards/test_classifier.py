from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import resolve
from adanat_rl.config.paths import assets_folder
from adanat_rl.config.reward_settings import ClassifierRewardConfig
from adanat_rl.config.schema import PretrainingConfig
from adanat_rl.data.digits import ImageDataset
from adanat_rl.experiment.pretraining import fit_classifier
from adanat_rl.generation.weights import load_network, save_network
from adanat_rl.metrics.features import ConvClassifier
from adanat_rl.rewards.base import Requirement, RewardBatch, check_scores
from adanat_rl.rewards.classifier import ClassifierReward, from_config


def network(**changes: int) -> ConvClassifier:
    torch.manual_seed(0)
    return ConvClassifier(**{"image_size": 8, "channels": 4, "num_features": 16, **changes}).eval()


def batch_of(count: int, seed: int = 0) -> RewardBatch:
    images = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return RewardBatch(images, torch.arange(count) % 10)


def write(path: Path, **changes: int) -> str:
    arguments = {"image_size": 8, "channels": 4, "num_classes": 10, **changes}
    save_network(path, "conv_classifier", arguments, ConvClassifier(**arguments))
    return f"reward.classifier.weights={path}"


def test_the_score_is_the_softmax_probability_of_the_class_or_its_logarithm() -> None:
    batch = batch_of(30)
    with torch.no_grad():
        logits = network().logits(batch.images).double().numpy()
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = powers[np.arange(30), batch.labels.numpy()] / powers.sum(axis=1)
    output = ClassifierReward(ClassifierRewardConfig(), network()).score(batch)
    scores, info = check_scores("classifier", output, 30)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert info["classifier_right"].tolist() == (logits.argmax(axis=1) == batch.labels.numpy()).tolist()
    logarithms = ClassifierReward(ClassifierRewardConfig(score="log_probability"), network()).score(batch).scores
    np.testing.assert_allclose(logarithms, np.log(expected), rtol=1e-5)


def test_a_logarithm_stays_finite_where_the_probability_is_zero() -> None:
    sure = network()
    with torch.no_grad():
        sure.head.bias[:] = torch.tensor([2000.0] + [0.0] * 9)
    batch = RewardBatch(batch_of(4).images, torch.full((4,), 7))
    assert ClassifierReward(ClassifierRewardConfig(), sure).score(batch).scores.tolist() == [0, 0, 0, 0]
    logarithms = ClassifierReward(ClassifierRewardConfig(score="log_probability"), sure).score(batch).scores
    np.testing.assert_allclose(logarithms, -2000, rtol=1e-2)


def test_a_score_does_not_depend_on_batch_mates() -> None:
    reward, batch = ClassifierReward(ClassifierRewardConfig(), network()), batch_of(150)
    whole = reward.score(batch).scores
    for rows in (torch.tensor([3]), torch.arange(100, 150), torch.arange(149, -1, -1)):
        assert torch.equal(reward.score(batch.rows(rows)).scores, whole[rows])
    assert reward.score(batch.rows(torch.arange(0))).scores.shape == (0,)


def test_it_is_not_trained() -> None:
    reward = ClassifierReward(ClassifierRewardConfig(), network())
    assert (reward.num_updates, reward.num_warmup_updates, reward.state_dict()) == (0, 0, {})
    assert reward.requires == {Requirement.LABELS}
    assert not reward.set_valued


def test_the_shipped_one_tells_real_digits_from_others(digits: ImageDataset) -> None:
    reward = from_config(resolve(overrides=["reward.kind=classifier"]), "cpu")
    right = reward.score(RewardBatch(digits.images, digits.labels)).scores
    wrong = reward.score(RewardBatch(digits.images, (digits.labels + 1) % 10)).scores
    noise = reward.score(RewardBatch(torch.rand_like(digits.images), digits.labels)).scores
    assert right.mean() > 0.9
    assert noise.mean() < 0.4
    assert wrong.mean() < 0.02


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_what_ships_is_a_third_network_and_small(name: str) -> None:
    file = assets_folder() / name / "classifier_c.safetensors"
    assert file.stat().st_size < 100_000
    classes = {"conv_classifier": ConvClassifier}
    third, *judges = (load_network(assets_folder() / name / f"{stem}.safetensors", classes) for stem in FILES)
    assert all(third.conv1.weight.shape != judge.conv1.weight.shape for judge in judges)  # type: ignore[union-attr]
    config = resolve(name)
    assert third.conv1.out_channels == config.pretraining.reward_classifier_channels  # type: ignore[union-attr]


FILES = ("classifier_c", "judge_a", "judge_b")


def test_pretraining_gives_it_weights_of_its_own(digits: ImageDataset) -> None:
    """Even of the size of a judge it is another network, and its size changes nothing in the judges."""
    digits = replace(digits, images=digits.images[:50], labels=digits.labels[:50])
    few = PretrainingConfig(
        num_classifier_steps=2, classifier_channels=(4, 4), reward_classifier_channels=4, batch_size=8
    )
    a, b, c = (fit_classifier(digits, digits, name, few, 0).network.state_dict() for name in "abc")
    assert not torch.equal(a["conv1.weight"], c["conv1.weight"])
    assert not torch.equal(b["conv1.weight"], c["conv1.weight"])
    larger = few.model_copy(update={"reward_classifier_channels": 6})
    again = fit_classifier(digits, digits, "a", larger, 0).network.state_dict()
    assert all(torch.equal(a[name], again[name]) for name in a)
    assert fit_classifier(digits, digits, "c", larger, 0).network.conv1.out_channels == 6


def test_a_file_of_ones_own_is_taken(tmp_path: Path) -> None:
    reward = from_config(resolve(overrides=["reward.kind=classifier", write(tmp_path / "own.safetensors")]), "cpu")
    own = load_network(tmp_path / "own.safetensors", {"conv_classifier": ConvClassifier})
    assert isinstance(own, ConvClassifier)
    batch = batch_of(5)
    expected = ClassifierReward(ClassifierRewardConfig(), own).score(batch).scores
    assert torch.equal(reward.score(batch).scores, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 28}, "takes images of 1×28×28, those of data digits are 1×8×8"),
        ({"num_classes": 7}, "knows 7 classes, data digits has 10"),
    ],
)
def test_one_of_other_images_is_refused(tmp_path: Path, changes: dict[str, int], message: str) -> None:
    config = resolve(overrides=["reward.kind=classifier", write(tmp_path / "other.safetensors", **changes)])
    with pytest.raises(UserError, match=rf"reward\.classifier\.weights: .*other\.safetensors {message}"):
        from_config(config, "cpu")


def test_captions_and_missing_files_are_refused(tmp_path: Path) -> None:
    kind = "reward.kind=classifier"
    with pytest.raises(UserError, match=r"reward\.kind: classifier is not accepted with captions"):
        from_config(resolve(overrides=[kind, f"generator.captions={tmp_path}"]), "cpu")
    with pytest.raises(UserError, match=r"reward\.classifier\.weights: no such file: nowhere"):
        from_config(resolve(overrides=[kind, "reward.classifier.weights=nowhere.safetensors"]), "cpu")
    files = ["data.name=image_folder", f"data.path={tmp_path}"]
    with pytest.raises(UserError, match=r"reward\.classifier\.weights: null is not accepted with data.name=image_fold"):
        from_config(resolve(overrides=[kind, *files]), "cpu")
