"""GenerationPPO: RLlib's PPO with a training step of its own.

sample shards → score centrally → [reward update ‖ learner update] → next noise. Weights go to the runners with each
request for a shard, so there is no separate sync.

All of it runs in a thread beside the caller's, which stays free: for signals, and for the news that Ray is gone. An
iteration counts when all of it is done; until then the state is that of the iteration before, kept apart.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch import Tensor

from adanat_rl.config.side_thread import SideThread
from adanat_rl.rewards.service import Finished, RewardService
from adanat_rl.rewards.worker import Scores
from adanat_rl.rl.advantages import group_advantages, terminal_returns
from adanat_rl.rl.averaging import ACTOR_PREFIX
from adanat_rl.rl.cluster_watch import ClusterWatch
from adanat_rl.rl.config import GenerationPPOConfig
from adanat_rl.rl.dealer import DealerCounters, ShardDealer
from adanat_rl.rl.evaluation import DrawOnRunners
from adanat_rl.rl.exploration import action_std
from adanat_rl.rl.learning import Learned, Learning
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
    """Raised out of `train()` and `warm_up()`: the state is still that of the last finished iteration."""


Result = TypeVar("Result")


class GenerationPPO(PPO):
    """Trains a generation policy.

    `attach` hands over the reward service before the first `train()`; `warm_up` is called once on a fresh run.
    Whatever ends `train()`, the state that this gives is that of the last finished iteration: a copy, kept apart.
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
        self._watch: ClusterWatch | None = None
        self._side = SideThread("adanat-rl iteration")
        self._finished: dict[str, Tensor] | None = None  # state after the last finished iteration
        self._dealer: ShardDealer | None = None
        self._last_rollout: Rollout | None = None
        resources = config.experiment.resources
        group: LearnerGroup = self.learner_group  # type: ignore[has-type]
        self._learning = Learning(group, self._rebuild_learners, resources, self._check)
        manager = self.env_runner_group._worker_manager  # no public getter
        if manager.num_actors():
            self._dealer = ShardDealer(dict(manager.actors()), resources)
        else:
            # Kept for runners that never come. Ray would try to rescue it from a raylet that ends, and end us doing so.
            self.env_runner_group._remote_config_obj_ref = None

    @override(PPO)
    def _setup_logdir(self) -> None:
        """Without Tune there is none: the host would make one in ~/ray_results, and nothing is written there."""
        if self._storage:
            super()._setup_logdir()
        else:
            self._logdir = tempfile.gettempdir()

    def attach(
        self,
        rewards: RewardService,
        interrupted: Callable[[], bool] = lambda: False,
        watch: ClusterWatch | None = None,
    ) -> None:
        """Sets the reward service, which the caller owns and closes.

        Args:
            interrupted: asked all the time; True makes `train()` and `warm_up()` raise `RolloutInterruptedError`.
            watch: asked all the time, raises `RunError` when Ray has failed; closed along with the algorithm.
        """
        self._rewards = rewards
        self._interrupted = interrupted
        self._watch = watch

    def warm_up(self) -> dict[str, float]:
        """Trains the reward model on trajectories of the untrained policy, as often as it wishes; returns its
        metrics.

        Raises:
            RolloutInterruptedError: it was interrupted. RunError: a process failed for good.
        """
        return self._aside(self._warm_up)

    @override(PPO)
    def train(self) -> Any:
        """One iteration and RLlib's result of it.

        Raises:
            RolloutInterruptedError: it was interrupted. RunError: a process failed for good.
        """
        self._state()  # from now on a learner that dies can be replaced
        result, self._finished = self._aside(self._train)
        return result

    def sample(self, iteration: int) -> list[Shard]:
        """Draws all shards of an iteration with the weights as they are, wherever the runners are."""
        training = self._experiment.training
        count = training.trajectories_per_iteration // training.shard_size
        keys = [ShardKey(self._experiment.seed, iteration, number) for number in range(count)]
        weights = self._weights()
        if self._dealer is None:
            return [self._sample_here(weights, key) for key in keys]
        return self._dealer.collect(weights, keys, self._check)

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
        learned = self._learn(shards)
        clock.lap("learn_s")
        reward_metrics = rewards.finish_update()
        clock.lap("reward_update_s")
        self._learned = learned
        self._last_rollout = Rollout(shards, scores, learned.advantages, hash_batch(shards))
        self._log(shards, scores, learned.metrics, reward_metrics, clock.laps)

    def draw_on_runners(self, batch_size: int) -> DrawOnRunners | None:
        """Draws evaluations by the env runners; None where the driver draws."""
        if self._dealer is None:
            return None
        return DrawOnRunners(self._dealer, batch_size, self._check, self._aside)

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

    def failure_counters(self) -> dict[str, int]:
        """What was repaired since this was made: lost env runners, shards dealt again, replaced learners."""
        return {
            "lost_env_runners": self.dealer_counters.lost_runners,
            "redealt_shards": self.dealer_counters.redealt_shards,
            "replaced_learners": self._learning.num_replaced,
        }

    def training_state(self) -> dict[str, Tensor]:
        """Policy, critic, optimizer and action noise after the last finished iteration, flat."""
        return dict(self._state())

    def load_training_state(self, state: Mapping[str, Tensor], iteration: int) -> None:
        """Continues after `iteration` with that state."""
        self._aside(lambda: self._learning.call("load_training_state", dict(state)))
        self._finished = dict(state)
        self._iteration = iteration

    def averaged_actor(self) -> dict[str, Tensor]:
        """State of the averaged actor: the policy to evaluate and to export."""
        prefix = f"average.{ACTOR_PREFIX}"
        state = self._state()
        return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

    def inference_state(self) -> dict[str, np.ndarray]:
        """What an env runner needs: actor and action noise as arrays."""
        module = {name.partition(".")[2]: value for name, value in self._state().items() if _is_module(name)}
        return {name: np.array(value) for name, value in module.items() if not name.startswith("critic.")}

    @override(PPO)
    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """Left to the dealer: the host's version blocks on a runner that hangs."""
        return []

    @override(PPO)
    def cleanup(self) -> None:
        """Ends the actors without waiting for one that hangs."""
        if self._watch is not None:
            self._watch.close()
            if self._watch.has_failed:
                return
        if self._dealer is not None:
            self._dealer.close()
            manager = self.env_runner_group._worker_manager
            manager.clear()
        if hasattr(self, "_learning"):
            self._learning.close()
            if not self._learning.group.is_local:
                self.learner_group = None  # the host would say goodbye to its actors, and fail where one was lost
        super().cleanup()

    @property
    def _reward_service(self) -> RewardService:
        if self._rewards is None:
            raise RuntimeError("call attach(rewards) before training")
        return self._rewards

    def _weights(self) -> PolicyWeights:
        """What runners draw with; for remote ones it lies in the object store, once."""
        state = self.inference_state()
        digest = digest_weights(state)
        if self._dealer is None:
            return PolicyWeights(state, digest)
        self._check()  # to put something into the store of a raylet that is dead ends the process
        return PolicyWeights(ray.put(state), digest)

    def _aside(self, work: Callable[[], Result]) -> Result:
        """Does it in the side thread, while this one watches."""
        return self._side.run(work, check=self._check)

    def _check_cluster(self) -> None:
        if self._watch is not None:
            self._watch()

    def _check(self) -> None:
        self._check_cluster()
        if self._interrupted():
            raise RolloutInterruptedError

    def _warm_up(self) -> dict[str, float]:
        rewards = self._reward_service
        if not rewards.num_warmup_updates:
            return {}
        shards = self.sample(WARMUP_ITERATION)
        key = (self._experiment.seed, WARMUP_ITERATION)
        rewards.start_update(_join(shards), key, rewards.num_warmup_updates)
        return rewards.finish_update()

    def _train(self) -> tuple[Any, dict[str, Tensor]]:
        return super().train(), self._learned.state

    def _state(self) -> dict[str, Tensor]:
        """It is not interrupted: whoever was asked to stop wants it for a checkpoint."""
        if self._finished is None:
            self._finished = self._side.run(self._state_now, check=self._check_cluster)
        return self._finished

    def _state_now(self) -> dict[str, Tensor]:
        return dict(self._learning.call("training_state"))

    def _rebuild_learners(self) -> LearnerGroup:
        group: LearnerGroup = self.config.build_learner_group(rl_module_spec=self._learning.group._module_spec)
        self.learner_group = group
        return group

    def _sample_here(self, weights: PolicyWeights, key: ShardKey) -> Shard:
        self._check()
        shard: Shard = self.env_runner_group.local_env_runner.sample_shard(weights, key)
        return shard

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

    def _learn(self, shards: Sequence[Shard]) -> Learned:
        settings = {
            "timesteps": {NUM_ENV_STEPS_SAMPLED_LIFETIME: (self.iteration + 1) * sum(map(len, shards))},
            "num_epochs": self.config.num_epochs,
            "minibatch_size": self.config.minibatch_size,
        }
        next_std = action_std(self._experiment.exploration, self.iteration + 2)
        return self._learning.update(shards, self.training_state(), settings, next_std)

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


def _is_module(name: str) -> bool:
    """Whether an entry of a training state is a weight or buffer of the module."""
    return name.startswith("module.")


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
