from __future__ import annotations

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from adanat_rl.envs import GenerationEnv, GenerationVectorEnv
from tests.envs.conftest import parts
from tests.fakes import PointGenerator


@pytest.mark.parametrize("mode", ["tokens", "features"])
@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_gymnasiums_checker_is_content(make_env, mode: str, render_mode: str | None) -> None:
    env = make_env(observation_mode=mode, render_mode=render_mode)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env)
    # Constructed directly, so without a spec; features have no bounds; the action limit is a setting, not 1.
    tolerated = ("spec", "infinity", "symmetric and normalized")
    assert [str(w.message) for w in caught if not any(word in str(w.message) for word in tolerated)] == []


def run_episode(env: GenerationEnv, seed: int | None, options: dict | None = None):
    """Observations, rewards and infos of an episode under actions that depend on the seed."""
    observation, info = env.reset(seed=seed, options=options)
    rng = np.random.default_rng(seed or 0)
    observations, rewards, infos, terminated = [observation], [], [info], False
    while not terminated:
        action = rng.normal(size=env.action_space.shape).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        assert not truncated
        observations.append(observation)
        rewards.append(reward)
        infos.append(info)
    return observations, rewards, infos


@pytest.mark.parametrize("mode", ["tokens", "features"])
def test_an_episode_takes_t_steps_and_is_rewarded_at_the_end(make_env, generator, mode: str) -> None:
    env = make_env(observation_mode=mode)
    observations, rewards, infos = run_episode(env, 3)
    assert len(rewards) == generator.horizon
    assert rewards[:-1] == [0.0] * (generator.horizon - 1)
    assert isinstance(rewards[-1], float)
    assert rewards[-1] != 0
    assert all(env.observation_space.contains(observation) for observation in observations)
    assert [info["decision"].shape for info in infos] == [(generator.decision_space.num_decisions,)] * len(infos)


def test_the_reward_is_the_scorers(make_env) -> None:
    env = make_env(scorer=lambda sample, context: context.float() + 0.25)
    for label in (0, 3):
        _, rewards, _ = run_episode(env, 1, {"context": label})
        assert rewards[-1] == label + 0.25


def same(one, other) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)
    return np.array_equal(one, other)


@pytest.mark.parametrize("mode", ["tokens", "features"])
def test_a_seed_makes_an_episode_reproducible(make_env, mode: str) -> None:
    env, other = make_env(observation_mode=mode), make_env(observation_mode=mode)
    first, again, elsewhere, different = (
        run_episode(e, seed) for e, seed in ((env, 3), (env, 3), (other, 3), (env, 4))
    )
    for episode in (again, elsewhere):
        assert all(same(a, b) for a, b in zip(first[0], episode[0], strict=True))
        assert first[1] == episode[1]
    assert not all(same(a, b) for a, b in zip(first[0], different[0], strict=True))


def test_resets_without_a_seed_go_on_from_the_last_one(make_env) -> None:
    env, other = make_env(), make_env()
    sequences = []
    for e in (env, other):
        e.reset(seed=5)
        sequences.append([run_episode(e, None)[0][-1] for _ in range(3)])
    assert all(same(a, b) for a, b in zip(*sequences, strict=True))
    assert not same(sequences[0][0], sequences[0][1])


def test_the_context_can_be_chosen(make_env) -> None:
    env = make_env()
    for label in (0, 2, np.int64(3)):
        observation, _ = env.reset(seed=1, options={"context": label})
        assert observation["context"] == label
    assert env.reset(seed=1, options={"context": [1]})[0]["context"] == 1


def test_contexts_are_drawn_from_those_given_in_their_proportions(make_env) -> None:
    env = make_env(contexts=np.array([1, 1, 1, 3]))
    env.reset(seed=0)
    drawn = [int(env.reset()[0]["context"]) for _ in range(400)]
    assert set(drawn) == {1, 3}
    assert drawn.count(1) == pytest.approx(300, abs=40)


