"""What a run would take: printed by `--dry-run`, nothing is launched."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.experiment.build import build_scene
from adanat_rl.experiment.cluster import required_cpus, required_gpus, usable_cpus
from adanat_rl.generation.policies.build import PolicySpec
from adanat_rl.rl.shards import Shard, ShardKey


def describe_run(config: ExperimentConfig, folder: Path) -> str:
    """Resources, sizes and counts as comment lines below the YAML."""
    scene = build_scene(config)
    spec = PolicySpec.of(config.policy, scene.generator)
    training, resources = config.training, config.resources
    actor = sum(parameter.numel() for parameter in spec.build_actor().parameters())
    critic = sum(parameter.numel() for parameter in spec.build_critic().parameters())
    passes = 2 * scene.generator.horizon - 2
    lines = [
        f"run folder: {folder} ({'exists: goes on there' if folder.exists() else 'new'})",
        f"workers: {resources.num_env_runners} env runners, {resources.num_reward_actors} reward actors, "
        f"{resources.num_learners} learner actors, on {resources.ray_address}",
        f"reserves: {required_cpus(resources):g} CPUs, {required_gpus(resources):g} GPUs; "
        f"this machine has {usable_cpus()} CPUs",
        f"parameters: actor {actor:,}, critic {critic:,}",
        f"iteration: {training.trajectories_per_iteration} trajectories in "
        f"{training.trajectories_per_iteration // training.shard_size} shards, at most {passes} NAT passes each",
        f"run: {training.num_iterations} iterations, "
        f"{training.num_iterations * training.trajectories_per_iteration * passes:,} NAT passes at most",
        f"between processes: {bytes_per_trajectory(config):.0f} bytes per trajectory",
    ]
    return "".join(f"# {line}\n" for line in lines).rstrip("\n")


def bytes_per_trajectory(config: ExperimentConfig) -> float:
    """Serialised size of a shard over its trajectories, for shards of this configuration."""
    scene = build_scene(config)
    space, spec = scene.generator.decision_space, scene.generator.sample_spec
    size, horizon = config.training.shard_size, scene.generator.horizon
    shard = Shard(
        key=ShardKey(config.seed, 1, 0),
        weights_digest="0" * 32,
        samples=np.zeros((size, horizon + 1, *spec.shape), spec.storage_dtype),
        context=np.zeros(size, np.int64),
        actions=np.zeros((size, horizon, space.num_actions), np.float32),
        log_probs=np.zeros((size, horizon), np.float32),
        decisions=np.zeros((size, horizon, space.num_decisions), np.float32),
        num_passes=np.zeros(size, np.int16),
    )
    return len(pickle.dumps(shard, protocol=5)) / size
