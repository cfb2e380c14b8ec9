"""GenerationPPO: RLlib's PPO with a training step of its own.

sample shards → score centrally → [reward update ‖ learner update] → next noise. Weights go to the runners with each
request for a shard, so there is no separate sync.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch import Tensor

from adanat_rl.rewards.service import Finished, RewardService
from adanat_rl.rewards.worker import Scores
from adanat_rl.rl.advantages import group_advantages, terminal_returns
from adanat_rl.rl.config import GenerationPPOConfig
from adanat_rl.rl.dealer import DealerCounters, ShardDealer
from adanat_rl.rl.evaluation import DrawOnRunners
from adanat_rl.rl.exploration import action_std
from adanat_rl.rl.shards import WARMUP_ITERATION, PolicyWeights, Shard, ShardKey, digest_weights, hash_batch


@dataclass(frozen=True)
class Rollout:
    """The train batch of an iteration as the rollout table records it.

    Args:
        shards: in order. scores: one entry per shard. advantages: `[trajectories, T]`. batch_hash: of the shards.
    """

    shards: Sequence[Shard]
    scores: Sequence[Scores]
    advantages: np.ndarray
    batch_hash: str


class RolloutInterruptedError(Exception):
    """Raised out of `train()` while shards are drawn: the state is still that of the last finished iteration."""


class GenerationPPO(PPO):
    """Trains a generation policy.

    `attach` hands over the reward service before the first `train()`; `warm_up` is called once on a fresh run.
    `is_whole` tells whether learner and reward model are those of the last finished iteration, after a failure too.
    """

    @classmethod
    @override(PPO)
    def get_default_config(cls) -> GenerationPPOConfig:
        """The configuration class of this algorithm."""
        return GenerationPPOConfig(cls)

    @override(PPO)
    def setup(self, config: GenerationPPOConfig) -> None:
        """Builds runners and learner; the dealer takes over the remote runners."""
        super().setup(config)
        assert config.experiment is not None
        self._experiment = config.experiment
        self._horizon = config.experiment.generator.horizon
        self._rewards: RewardService | None = None
        self._interrupted: Callable[[], bool] = lambda: False
        self._dealer: ShardDealer | None = None
        self._last_rollout: Rollout | None = None
        self.is_whole = True
        manager = self.env_runner_group._worker_manager  # no public getter
        if manager.num_actors():
            self._dealer = ShardDealer(dict(manager.actors()), config.experiment.resources)

    def attach(self, rewards: RewardService, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Sets the reward service, which the caller owns and closes.

        Args:
            interrupted: asked while shards are drawn; True makes `train()` raise `RolloutInterruptedError`.
        """
        self._rewards = rewards
        self._interrupted = interrupted

    def warm_up(self) -> dict[str, float]:
        """Trains the reward model on trajectories of the untrained policy, as often as it wishes; returns its
        metrics.
        """
        rewards = self._reward_service
        if not rewards.num_warmup_updates:
            return {}
        shards = self.sample(WARMUP_ITERATION)
        key = (self._experiment.seed, WARMUP_ITERATION)
        rewards.start_update(_join(shards), key, rewards.num_warmup_updates)
        return rewards.finish_update()

    def sample(self, iteration: int) -> list[Shard]:
        """Draws all shards of an iteration with the weights as they are, wherever the runners are."""
        training = self._experiment.training
        count = training.trajectories_per_iteration // training.shard_size
        keys = [ShardKey(self._experiment.seed, iteration, number) for number in range(count)]
        weights = self._weights()
        if self._dealer is None:
            return [self._sample_here(weights, key) for key in keys]
        return self._dealer.collect(weights, keys, self._check_interrupt)

    @override(PPO)
    def training_step(self) -> None:
        """One iteration; `last_rollout` keeps its batch."""
        iteration = self.iteration + 1
        rewards = self._reward_service
        clock = _Clock()
        shards = self.sample(iteration)
        clock.lap("sample_s")
        scores = rewards.score([_join([shard]) for shard in shards])
        self._set_returns(shards, scores)
        clock.lap("score_s")
        if rewards.num_updates:
            key = (self._experiment.seed, iteration)
            rewards.start_update(_join(shards), key, rewards.num_updates)
        self.is_whole = False
        learner_results = self._learn(shards)
        clock.lap("learn_s")
        reward_metrics = rewards.finish_update()
        clock.lap("reward_update_s")
        self._on_learner("set_action_std", action_std(self._experiment.exploration, iteration + 1))
        self.is_whole = True
        self._last_rollout = Rollout(shards, scores, self._on_learner("last_advantages"), hash_batch(shards))
        self._log(shards, scores, learner_results, reward_metrics, clock.laps)

    def draw_on_runners(self, batch_size: int) -> DrawOnRunners | None:
        """Draws evaluations by the env runners; None where the driver draws."""
        return None if self._dealer is None else DrawOnRunners(self._dealer, batch_size)

    @property
    def last_rollout(self) -> Rollout:
        """The train batch of the last iteration."""
        if self._last_rollout is None:
            raise RuntimeError("no iteration has been finished yet")
        return self._last_rollout

    @property
    def dealer_counters(self) -> DealerCounters:
        """Lost runners and shards dealt again; zeros where the driver draws."""
        return self._dealer.counters if self._dealer is not None else DealerCounters()

    def training_state(self) -> dict[str, Tensor]:
        """Policy, critic, optimizer and action noise, flat."""
        return dict(self._on_learner("training_state"))

    def load_training_state(self, state: Mapping[str, Tensor], iteration: int) -> None:
        """Continues after `iteration` with that state."""
        self._on_learner("load_training_state", state)
        self._iteration = iteration

    def averaged_actor(self) -> dict[str, Tensor]:
        """State of the averaged actor: the policy to evaluate and to export."""
        return dict(self._on_learner("averaged_actor"))

    def inference_state(self) -> dict[str, np.ndarray]:
        """Actor and action noise as arrays."""
        return dict(self._on_learner("inference_state"))

    @override(PPO)
    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """Left to the dealer: the host's version blocks on a runner that hangs."""
        return []

    @override(PPO)
    def cleanup(self) -> None:
        """Ends the runners without waiting for one that hangs."""
        if self._dealer is not None:
            self._dealer.close()
            manager = self.env_runner_group._worker_manager
            manager.clear()
        super().cleanup()

    @property
    def _reward_service(self) -> RewardService:
        if self._rewards is None:
            raise RuntimeError("call attach(rewards) before training")
        return self._rewards

    def _weights(self) -> PolicyWeights:
        """What runners draw with; for remote ones it lies in the object store, once."""
        state = self.inference_state()
        return PolicyWeights(state if self._dealer is None else ray.put(state), digest_weights(state))

    def _sample_here(self, weights: PolicyWeights, key: ShardKey) -> Shard:
        self._check_interrupt()
        shard: Shard = self.env_runner_group.local_env_runner.sample_shard(weights, key)
        return shard

    def _check_interrupt(self) -> None:
        if self._interrupted():
            raise RolloutInterruptedError

    def _set_returns(self, shards: Sequence[Shard], scores: Sequence[Scores]) -> None:
        """Standardises the rewards over the whole batch and compares images of a context, here and nowhere else."""
        rewards = torch.from_numpy(np.concatenate([score.scores for score in scores]))
        ppo = self._experiment.ppo
        returns = terminal_returns(rewards, self._horizon, standardise=ppo.normalize_rewards)
        advantages = group_advantages(rewards, returns, ppo)
        start = 0
        for shard in shards:
            stop = start + shard.num_trajectories
            shard.returns = returns[start:stop].numpy()
            shard.advantages = advantages[start:stop].numpy() if advantages is not None else None
            start = stop

    def _learn(self, shards: Sequence[Shard]) -> Any:
        return self.learner_group.update(
            episodes=list(shards),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: (self.iteration + 1) * sum(map(len, shards))},
            num_epochs=self.config.num_epochs,
            minibatch_size=self.config.minibatch_size,
        )

    def _on_learner(self, method: str, *args: Any) -> Any:
        """Calls a method of the learner, wherever it runs."""
        if self.learner_group.is_local:
            return getattr(self.learner_group._learner, method)(*args)
        results = self.learner_group.foreach_learner(lambda learner: getattr(learner, method)(*args))
        return next(iter(results)).get()

    def _log(
        self,
        shards: Sequence[Shard],
        scores: Sequence[Scores],
        learner_results: Any,
        reward_metrics: Mapping[str, float],
        laps: Mapping[str, float],
    ) -> None:
        self.metrics.aggregate(learner_results, key=LEARNER_RESULTS)
        rewards = np.concatenate([score.scores for score in scores])
        passes = np.concatenate([shard.num_passes for shard in shards])
        values = {
            "reward": {"mean": float(rewards.mean()), "std": float(rewards.std()), "version": scores[0].version},
            "reward_model": dict(reward_metrics),
            "reward_info": {
                name: float(np.concatenate([score.info[name] for score in scores]).mean()) for name in scores[0].info
            },
            "rollout": {"nat_passes_per_image": float(passes.mean()), "num_trajectories": len(rewards)},
            "time": dict(laps),
        }
        self.metrics.log_dict(values, key="generation", window=1)
        self.metrics.log_value(
            (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), sum(map(len, shards)), reduce="lifetime_sum"
        )


def learner_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """The learner's numbers in what `train()` returned."""
    return dict(result[LEARNER_RESULTS][DEFAULT_MODULE_ID])


def _join(shards: Sequence[Shard]) -> Finished:
    return Finished(
        np.concatenate([shard.final_samples for shard in shards]),
        np.concatenate([shard.context for shard in shards]),
        np.concatenate([shard.num_passes for shard in shards]),
        [name for shard in shards for name in shard.trajectory_ids],
    )


class _Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
