"""The registered environment as strangers use it: by name alone, with their own algorithms."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

import adanat_rl
from adanat_rl.generation.generator import Observation

NAME = "adanat_rl:AdaNAT/Digits-v0"
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("mode", ["tokens", "features"])
def test_the_checker_is_content_with_what_make_gives(mode: str) -> None:
    environment = gymnasium.make(NAME, observation_mode=mode, render_mode="rgb_array")
    check_env(environment.unwrapped)
    environment.close()


def test_a_random_agent_finishes_episodes_that_a_seed_repeats() -> None:
    environment = gymnasium.make(NAME)

    def episode() -> list[float]:
        environment.action_space.seed(3)
        _, _ = environment.reset(seed=5, options={"context": 7})
        rewards, ended = [], False
        while not ended:
            _, reward, ended, truncated, info = environment.step(environment.action_space.sample())
            assert not truncated
            assert info["decision"].shape == (4,)
            rewards.append(float(reward))
        return rewards

    rewards = episode()
    assert len(rewards) == 4
    assert rewards[:3] == [0, 0, 0]
    assert 0 < rewards[3] < 1
    assert episode() == rewards


def test_make_vec_steps_many_images_as_one(tmp_path: Path) -> None:
    environments = gymnasium.make_vec(NAME, num_envs=3)
    single = gymnasium.make(NAME)
    actions = np.random.default_rng(0).normal(size=(4, 3, 4)).astype(np.float32)
    environments.reset(seed=10)
    for step in actions:
        observations, rewards, *_ = environments.step(step)
    for row in range(3):
        single.reset(seed=10 + row)
        for step in actions:
            observation, reward, *_ = single.step(step[row])
        np.testing.assert_array_equal(observation["tokens"], observations["tokens"][row])
        assert reward == pytest.approx(rewards[row], abs=1e-6)


def test_stable_baselines3_learns_on_it() -> None:
    environments = DummyVecEnv([lambda: Monitor(gymnasium.make(NAME, observation_mode="features")) for _ in range(2)])
    model = PPO("MlpPolicy", environments, n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu")
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.learn(64)
    after = list(model.policy.parameters())
    assert any((new != old).any() for new, old in zip(after, before, strict=True))
    assert len(model.ep_info_buffer) == 16
    assert all(episode["l"] == 4 and 0 < episode["r"] < 1 for episode in model.ep_info_buffer)


def test_the_shipped_policy_earns_more_than_no_action() -> None:
    """The reward means something: what was trained beats the base schedule, which is the action nought."""
    pipeline = adanat_rl.load_pipeline()
    environments = gymnasium.make_vec(NAME, num_envs=2000)
    earned = []
    for trained in (False, True):
        observations, _ = environments.reset(seed=1000)
        for step in range(4):
            actions = np.zeros((2000, 4), np.float32)
            if trained:
                tokens, context = (torch.from_numpy(observations[name]) for name in ("tokens", "context"))
                features = pipeline.generator.features(Observation(tokens, context, step, None))
                with torch.no_grad():
                    actions = pipeline.policy.actor(features, torch.full((2000,), step)).numpy()
            observations, rewards, *_ = environments.step(actions)
        earned.append(rewards)
    gain = earned[1] - earned[0]
    assert gain.mean() > 3 * gain.std() / len(gain) ** 0.5, "by more than chance, on the same contexts and seeds"


def test_rllibs_own_runner_drives_it() -> None:
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    config = (
        PPOConfig()
        .environment(NAME, env_config={"observation_mode": "features"})
        .env_runners(num_envs_per_env_runner=2, rollout_fragment_length=8, batch_mode="complete_episodes")
    )
    runner = SingleAgentEnvRunner(config=config)
    episodes = runner.sample(num_episodes=4, random_actions=True)
    assert len(episodes) >= 4
    assert all(len(episode) == 4 and 0 < episode.get_return() < 1 for episode in episodes if episode.is_done)
    runner.stop()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["draw_images.py"], "(3, 8, 8, 1) uint8"),
        (["stable_baselines3_ppo.py", "--steps", "256", "--episodes", "4"], "mean reward 0."),
    ],
)
def test_the_examples_run(arguments: list[str], expected: str, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / arguments[0]), *arguments[1:]]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert expected in result.stdout
