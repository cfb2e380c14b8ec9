"""The fused env runner: a whole shard in tensor mode on the device, results as columns."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from torch import Tensor

from adanat_rl.evaluation.drawing import EvaluationSet
from adanat_rl.generation.generator import finished
from adanat_rl.generation.noise import DeviceShardNoise, ShardNoise, Stream, shard_noise
from adanat_rl.generation.policies.base import GenerationPolicy, actor_mean
from adanat_rl.generation.threads import settle_process
from adanat_rl.rl.evaluation import DrawnImages, DrawOrder, draw_batch
from adanat_rl.rl.losses import gaussian_log_prob
from adanat_rl.rl.shards import PolicyWeights, Shard, ShardKey, digest_weights


class ShardEnvRunner(SingleAgentEnvRunner):
    """Adds `sample_shard` to RLlib's runner; the stock `sample` still works on the same environment."""

    def __init__(self, **kwargs: Any) -> None:
        torch.set_num_threads(kwargs["config"].env_config["torch_threads"])
        super().__init__(**kwargs)
        settle_process()
        if self.env is not None:  # the driver's runner has none where others draw
            self.module.to(self.env.unwrapped.generator.device)  # RLlib leaves that of a local runner on the CPU
        self._loaded_digest: str | None = None

    @torch.no_grad()
    def sample_shard(self, weights: PolicyWeights, key: ShardKey) -> Shard:
        """Draws the shard `key` with `weights`: the same bits on every runner, whatever it did before."""
        self._load(weights)
        env = self.env.unwrapped
        settings = self.config.env_config
        size = settings["shard_size"]
        noise = shard_noise((key.seed, key.iteration, key.number), size, env.generator.device)
        context = _draw_contexts(noise, settings["contexts"], settings["group_size"])
        space = env.generator.decision_space
        mask = space.effect_mask.float()

        observation = env.reset_tensors(torch.from_numpy(context).to(env.generator.device), noise)
        columns = _Columns(size, env.generator.device, keep_features=settings["keep_features"])
        columns.samples.append(observation.sample)
        for step in range(env.horizon):
            mean = actor_mean(self.module.actor, observation, env.generator.block_rows)
            std = self.module.action_std.expand_as(mean)
            action = mean + std * noise.normal(step, Stream.ACTIONS, (space.num_actions,)).to(mean.device)
            columns.actions.append(action)
            unfinished = ~finished(env.generator, observation.sample)
            has_effect = mask[step].to(mean.device) * unfinished[:, None]
            columns.log_probs.append(gaussian_log_prob(action, mean, std, has_effect))
            columns.num_steps += unfinished
            if columns.keep_features:
                columns.features.append(observation.features)
            observation, decision = env.step_tensors(action)
            columns.decisions.append(decision)
            columns.samples.append(observation.sample)
        return columns.shard(key, weights.digest, context, env)

    def draw_images(
        self, order: DrawOrder, policy: GenerationPolicy | None, key: ShardKey, images: EvaluationSet
    ) -> DrawnImages:
        """Draws images of an evaluation.

        Args:
            policy: decides instead of the one of the order, where it knows the images one by one.
        """
        generator = self.env.unwrapped.generator
        return draw_batch(generator, order, policy if policy is not None else order.policy, key, images)

    def process_id(self) -> int:
        """Id of the operating-system process, for tests that break things."""
        return os.getpid()

    def _load(self, weights: PolicyWeights) -> None:
        if self._loaded_digest == weights.digest:
            return
        state = weights.state
        if isinstance(state, ray.ObjectRef):
            state = ray.get(state, timeout=self.config.env_config["fetch_timeout_s"])
        if digest_weights(state) != weights.digest:
            raise RuntimeError("policy weights do not match their digest: they were damaged on the way")
        self.module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
        self.module.eval()
        self._loaded_digest = weights.digest


def _draw_contexts(noise: ShardNoise | DeviceShardNoise, options: np.ndarray, group_size: int) -> np.ndarray:
    """Contexts `[B]` of a shard: each drawn one for `group_size` images in a row."""
    drawn = noise.choice(Stream.CONTEXTS, options)
    return np.repeat(drawn[: len(drawn) // group_size], group_size)


class _Columns:
    """Tensors of a rollout, collected step by step."""

    def __init__(self, size: int, device: torch.device, *, keep_features: bool) -> None:
        self.keep_features = keep_features
        self.num_steps = torch.zeros(size, dtype=torch.int64, device=device)
        self.samples: list[Tensor] = []
        self.actions: list[Tensor] = []
        self.log_probs: list[Tensor] = []
        self.decisions: list[Tensor] = []
        self.features: list[Tensor] = []

    def shard(self, key: ShardKey, digest: str, context: np.ndarray, env: Any) -> Shard:
        """The finished shard, one copy per column."""
        return Shard(
            key=key,
            weights_digest=digest,
            samples=_stack(self.samples).astype(env.generator.sample_spec.storage_dtype),
            context=context,
            actions=_stack(self.actions),
            log_probs=_stack(self.log_probs),
            decisions=_stack(self.decisions),
            num_passes=env.num_passes.cpu().numpy().astype(np.int16),
            num_steps=self.num_steps.cpu().numpy().astype(np.int16),
            features=torch.stack(self.features, dim=1).to(env.generator.feature_dtype) if self.keep_features else None,
        )


def _stack(columns: list[Tensor]) -> np.ndarray:
    return torch.stack(columns, dim=1).cpu().numpy()
