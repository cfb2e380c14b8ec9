"""N images drawn in lock-step as one Gymnasium vector environment, with a NumPy mode and a tensor mode.

NumPy mode is Gymnasium's API. Tensor mode (`reset_tensors`, `step_tensors`) is the same MDP with torch tensors in
and out and no reward, for a rollout that stays on the device; NumPy mode is built on it.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from adanat_rl.envs.checks import (
    checked_actions,
    checked_count,
    checked_labels,
    checked_limit,
    checked_options,
    checked_seeds,
)
from adanat_rl.envs.contracts import Contexts, Generator, NoiseFactory, Observation, Scorer
from adanat_rl.envs.rendering import rgb_frames

ObservationMode = Literal["tokens", "features"]


class GenerationVectorEnv(gym.vector.VectorEnv):
    """T steps, then a reward from the scorer; all images start and end together (autoreset in the next step).

    Observation, mode "tokens": Dict of the sample (tokens `[L]` int64), context and step. Mode "features": one float32
    Box of L·D features, one-hot context and one-hot step; features are 0 at the end of an episode.
    Action: Box `[A]` within ±action_limit, an offset to the base schedule. Info: `decision` `[N, K]`, `num_passes`
    `[N]`.

    Args:
        generator: draws the images.
        scorer: rewards finished images.
        noise_factory: gives the generator's randomness from one seed per image.
        contexts: labels to draw from.
        num_envs: N. observation_mode: see above. action_limit: bound of the actions.
        render_mode: "rgb_array" or None. frame_size: side of a rendered image in pixels, at least.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "render_modes": ["rgb_array"],
        "render_fps": 2,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        generator: Generator,
        scorer: Scorer,
        noise_factory: NoiseFactory,
        contexts: Contexts,
        num_envs: int = 1,
        observation_mode: ObservationMode = "tokens",
        action_limit: float = 8.0,
        render_mode: str | None = None,
        frame_size: int = 128,
    ) -> None:
        if observation_mode not in ("tokens", "features"):
            raise ValueError(f"observation_mode is {observation_mode!r}, expected 'tokens' or 'features'")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is {render_mode!r}, expected 'rgb_array' or None")
        if not callable(scorer):
            raise ValueError(f"scorer is {scorer!r}, expected a function of finished samples and labels")
        self.generator = generator
        self.num_envs = num_envs = checked_count(num_envs, "num_envs")
        self.render_mode = render_mode
        self.horizon = generator.horizon
        self._scorer = scorer
        self._noise_factory = noise_factory
        self._contexts = checked_labels(contexts, generator.context_spec.num_contexts, "contexts").reshape(-1)
        self._observation_mode = observation_mode
        self._frame_size = checked_count(frame_size, "frame_size")
        self._rngs: list[np.random.Generator] = []
        self._state: Any = None
        self._carry: Tensor | None = None
        self.single_observation_space = _observation_space(generator, observation_mode)
        limit = checked_limit(action_limit)
        self.single_action_space = spaces.Box(-limit, limit, (generator.decision_space.num_actions,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    # --- tensor mode

    def reset_tensors(self, context: Tensor, noise: Any) -> Observation:
        """Starts B drawings; B need not be `num_envs`.

        Args:
            context: `[B]` int64 on the generator's device.
            noise: the generator's randomness for the whole episode.
        """
        self._state, self._carry = self.generator.reset(context, noise), None
        return self._state.observation

    def step_tensors(self, action: Tensor) -> tuple[Observation, Tensor]:
        """Takes one step under `action` `[B, A]`; returns the observation and the decision `[B, K]`."""
        step = self._state.observation.step
        decision, self._carry = self.generator.decision_space.decide(action, step, self._carry)
        self._state = self.generator.step(self._state, decision)
        return self._state.observation, decision

    @property
    def num_passes(self) -> Tensor:
        """Network passes `[B]` int64 of the current episode so far."""
        return self._state.num_passes

    # --- NumPy mode

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: image i gets the stream of seed + i, so it equals a single environment with that seed; a sequence
                names the seed of each.
            options: `{"context": label or labels [N]}` chooses what to draw.

        Raises:
            ValueError: seed or options are of another kind, or out of range.
        """
        seeds = checked_seeds(seed, self.num_envs)
        chosen = self._chosen_context(options)
        super().reset(seed=None if seed is None else seeds[0])
        self._seed(seeds)
        image_seeds = np.array([rng.integers(2**63) for rng in self._rngs])
        drawn = np.array([self._contexts[rng.integers(len(self._contexts))] for rng in self._rngs])
        context = drawn if chosen is None else chosen
        device = self.generator.device
        noise = self._noise_factory(torch.from_numpy(image_seeds).to(device))
        observation = self.reset_tensors(torch.from_numpy(context).to(device), noise)
        decision = np.zeros((self.num_envs, self.generator.decision_space.num_decisions), np.float32)
        return self._to_numpy(observation), self._info(decision)

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Takes one step, or starts the next episode if the last one ended in the step before (actions are ignored)."""
        if self._state is None:
            raise gym.error.ResetNeeded("call reset before step")
        nothing = np.zeros(self.num_envs, bool)
        if self._state.observation.step == self.horizon:
            observation, info = self.reset()
            return observation, np.zeros(self.num_envs, np.float32), nothing, nothing.copy(), info
        values = checked_actions(actions, self.action_space)
        action = torch.tensor(values, device=self.generator.device)
        observation, decision = self.step_tensors(action)
        terminated = np.full(self.num_envs, observation.step == self.horizon)
        rewards = self._rewards(observation) if terminated.all() else np.zeros(self.num_envs, np.float32)
        return self._to_numpy(observation), rewards, terminated, nothing, self._info(decision.cpu().numpy())

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The images as they stand, each uint8 `[H, W, 3]`; None without a render mode."""
        if self.render_mode is None:
            return None
        if self._state is None:
            raise gym.error.ResetNeeded("call reset before render")
        images = self.generator.decode(self._state.observation.sample)
        return tuple(rgb_frames(images.cpu().numpy(), self._frame_size))

    def _seed(self, seeds: list[int | None]) -> None:
        old: list[np.random.Generator | None] = [*self._rngs] if self._rngs else [None] * self.num_envs
        self._rngs = [
            rng if rng is not None and value is None else np.random.default_rng(value)
            for rng, value in zip(old, seeds, strict=True)
        ]

    def _chosen_context(self, options: dict[str, Any] | None) -> np.ndarray | None:
        context = checked_options(options, ("context",)).get("context")
        if context is None:
            return None
        labels = checked_labels(context, self.generator.context_spec.num_contexts, "options['context']")
        if labels.shape not in {(), (1,), (self.num_envs,)}:
            raise ValueError(f"options['context'] has shape {labels.shape}, expected one label or {self.num_envs}")
        return np.broadcast_to(labels, (self.num_envs,)).copy()

    def _rewards(self, observation: Observation) -> np.ndarray:
        scores = self._scorer(observation.sample, observation.context)
        rewards = np.asarray(scores.detach().cpu(), np.float32)
        if rewards.shape != (self.num_envs,) or not np.isfinite(rewards).all():
            raise ValueError(f"the scorer gave {rewards!r}, expected {self.num_envs} finite numbers")
        return rewards

    def _to_numpy(self, observation: Observation) -> Any:
        context = observation.context.cpu().numpy()
        if self._observation_mode == "tokens":
            return {
                "context": context.copy(),
                self.generator.sample_spec.name: observation.sample.cpu().numpy().copy(),
                "step": np.full(self.num_envs, observation.step, np.int64),
            }
        flat = np.zeros(self.observation_space.shape, np.float32)
        size = int(np.prod(self.generator.feature_shape))
        if observation.features is not None:
            flat[:, :size] = observation.features.reshape(self.num_envs, size).cpu().numpy()
        flat[np.arange(self.num_envs), size + context] = 1
        flat[:, size + self.generator.context_spec.num_contexts + observation.step] = 1
        return flat

    def _info(self, decision: np.ndarray) -> dict[str, Any]:
        return {"decision": decision, "num_passes": self._state.num_passes.cpu().numpy().copy()}


def _observation_space(generator: Generator, mode: ObservationMode) -> spaces.Space[Any]:
    num_classes, num_steps = generator.context_spec.num_contexts, generator.horizon + 1
    if mode == "features":
        size = int(np.prod(generator.feature_shape)) + num_classes + num_steps
        return spaces.Box(-np.inf, np.inf, (size,), np.float32)
    spec = generator.sample_spec
    dtype = np.int64 if not spec.dtype.is_floating_point else np.float32
    sample = spaces.Box(spec.low, spec.high, spec.shape, dtype)
    return spaces.Dict({"context": spaces.Discrete(num_classes), spec.name: sample, "step": spaces.Discrete(num_steps)})
