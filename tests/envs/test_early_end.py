"""Images that end early: a vector environment is as many single ones, whenever each of them ends and starts anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from adanat_rl.config.loading import resolve
from adanat_rl.envs import GenerationEnv, GenerationVectorEnv
from adanat_rl.generation.build import build_generator
from tests.envs.conftest import parts

NUM_ENVS, STEPS = 5, 30
FEATURES = "features"


@pytest.fixture(scope="module")
def stopping() -> Any:
    """The digits, where a mask ratio below 0.05 finishes an image."""
    cutoffs = ["decisions.mask_ratio_cutoff=0.05", "decisions.guidance_cutoff=0.1", "generator.block_rows=8"]
    return build_generator(resolve(overrides=cutoffs))


def actions_of(step: int) -> np.ndarray:
    """Some images are told to stop, in some steps."""
    generator = np.random.default_rng(step)
    actions = generator.normal(size=(NUM_ENVS, 4)).astype(np.float32)
    actions[generator.random(NUM_ENVS) < 0.25, 0] = -7.5
    return actions


@pytest.mark.parametrize("mode", ["tokens", FEATURES])
def test_each_image_goes_as_it_would_alone(stopping, mode: str) -> None:
    together = GenerationVectorEnv(**parts(stopping), num_envs=NUM_ENVS, observation_mode=mode)
    alone = [GenerationEnv(**parts(stopping), observation_mode=mode) for _ in range(NUM_ENVS)]
    observation, info = together.reset(seed=7)
    own = [env.reset(seed=7 + row) for row, env in enumerate(alone)]
    ended = [False] * NUM_ENVS
    lengths: list[int] = []
    since = [0] * NUM_ENVS
    for step in range(STEPS):
        assert np.array_equal(together.num_passes.numpy(), info["num_passes"])
        for row in range(NUM_ENVS):
            _assert_same(observation, own[row][0], row)
            assert info["num_passes"][row] == own[row][1]["num_passes"]
            assert np.array_equal(info["decision"][row], own[row][1]["decision"])
        actions = actions_of(step)
        actions[ended] = np.nan  # nobody looks at those
        observation, rewards, terminated, truncated, info = together.step(actions)
        assert not truncated.any()
        for row, env in enumerate(alone):
            if ended[row]:
                own[row] = env.reset()
                assert (rewards[row], terminated[row]) == (0, False)
                ended[row], since[row] = False, 0
                continue
            seen, reward, done, _, told = env.step(actions[row])
            own[row] = seen, told
            since[row] += 1
            assert (rewards[row], terminated[row]) == (np.float32(reward), done)
            ended[row] = done
            if done:
                lengths.append(since[row])
    assert {1, 2, 3, 4} == set(lengths), "episodes of every length"


def test_an_image_that_was_told_to_stop_is_finished_and_rewarded_at_once(stopping) -> None:
    env = GenerationEnv(**parts(stopping))
    env.reset(seed=0, options={"context": 3})
    observation, reward, terminated, _, info = env.step(np.array([-8, 0, 0, 0], np.float32))
    assert terminated
    assert (observation["tokens"] < 128).all()
    assert reward == pytest.approx(observation["tokens"].mean() + 3000)
    assert info["num_passes"] == 0


def test_without_a_cutoff_all_images_take_all_steps(digits_generator) -> None:
    env = GenerationEnv(**parts(digits_generator))
    env.reset(seed=0)
    ends = [env.step(np.array([-8, 0, 0, 0], np.float32))[2] for _ in range(4)]
    assert ends == [False, False, False, True]


def _assert_same(together: Any, alone: Any, row: int) -> None:
    if isinstance(alone, dict):
        for name, value in alone.items():
            assert np.array_equal(together[name][row], value), name
    else:
        assert np.array_equal(together[row], alone)
