"""N images drawn together as one Gymnasium vector environment, with a NumPy mode and a tensor mode.

NumPy mode is Gymnasium's API. Tensor mode (`reset_tensors`, `step_tensors`) is the same MDP with torch tensors in
and out and no reward, for a rollout that stays on the device. Both take their steps in the same way, with images whose
episodes began together; in tensor mode those are all, and finished ones wait for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
    """T steps at most, then a reward from the scorer. An image ends early where the generator finishes it early; each
    starts anew by itself in the step after its end.

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
        self._groups: list[_Group] = []
        self._ended = np.zeros(num_envs, bool)
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
        self._groups = [self._begin(np.arange(len(context)), context, noise)]
        return self._groups[0].state.observation

    def step_tensors(self, action: Tensor) -> tuple[Observation, Tensor]:
        """Takes one step under `action` `[B, A]`; returns the observation and the decision `[B, K]`."""
        (group,) = self._groups
        self._advance(group, action)
        return group.state.observation, group.decision

    @property
    def num_passes(self) -> Tensor:
        """Network passes `[B]` int64 of the current episodes so far."""
        return self._gathered(lambda group: group.state.num_passes)

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
        self._groups = [self._start(np.arange(self.num_envs), chosen)]
        self._ended = np.zeros(self.num_envs, bool)
        return self._to_numpy(), self._info()

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Takes one step with each image, or starts the next episode of those that ended in the step before (their
        actions are ignored).
        """
        if not self._groups:
            raise gym.error.ResetNeeded("call reset before step")
        values = self._checked(actions)
        anew = self._ended.nonzero()[0]
        self._groups = [group for group in self._groups if group.is_active.any()]
        for group in self._groups:
            self._advance(group, torch.tensor(values[group.rows], device=self.generator.device))
        if len(anew):
            self._groups.append(self._start(anew, None))
        rewards = np.zeros(self.num_envs, np.float32)
        self._ended = np.zeros(self.num_envs, bool)
        for group in self._groups:
            ended = group.is_active & self._has_ended(group)
            rows = group.rows[ended]
            if len(rows):
                rewards[rows] = self._rewards(group.state.observation, ended)
            self._ended[rows] = True
            group.is_active &= ~ended
        return self._to_numpy(), rewards, self._ended.copy(), np.zeros(self.num_envs, bool), self._info()

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The images as they stand, each uint8 `[H, W, 3]`; None without a render mode."""
        if self.render_mode is None:
            return None
        if not self._groups:
            raise gym.error.ResetNeeded("call reset before render")
        images = self.generator.decode(self._gathered(lambda group: group.state.observation.sample))
        return tuple(rgb_frames(images.cpu().numpy(), self._frame_size))

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        """Actions `[N, A]`; those of images that begin anew are not looked at."""
        if self._ended.all():
            return np.zeros(self.action_space.shape, np.float32)
        given = np.asarray(actions)
        if self._ended.any() and given.shape == self.action_space.shape:
            given = np.where(self._ended[:, None], np.zeros_like(given), given)
        return checked_actions(given, self.action_space)

    def _start(self, rows: np.ndarray, context: np.ndarray | None) -> _Group:
        """Begins an episode of some images, with contexts `[R]` or drawn ones."""
        image_seeds = np.array([self._rngs[row].integers(2**63) for row in rows])
        drawn = np.array([self._contexts[self._rngs[row].integers(len(self._contexts))] for row in rows])
        device = self.generator.device
        noise = self._noise_factory(torch.from_numpy(image_seeds).to(device))
        return self._begin(rows, torch.from_numpy(drawn if context is None else context).to(device), noise)

    def _begin(self, rows: np.ndarray, context: Tensor, noise: Any) -> _Group:
        state = self.generator.reset(context, noise)
        decision = torch.zeros(len(rows), self.generator.decision_space.num_decisions, device=self.generator.device)
        return _Group(rows, state, decision, np.ones(len(rows), bool))

    def _advance(self, group: _Group, action: Tensor) -> None:
        """Takes one step with a group under `action` `[R, A]`."""
        space, step = self.generator.decision_space, group.state.observation.step
        group.decision, group.carry = space.decide(action, step, group.carry)
        group.state = self.generator.step(group.state, group.decision)

    def _has_ended(self, group: _Group) -> np.ndarray:
        observation = group.state.observation
        if observation.step == self.horizon:
            return np.ones(len(group.rows), bool)
        is_finished = getattr(self.generator, "is_finished", None)
        if is_finished is None or observation.step == 0:
            return np.zeros(len(group.rows), bool)
        return np.asarray(is_finished(observation.sample).cpu())

    def _gathered(self, part: Callable[[_Group], Tensor]) -> Tensor:
        """A tensor `[N, …]` of the images' newest episodes, from what each group has of its own."""
        parts = [part(group) for group in self._groups]
        if len(parts) == 1:
            return parts[0].clone()
        joined = parts[0].new_zeros(self.num_envs, *parts[0].shape[1:])
        for group, rows in zip(self._groups, parts, strict=True):  # an image that began anew is in a later one too
            joined[torch.from_numpy(group.rows).to(rows.device)] = rows
        return joined

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

    def _rewards(self, observation: Observation, ended: np.ndarray) -> np.ndarray:
        """Rewards `[E]` of the images that have ended."""
        rows = torch.from_numpy(ended.nonzero()[0]).to(self.generator.device)
        scores = self._scorer(observation.sample[rows], observation.context[rows])
        rewards = np.asarray(scores.detach().cpu(), np.float32)
        if rewards.shape != (len(rows),) or not np.isfinite(rewards).all():
            raise ValueError(f"the scorer gave {rewards!r}, expected {len(rows)} finite numbers")
        return rewards

    def _to_numpy(self) -> Any:
        context = self._gathered(lambda group: group.state.observation.context).cpu().numpy()
        step = self._gathered(lambda group: torch.full((len(group.rows),), group.state.observation.step)).numpy()
        if self._observation_mode == "tokens":
            sample = self._gathered(lambda group: group.state.observation.sample).cpu().numpy()
            return {"context": context, self.generator.sample_spec.name: sample, "step": step}
        flat = np.zeros(self.observation_space.shape, np.float32)
        size = int(np.prod(self.generator.feature_shape))
        flat[:, :size] = self._gathered(self._flat_features).cpu().numpy()
        flat[np.arange(self.num_envs), size + context] = 1
        flat[np.arange(self.num_envs), size + self.generator.context_spec.num_contexts + step] = 1
        return flat

    def _flat_features(self, group: _Group) -> Tensor:
        """`[R, L·D]`; 0 at the end of an episode."""
        features = group.state.observation.features
        if features is None:
            return torch.zeros(
                len(group.rows), int(np.prod(self.generator.feature_shape)), device=self.generator.device
            )
        return features.flatten(1)

    def _info(self) -> dict[str, Any]:
        return {
            "decision": self._gathered(lambda group: group.decision).cpu().numpy(),
            "num_passes": self._gathered(lambda group: group.state.num_passes).cpu().numpy(),
        }


@dataclass
class _Group:
    """Images whose episodes began in the same step, in lock-step.

    Args:
        rows: `[R]`, their numbers. state: of the generator. decision: `[R, K]`, the last one.
        is_active: `[R]`, False for those that have ended.
        carry: of the decision space.
    """

    rows: np.ndarray
    state: Any
    decision: Tensor
    is_active: np.ndarray
    carry: Tensor | None = None


def _observation_space(generator: Generator, mode: ObservationMode) -> spaces.Space[Any]:
    num_classes, num_steps = generator.context_spec.num_contexts, generator.horizon + 1
    if mode == "features":
        size = int(np.prod(generator.feature_shape)) + num_classes + num_steps
        return spaces.Box(-np.inf, np.inf, (size,), np.float32)
    spec = generator.sample_spec
    dtype = np.int64 if not spec.dtype.is_floating_point else np.float32
    sample = spaces.Box(spec.low, spec.high, spec.shape, dtype)
    return spaces.Dict({"context": spaces.Discrete(num_classes), spec.name: sample, "step": spaces.Discrete(num_steps)})
