"""What ships for MNIST: preset, weights, trained policy and registered environment fit each other."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import adanat_rl
from adanat_rl.config.loading import resolve
from adanat_rl.config.paths import assets_folder
from adanat_rl.data.mnist import load_mnist_dataset
from adanat_rl.evaluation.judge import ACCURACY, FD_A, load_judge
from adanat_rl.generation.pipeline import GenerationPipeline, load_pipeline
from adanat_rl.generation.policies.base import SchedulePolicy

NAME = "adanat_rl:AdaNAT/Mnist-v0"
LABELS = np.arange(100) % 10


@pytest.fixture(scope="module")
def trained() -> GenerationPipeline:
    return load_pipeline("asset:mnist/policy")


def test_the_preset_is_of_this_data_set_alone() -> None:
    config = resolve("mnist")
    assert (config.name, config.data.name, config.generator.horizon) == ("mnist", "mnist", 4)
    names = {config.generator.nat, config.generator.tokenizer, config.evaluation.reference} - {None}
    assert {name.partition("/")[0] for name in names} == {"asset:mnist"}


def test_the_shipped_folder_stays_small() -> None:
    files = [file for file in (assets_folder() / "mnist").rglob("*") if file.is_file()]
    assert (assets_folder() / "mnist" / "MODEL_CARD.md") in files
    assert sum(file.stat().st_size for file in files) < 6e6


def test_the_shipped_policy_draws_digits_of_the_class_asked_for(trained: GenerationPipeline) -> None:
    output = trained(LABELS)
    assert output.images.shape == (100, 28, 28, 1)
    judge = load_judge(load_mnist_dataset())
    images = torch.from_numpy(output.images).permute(0, 3, 1, 2) / 255
    assert judge(images, torch.from_numpy(LABELS))[ACCURACY] > 0.8


def test_the_shipped_policy_is_better_than_its_base_schedule(trained: GenerationPipeline) -> None:
    base = GenerationPipeline(trained.generator, SchedulePolicy(trained.generator.decision_space.base_schedule))
    judge = load_judge(load_mnist_dataset())

    def distance(pipeline: GenerationPipeline) -> float:
        images = torch.from_numpy(pipeline(np.arange(300) % 10).images).permute(0, 3, 1, 2) / 255
        return judge(images, torch.from_numpy(np.arange(300) % 10))[FD_A]

    assert distance(trained) < distance(base)


def test_an_image_is_the_same_alone_and_in_a_batch(trained: GenerationPipeline) -> None:
    together = trained(LABELS[:70])
    alone = trained(LABELS[66:67], seeds=[66])
    np.testing.assert_array_equal(alone.images[0], together.images[66])


def test_the_environment_is_registered_and_gives_the_discriminators_score() -> None:
    environment = gymnasium.make(NAME, render_mode="rgb_array")
    check_env(environment.unwrapped)
    observation, _ = environment.reset(seed=1, options={"context": 3})
    assert observation["tokens"].shape == (49,)
    assert (observation["tokens"] == 128).all()
    for _ in range(4):
        _, reward, ended, _, _ = environment.step(np.zeros(4, np.float32))
    assert ended
    assert 0 < reward < 1
    environment.close()


def test_both_names_stay_registered_however_often_it_is_asked_for() -> None:
    adanat_rl.registration.register_environments()
    names = [name for name in gymnasium.registry if name.startswith("AdaNAT/")]
    assert sorted(names) == ["AdaNAT/Digits-v0", "AdaNAT/Mnist-v0"]
