from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from adanat_rl.envs import GenerationVectorEnv
from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.masked.contexts import ClassLabels
from adanat_rl.generation.masked.sampler import MaskedTokenGenerator
from adanat_rl.generation.noise import ImageNoise, ShardNoise
from tests.envs.conftest import parts


def actions_of(seed: int, horizon: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(horizon, *shape)).astype(np.float32)


@pytest.mark.parametrize("mode", ["tokens", "features"])
def test_spaces_hold_every_observation_and_action(make_envs, generator, mode: str) -> None:
    envs = make_envs(3, observation_mode=mode, action_limit=5.0)
    observation, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(observation)
    for _ in range(envs.horizon + 2):
        action = envs.action_space.sample()
        assert (np.abs(action) <= 5).all()
        observation, *_ = envs.step(action)
        assert envs.observation_space.contains(observation)
    assert envs.single_action_space.shape == (generator.decision_space.num_actions,)
    assert np.isfinite(envs.single_action_space.low).all()
    assert np.isfinite(envs.single_action_space.high).all()


@pytest.mark.parametrize("mode", ["tokens", "features"])
def test_row_i_is_the_single_environment_with_seed_s_plus_i(make_env, make_envs, mode: str) -> None:
    envs, num_envs, seed = make_envs(5, observation_mode=mode), 5, 40
    actions = actions_of(1, envs.horizon, envs.action_space.shape)
    rows = [envs.reset(seed=seed)]
    rows += [envs.step(action) for action in actions]
    for index in range(num_envs):
        env = make_env(observation_mode=mode)
        single = [env.reset(seed=seed + index)]
        single += [env.step(action[index]) for action in actions]
        for together, alone in zip(rows, single, strict=True):
            for key, value in _leaves(alone):
                found = dict(_leaves(together))[key][index]
                assert np.array_equal(found, value), key


def _leaves(result: tuple, prefix: str = ""):
    """Names and values of everything that reset or step returns."""
    for position, item in enumerate(result):
        if isinstance(item, dict):
            yield from ((f"{prefix}{position}.{key}", value) for key, value in item.items())
        else:
            yield f"{prefix}{position}", item


def test_numpy_mode_and_tensor_mode_are_the_same_mdp(make_envs, generator) -> None:
    numpy_envs, tensor_envs = make_envs(6, observation_mode="features"), make_envs(6)
    seen_seeds = []
    numpy_envs._noise_factory = lambda seeds: (seen_seeds.append(seeds), ImageNoise(seeds))[1]
    flat, _ = numpy_envs.reset(seed=9)
    context = torch.from_numpy(flat[:, _feature_size(generator) :][:, : generator.context_spec.num_contexts].argmax(1))
    observation = tensor_envs.reset_tensors(context, ImageNoise(seen_seeds[0]))
    for step, action in enumerate(actions_of(2, generator.horizon, numpy_envs.action_space.shape)):
        assert np.array_equal(flat[:, : _feature_size(generator)], observation.features.flatten(1).numpy())
        flat, rewards, terminated, _, info = numpy_envs.step(action)
        observation, decision = tensor_envs.step_tensors(torch.from_numpy(action))
        assert np.array_equal(info["decision"], decision.numpy())
        assert np.array_equal(info["num_passes"], tensor_envs.num_passes.numpy())
        assert observation.step == step + 1
    assert terminated.all()
    score = parts(generator)["scorer"](observation.sample, observation.context)
    assert np.array_equal(rewards, score.numpy().astype(np.float32))
    assert observation.features is None
    assert (flat[:, : _feature_size(generator)] == 0).all()


def _feature_size(generator) -> int:
    return generator.feature_shape[0] * generator.feature_shape[1]


def test_features_are_followed_by_one_hot_context_and_step(make_envs, generator) -> None:
    envs = make_envs(3, observation_mode="features")
    flat, _ = envs.reset(seed=0, options={"context": [2, 0, 3]})
    num_classes = generator.context_spec.num_contexts
    for step in range(envs.horizon + 1):
        tail = flat[:, _feature_size(generator) :]
        assert tail.shape == (3, num_classes + envs.horizon + 1)
        assert np.array_equal(tail[:, :num_classes], np.eye(num_classes)[[2, 0, 3]])
        assert np.array_equal(tail[:, num_classes:], np.eye(envs.horizon + 1)[[step] * 3])
        if step < envs.horizon:
            flat, *_ = envs.step(np.zeros(envs.action_space.shape, np.float32))


def test_the_sample_is_observed_under_its_own_name(make_envs, generator) -> None:
    envs = make_envs(2)
    observation, _ = envs.reset(seed=0)
    assert set(observation) == {generator.sample_spec.name, "context", "step"}
    sample = observation[generator.sample_spec.name]
    assert sample.shape == (2, *generator.sample_spec.shape)
    before = sample.copy()
    envs.step(np.ones(envs.action_space.shape, np.float32))
    assert np.array_equal(sample, before)  # an observation is not changed afterwards


def test_the_decision_in_the_info_is_that_of_the_decision_space(make_envs, generator) -> None:
    envs = make_envs(4)
    _, info = envs.reset(seed=1)
    assert (info["decision"] == 0).all()
    assert (info["num_passes"] == 0).all()
    carry = None
    for step, action in enumerate(actions_of(3, generator.horizon, envs.action_space.shape)):
        *_, info = envs.step(action)
        expected, carry = generator.decision_space.decide(torch.from_numpy(action), step, carry)
        assert np.array_equal(info["decision"], expected.numpy())
    assert (info["num_passes"] > 0).all()


