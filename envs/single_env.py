"""One image as a plain Gymnasium environment: the vector environment with N = 1, without autoreset."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from adanat_rl.envs.checks import checked_actions, checked_seeds
from adanat_rl.envs.contracts import Contexts, Generator, NoiseFactory, Scorer
from adanat_rl.envs.vector_env import GenerationVectorEnv, ObservationMode


class GenerationEnv(gym.Env[Any, np.ndarray]):
    """Draws one image in T steps; spaces, actions, rewards and info are those of `GenerationVectorEnv`.

    Args:
        generator, scorer, noise_factory, contexts, observation_mode, action_limit, render_mode, frame_size: as there.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 2}

    def __init__(
        self,
        generator: Generator,
        scorer: Scorer,
        noise_factory: NoiseFactory,
        contexts: Contexts,
        observation_mode: ObservationMode = "tokens",
        action_limit: float = 8.0,
        render_mode: str | None = None,
        frame_size: int = 128,
    ) -> None:
        self._envs = GenerationVectorEnv(
            generator, scorer, noise_factory, contexts, 1, observation_mode, action_limit, render_mode, frame_size
        )
        self.render_mode = render_mode
        self.observation_space = self._envs.single_observation_space
        self.action_space: spaces.Box = self._envs.single_action_space
        self._done = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode; `options={"context": label}` chooses what to draw."""
        first = checked_seeds(seed, 1)[0]
        observation, info = self._envs.reset(seed=first, options=options)
        super().reset(seed=first)
        self._done = False
        return _first(observation), _first(info)

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Takes one step."""
        if self._done:
            raise gym.error.ResetNeeded("the episode is over: call reset before step")
        values = checked_actions(action, self.action_space)
        observation, rewards, terminated, _, info = self._envs.step(values[None])
        self._done = bool(terminated[0])
        return _first(observation), float(rewards[0]), self._done, False, _first(info)

    def render(self) -> np.ndarray | None:
        """The image as it stands, uint8 `[H, W, 3]`; None without a render mode."""
        frames = self._envs.render()
        return None if frames is None else frames[0]


def _first(batched: Any) -> Any:
    return {key: value[0] for key, value in batched.items()} if isinstance(batched, dict) else batched[0]
