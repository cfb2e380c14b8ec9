"""What callers hand over by mistake is refused in words, never taken for something else; copies are environments."""

from __future__ import annotations

import copy
import pickle

import gymnasium
import numpy as np
import pytest

NAME = "adanat_rl:AdaNAT/Digits-v0"
ZEROS = np.zeros(4, np.float32)


@pytest.fixture(scope="module")
def env() -> gymnasium.Env:
    return gymnasium.make(NAME, render_mode="rgb_array").unwrapped


@pytest.fixture(scope="module")
def envs() -> gymnasium.vector.VectorEnv:
    return gymnasium.make_vec(NAME, num_envs=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": 3}, "options has the key 'label', accepted: 'context'"),
        ({"contexts": 3}, "did you mean 'context'"),
        ({"context": 3, 1: 2}, "options has the key 1, accepted: 'context'"),
        ([3], r"options is \[3\], expected a dict"),
        ({"context": True}, "options\\['context'\\] is True"),
        ({"context": [[1], [1, 2]]}, "options\\['context'\\] is "),
        ({"context": 2**70}, "expected labels 0 … 9"),
    ],
)
def test_options_that_nobody_would_read_are_refused(env, envs, options, message: str) -> None:
    for one in (env, envs):
        one.reset(seed=1)
        with pytest.raises(ValueError, match=message):
            one.reset(seed=1, options=options)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.array([0, 0, np.nan, 0], np.float32), r"actions\[2\] is nan, expected finite numbers"),
        (np.array([0, -np.inf, 0, 0], np.float32), r"actions\[1\] is -inf"),
        (np.zeros(3, np.float32), r"shape \(3,\), expected \(4,\)"),
        (np.zeros(4, complex), "dtype complex128"),
        (np.zeros(4, bool), "dtype bool"),
        (["a"] * 4, "dtype <U1"),
        (None, "dtype object"),
        ([[0, 0], [0]], "expected an array of numbers"),
        (np.full(4, 9, np.float32), r"actions reach 9, outside of -8 … 8: clip them"),
        (np.full(4, -1e300), "outside of -8 … 8"),
    ],
    ids=lambda value: None if isinstance(value, str) else "action",
)
def test_an_action_is_refused_for_what_is_wrong_with_it(env, action, message: str) -> None:
    env.reset(seed=1)
    with pytest.raises(ValueError, match=message):
        env.step(action)
    assert env.step(ZEROS)[1] == 0, "the episode goes on"


def test_a_vector_of_actions_says_where_it_is_wrong(envs) -> None:
    envs.reset(seed=1)
    actions = np.zeros((2, 4), np.float32)
    actions[1, 3] = np.nan
    with pytest.raises(ValueError, match=r"actions\[1, 3\] is nan"):
        envs.step(actions)


def test_actions_at_the_limit_and_integers_are_taken(env) -> None:
    for action in (env.action_space.high, env.action_space.low, [8, -8, 0, 1]):
        env.reset(seed=1)
        assert env.step(action)[1] == 0


@pytest.mark.parametrize("seed", [-1, 1.0, "1", True, np.float64(2), [1.5], np.array([-1])])
def test_what_is_no_seed_is_refused(env, envs, seed) -> None:
    for one in (env, envs):
        with pytest.raises(ValueError, match="seed"):
            one.reset(seed=seed if one is env or np.ndim(seed) == 0 else [*seed, 2])


@pytest.mark.parametrize("seed", [np.int64(3), np.uint64(2**64 - 1), 2**63, 2**100])
def test_any_integer_from_0_up_is_a_seed(env, envs, seed) -> None:
    expected = [env.reset(seed=int(seed) + index)[0]["context"] for index in range(2)]
    assert env.reset(seed=seed)[0]["context"] == expected[0]
    assert envs.reset(seed=seed)[0]["context"].tolist() == expected


def test_an_array_of_seeds_is_one_seed_for_each_image(envs) -> None:
    """Not one entropy for all, which gave other images than the list."""
    assert envs.reset(seed=np.array([7, 7]))[0]["context"].tolist() == envs.reset(seed=[7, 7])[0]["context"].tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frame_size": 0}, "frame_size is 0"),
        ({"frame_size": 1.5}, "frame_size is 1.5"),
        ({"scorer": 3}, "scorer is 3"),
        ({"overrides": ["a"]}, "'a' is no override"),
    ],
)
def test_wrong_arguments_of_make_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gymnasium.make(NAME, **arguments)


@pytest.mark.parametrize("num_envs", [0, -1, 1.5, "2"])
def test_a_wrong_number_of_environments_is_refused(num_envs) -> None:
    with pytest.raises(ValueError, match="num_envs is"):
        gymnasium.make_vec(NAME, num_envs=num_envs)


def test_one_override_may_be_a_text() -> None:
    assert gymnasium.make(NAME, overrides="generator.horizon=2").unwrapped._envs.horizon == 2


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"]
)
def test_a_copy_in_mid_episode_goes_on_as_the_original_does(env, duplicate) -> None:
    env.reset(seed=4)
    env.step(ZEROS + 1)
    other = duplicate(env)
    assert len(pickle.dumps(env)) < 20_000_000
    for _ in range(3):
        here, there = env.step(ZEROS), other.step(ZEROS)
    np.testing.assert_array_equal(here[0]["tokens"], there[0]["tokens"])
    assert here[1] == there[1] > 0


def test_closing_twice_and_rendering_before_a_reset(env) -> None:
    fresh = gymnasium.make(NAME, render_mode="rgb_array").unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset before render"):
        fresh.render()
    fresh.close()
    fresh.close()