@pytest.mark.parametrize("label", [-1, 10, 99])
def test_a_label_out_of_range_is_refused(make_env, label: int) -> None:
    with pytest.raises(ValueError, match=rf"options\['context'\] is {label}, expected labels 0 …"):
        make_env().reset(options={"context": label})


@pytest.mark.parametrize("label", [1.7, "1", [1, 2]])
def test_what_is_no_label_is_refused(digits_env, label) -> None:
    with pytest.raises(ValueError, match="context"):
        digits_env().reset(options={"context": label})


def test_a_finished_episode_has_to_be_reset(make_env) -> None:
    env = make_env()
    with pytest.raises(gym.error.ResetNeeded):
        env.step(env.action_space.sample())
    run_episode(env, 1)
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.step(env.action_space.sample())
    env.reset()
    env.step(env.action_space.sample())


@pytest.mark.parametrize(
    "action",
    [
        np.zeros(1, np.float32),
        np.float32(0),
        np.zeros(3, np.float32),
        np.zeros(5, np.float32),
        np.zeros((1, 4), np.float32),
        np.array([0, 0, np.nan, 0], np.float32),
        np.array([0, 0, 0, np.inf], np.float32),
    ],
    ids=["one number for all", "a scalar", "too few", "too many", "nested", "NaN", "infinite"],
)
def test_an_action_of_another_shape_or_not_finite_is_refused(digits_env, action) -> None:
    env = digits_env()
    env.reset(seed=1)
    with pytest.raises(ValueError, match="action"):
        env.step(action)


def test_an_episode_of_the_point_generator_needs_no_tokens() -> None:
    env = GenerationEnv(**parts(PointGenerator()))
    observation, _ = env.reset(seed=1)
    assert set(observation) == {"point", "context", "step"}
    assert observation["point"].dtype == np.float32
    assert env.action_space.shape == (2,)


def test_reading_the_features_pays_in_the_environment() -> None:
    env = GenerationEnv(**parts(PointGenerator()), observation_mode="features")
    returns = {0.8: 0.0, 0.0: 0.0, -0.8: 0.0}
    for trait in returns:
        for seed in range(20):
            observation, _ = env.reset(seed=seed)
            terminated = False
            while not terminated:
                push = trait * observation[0]  # the first feature is the trait
                observation, reward, terminated, _, _ = env.step(np.array([push, 0], np.float32))
            returns[trait] += reward
    assert returns[0.8] > returns[0.0] > returns[-0.8]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observation_mode": "pixels"}, "observation_mode is 'pixels', expected 'tokens' or 'features'"),
        ({"render_mode": "human"}, "render_mode is 'human', expected 'rgb_array' or None"),
    ],
)
def test_wrong_modes_are_refused(make_env, make_envs, changes: dict, message: str) -> None:
    for make in (make_env, lambda **c: make_envs(2, **c)):
        with pytest.raises(ValueError, match=message):
            make(**changes)


@pytest.mark.parametrize("contexts", [[], [0, 10], [-1]])
def test_contexts_that_the_generator_does_not_know_are_refused(digits_env, contexts: list[int]) -> None:
    with pytest.raises(ValueError, match="contexts"):
        digits_env(contexts=np.array(contexts, np.int64))


@pytest.mark.parametrize(
    "scorer",
    [
        lambda sample, context: sample.float().mean(dim=1) * float("nan"),
        lambda sample, context: sample.float().mean(),
        lambda sample, context: sample.float(),
    ],
    ids=["NaN", "one number", "one per position"],
)
def test_a_score_that_is_none_is_an_error(make_envs, scorer) -> None:
    envs: GenerationVectorEnv = make_envs(3, scorer=scorer)
    envs.reset(seed=1)
    action = np.zeros(envs.action_space.shape, np.float32)
    for _ in range(envs.horizon - 1):
        envs.step(action)
    with pytest.raises(ValueError, match=r"(?s)the scorer gave .*expected 3 finite numbers"):
        envs.step(action)
