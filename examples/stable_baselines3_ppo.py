"""The environment with somebody else's algorithm: PPO of Stable-Baselines3 (pip install stable-baselines3).

    python examples/stable_baselines3_ppo.py --steps 4096

The number that it prints is the mean score of the discriminator, before and after.
"""

from __future__ import annotations

import argparse

import gymnasium
import numpy as np
from stable_baselines3 import PPO


def mean_reward(model: PPO, environment: gymnasium.Env, episodes: int) -> float:
    """Mean reward of the deterministic policy."""
    total = 0.0
    for episode in range(episodes):
        observation, _ = environment.reset(seed=episode)
        done = False
        while not done:
            action, _ = model.predict(observation, deterministic=True)
            observation, reward, done, _, _ = environment.step(np.asarray(action))
            total += float(reward)
    return total / episodes


def main() -> None:
    """Trains, and prints the reward before and after."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4096, help="environment steps of training")
    parser.add_argument("--episodes", type=int, default=64, help="episodes that each mean is of")
    arguments = parser.parse_args()
    environment = gymnasium.make("adanat_rl:AdaNAT/Digits-v0", observation_mode="features")
    model = PPO("MlpPolicy", environment, n_steps=256, batch_size=64, gamma=1.0, seed=0, device="cpu")
    before = mean_reward(model, environment, arguments.episodes)
    model.learn(arguments.steps)
    after = mean_reward(model, environment, arguments.episodes)
    print(f"mean reward {before:.3f} before, {after:.3f} after {arguments.steps} steps")


if __name__ == "__main__":
    main()
