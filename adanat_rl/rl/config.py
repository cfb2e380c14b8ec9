"""From the experiment's configuration to RLlib's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.exceptions import RayActorError
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.annotations import override
from ray.tune.registry import register_env
from torch import Tensor

from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.envs import GenerationVectorEnv
from adanat_rl.generation.build import build_decision_space, build_generator
from adanat_rl.generation.decisions import DecisionSpace, inverse_smoothing
from adanat_rl.generation.devices import device_for
from adanat_rl.generation.generator import Generator
from adanat_rl.generation.noise import ImageNoise
from adanat_rl.generation.policies.build import PolicySpec
from adanat_rl.rl.connectors import ShardsToBatch
from adanat_rl.rl.env_runner import ShardEnvRunner
from adanat_rl.rl.exploration import action_std
from adanat_rl.rl.learner import GenerationPPOLearner
from adanat_rl.rl.rl_module import GenerationRLModule

GeneratorFactory = Callable[[], Generator]
_ENV_NAME = "adanat_rl_generation"


@dataclass(frozen=True)
class RLInputs:
    """What the algorithm needs to know about the generator and the data.

    Args:
        policy: numbers of actor and critic. effect_mask: `[T, A]`. contexts: labels to draw from, `[M]` int64.
        runner_generator, learner_generator: build the generator in the processes of env runners and learners.
    """

    policy: PolicySpec
    effect_mask: Tensor
    contexts: np.ndarray
    runner_generator: GeneratorFactory
    learner_generator: GeneratorFactory


class GenerationPPOConfig(PPOConfig):
    """RLlib's PPO configuration plus the experiment's."""

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class)
        self.experiment: ExperimentConfig | None = None
        self.inputs: RLInputs | None = None

    @override(PPOConfig)
    def build_learner_group(self, **kwargs: Any) -> LearnerGroup:
        """The host's learners.

        Raises:
            RayActorError: one was lost while it started.
        """
        try:
            return super().build_learner_group(**kwargs)
        except TypeError as error:  # Ray's executor then raises an error that it has not kept: None
            if isinstance(error.__context__, RayActorError):
                raise error.__context__ from None
            raise


def generator_factory(config: ExperimentConfig, num_gpus: float, setting: str) -> GeneratorFactory:
    """A factory that ships the configuration, not the weights; on the GPU where the process has one."""
    return partial(_build_here, config, num_gpus, setting)


def _build_here(config: ExperimentConfig, num_gpus: float, setting: str) -> Generator:
    return build_generator(config, device_for(num_gpus, setting))


def build_algorithm_config(experiment: ExperimentConfig, inputs: RLInputs, algo_class: Any) -> GenerationPPOConfig:
    """The paper's PPO on RLlib's new API stack, with shards in place of episodes."""
    register_env(_ENV_NAME, _make_env)
    resources, ppo, training = experiment.resources, experiment.ppo, experiment.training
    config = GenerationPPOConfig(algo_class)
    config.experiment = experiment
    config.inputs = inputs
    config.environment(
        _ENV_NAME,
        env_config=_env_config(experiment, inputs),
        disable_env_checking=True,
    )
    config.env_runners(
        env_runner_cls=ShardEnvRunner,
        num_env_runners=resources.num_env_runners,
        num_envs_per_env_runner=training.shard_size,
        num_cpus_per_env_runner=resources.num_cpus_per_env_runner,
        num_gpus_per_env_runner=resources.num_gpus_per_env_runner,
        gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT,
        batch_mode="complete_episodes",
        create_env_on_local_worker=resources.num_env_runners == 0,
        merge_env_runner_states=False,
        broadcast_env_runner_states=False,
    )
    config.rl_module(
        rl_module_spec=RLModuleSpec(
            module_class=GenerationRLModule,
            model_config={
                "policy": inputs.policy.as_dict(),
                "seed": experiment.seed,
                "action_std": action_std(experiment.exploration, 1),
            },
        )
    )
    config.learners(
        num_learners=resources.num_learners,
        num_cpus_per_learner=resources.num_cpus_per_learner if resources.num_learners else 0,
        num_gpus_per_learner=resources.num_gpus_per_learner,
        learner_class=GenerationPPOLearner,
        learner_config_dict=_learner_config(experiment, inputs),
        add_default_connectors_to_learner_pipeline=False,
        learner_connector=partial(_learner_connectors, inputs, experiment),
    )
    config.training(
        lr=ppo.lr,
        gamma=1.0,
        lambda_=1.0,
        clip_param=ppo.clip,
        num_epochs=ppo.num_epochs,
        minibatch_size=ppo.minibatch_size,
        shuffle_batch_per_epoch=False,
        use_kl_loss=False,
        kl_coeff=0.0,
        vf_loss_coeff=ppo.value_coefficient,
        vf_clip_param=float("inf"),
        entropy_coeff=ppo.entropy_coefficient,
        grad_clip=ppo.grad_clip,
        grad_clip_by="global_norm",
        train_batch_size_per_learner=training.trajectories_per_iteration * inputs.policy.horizon,
    )
    config.fault_tolerance(
        restart_failed_env_runners=True,
        delay_between_env_runner_restarts_s=1.0,
        max_num_env_runner_restarts=1_000_000,
        env_runner_health_probe_timeout_s=resources.start_timeout_s,
    )
    config.debugging(seed=experiment.seed, log_level="ERROR", log_sys_usage=False)
    return config


def _env_config(experiment: ExperimentConfig, inputs: RLInputs) -> dict[str, Any]:
    """What `ShardEnvRunner` reads."""
    return {
        "generator_factory": inputs.runner_generator,
        "contexts": inputs.contexts,
        "shard_size": experiment.training.shard_size,
        "group_size": experiment.ppo.group_size if experiment.ppo.advantage != "critic" else 1,
        "keep_features": experiment.keep_features and inputs.policy.needs_features,
        "torch_threads": experiment.resources.torch_threads,
        "action_limit": experiment.decisions.action_limit,
        "fetch_timeout_s": experiment.resources.shard_timeout_s,
    }


def _learner_config(experiment: ExperimentConfig, inputs: RLInputs) -> dict[str, Any]:
    """What `GenerationPPOLearner` reads."""
    return {
        "torch_threads": experiment.resources.torch_threads,
        "driver_threads": experiment.resources.driver_threads,
        "adam_betas": experiment.ppo.adam_betas,
        "average_decay": experiment.policy.average_decay,
        "micro_batch_size": experiment.ppo.micro_batch_size,
        "precision": experiment.ppo.precision,
        "learns_critic": experiment.ppo.advantage == "critic",
        "leash": experiment.ppo.leash,
        "leash_coefficient": experiment.ppo.leash_coefficient,
    }


def base_actions(space: DecisionSpace) -> Tensor:
    """Actions float32 `[T, A]` whose decisions are the base schedule of a space, as its base bounds leave it."""
    if space.residual:
        return torch.zeros(space.horizon, space.num_actions)
    pre_activations = space.base_pre_activations(space.base_schedule.double().numpy())
    return torch.from_numpy(inverse_smoothing(pre_activations, space.smoothing)).float()


def _leash_base(experiment: ExperimentConfig, inputs: RLInputs) -> Tensor | None:
    """What the leash holds on to."""
    if experiment.ppo.leash == "none":
        return None
    if experiment.decisions.residual:
        return torch.zeros(inputs.effect_mask.shape)
    return base_actions(build_decision_space(experiment.decisions, experiment.generator.horizon))


def _learner_connectors(inputs: RLInputs, experiment: ExperimentConfig, *_: Any) -> list[Any]:
    return [
        ShardsToBatch(
            inputs.effect_mask,
            inputs.policy.needs_features,
            inputs.learner_generator,
            experiment.ppo.normalize_advantages,
            experiment.resources.torch_threads,
            experiment.resources.driver_threads,
            value_chunk=experiment.ppo.micro_batch_size or 4096,
            on_disk=experiment.ppo.features == "disk",
            learns_critic=experiment.ppo.advantage == "critic",
            base_actions=_leash_base(experiment, inputs),
        )
    ]


def _make_env(context: dict[str, Any]) -> GenerationVectorEnv:
    """The environment of an env runner; its rewards are scored centrally, so its own scorer must never be asked."""
    return GenerationVectorEnv(
        context["generator_factory"](),
        scorer=_scored_centrally,
        noise_factory=ImageNoise,
        contexts=context["contexts"],
        num_envs=context.get("num_envs", 1),
        action_limit=context["action_limit"],
    )


def _scored_centrally(samples: Tensor, context: Tensor) -> Tensor:
    raise RuntimeError("rewards are scored centrally by the algorithm, not by the environment")