def test_smoothing_carries_over_the_steps_of_an_episode_and_not_into_the_next(digits_generator) -> None:
    space = digits_generator.decision_space
    smooth = DecisionSpace(space.decisions, space.base_schedule.numpy(), smoothing=0.7)
    generator = MaskedTokenGenerator(digits_generator.nat, digits_generator.tokenizer, smooth, 64, ClassLabels(10))
    envs = GenerationVectorEnv(**parts(generator), num_envs=2)
    actions = actions_of(5, 4, (2, 4))
    for seed in (0, 1):
        envs.reset(seed=seed)
        carry = None
        for step, action in enumerate(actions):
            *_, info = envs.step(action)
            expected, carry = smooth.decide(torch.from_numpy(action), step, carry)
            assert np.array_equal(info["decision"], expected.numpy())


def test_the_next_episode_starts_in_the_step_after_the_last(make_envs, make_env, generator) -> None:
    envs = make_envs(3)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    first, _ = envs.reset(seed=7)
    action = np.zeros(envs.action_space.shape, np.float32)
    for step in range(1, generator.horizon + 1):
        observation, rewards, terminated, truncated, _ = envs.step(action)
        assert (observation["step"] == step).all()
        assert (terminated == (step == generator.horizon)).all()
        assert not truncated.any()
    assert (rewards != 0).all()
    final = observation[generator.sample_spec.name]
    assert not np.array_equal(final, first[generator.sample_spec.name])

    observation, rewards, terminated, truncated, info = envs.step(np.full_like(action, 7))  # ignored
    assert (observation["step"] == 0).all()
    assert (rewards == 0).all()
    assert rewards.dtype == np.float32
    assert not terminated.any()
    assert not truncated.any()
    assert (info["num_passes"] == 0).all()

    env = make_env()  # a single environment, reset by hand, sees the same second episode
    env.reset(seed=7)
    for _ in range(generator.horizon):
        env.step(action[0])
    second, _ = env.reset()
    assert all(np.array_equal(second[key], observation[key][0]) for key in second)


def test_a_seed_per_image_may_be_given_and_none_keeps_a_stream(make_envs, make_env) -> None:
    envs = make_envs(3)
    observation, _ = envs.reset(seed=[11, 5, 11])
    for index, seed in enumerate((11, 5, 11)):
        alone, _ = make_env().reset(seed=seed)
        assert all(np.array_equal(alone[key], observation[key][index]) for key in alone)
    other = make_envs(3)
    other.reset(seed=[11, 5, 11])
    mixed, _ = other.reset(seed=[None, 8, None])
    unseeded, _ = envs.reset()
    assert mixed["context"][0] == unseeded["context"][0]
    assert mixed["context"][1] == make_env().reset(seed=8)[0]["context"]


@pytest.mark.parametrize("seed", [[1], [1, 2, 3, 4]])
def test_a_wrong_number_of_seeds_is_refused(digits_generator, seed: list[int]) -> None:
    envs = GenerationVectorEnv(**parts(digits_generator), num_envs=3)
    with pytest.raises(ValueError, match="seed"):
        envs.reset(seed=seed)


def test_contexts_may_be_chosen_for_all_or_one_by_one(make_envs) -> None:
    envs = make_envs(3)
    assert envs.reset(seed=0, options={"context": 2})[0]["context"].tolist() == [2, 2, 2]
    assert envs.reset(seed=0, options={"context": np.array([0, 3, 1])})[0]["context"].tolist() == [0, 3, 1]
    with pytest.raises(ValueError, match=r"options\['context'\] is \[0, 1, 99\]"):
        envs.reset(options={"context": [0, 1, 99]})


def test_a_chosen_context_does_not_shift_the_streams(make_envs, generator) -> None:
    envs, other = make_envs(3), make_envs(3)
    envs.reset(seed=4)
    other.reset(seed=4, options={"context": 1})
    one, two = envs.reset()[0], other.reset()[0]
    assert all(np.array_equal(one[key], two[key]) for key in one)


def test_step_and_render_need_a_reset(make_envs) -> None:
    envs = make_envs(2, render_mode="rgb_array")
    with pytest.raises(gym.error.ResetNeeded):
        envs.step(np.zeros(envs.action_space.shape, np.float32))
    with pytest.raises(gym.error.ResetNeeded):
        envs.render()


@pytest.mark.parametrize("shape", [(4,), (3, 1), (1, 4), (2, 4), (3, 5)])
def test_actions_of_another_shape_are_refused(digits_generator, shape: tuple[int, ...]) -> None:
    envs = GenerationVectorEnv(**parts(digits_generator), num_envs=3)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="action"):
        envs.step(np.zeros(shape, np.float32))


def test_tensor_mode_takes_any_batch_and_any_noise(digits_generator) -> None:
    envs = GenerationVectorEnv(**parts(digits_generator), num_envs=2)
    context = torch.arange(7)
    first = envs.reset_tensors(context, ShardNoise((0, 1, 2), 7))
    assert first.sample.shape == (7, 16)
    for _ in range(4):
        observation, decision = envs.step_tensors(torch.zeros(7, 4))
        assert decision.shape == (7, 4)
    assert (observation.sample < 128).all()
    assert envs.num_passes.tolist() == [6] * 7


def test_closing_twice_does_no_harm(make_envs) -> None:
    envs = make_envs(2)
    envs.reset(seed=0)
    envs.close()
    envs.close()
    assert envs.closed
