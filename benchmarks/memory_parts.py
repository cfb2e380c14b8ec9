"""What `benchmarks.memory` measures, one part in a process of its own, so that no peak hides behind another's.

`python -m benchmarks.memory_parts PART …` prints one line of JSON; `worker` then stays until its input ends, so that a
second one finds it alive.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch import Tensor

from adanat_rl.config.loading import resolve
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.generation.build import build_generator, load_tokenizer
from adanat_rl.generation.generator import Generator, Observation
from adanat_rl.generation.policies.build import PolicySpec
from adanat_rl.rewards.adversarial import AdversarialReward
from adanat_rl.rewards.base import RewardBatch, RewardModel, RewardOutput
from adanat_rl.rewards.worker import RewardParts, RewardWorker
from adanat_rl.rl.algorithm import GenerationPPO
from adanat_rl.rl.config import GenerationPPOConfig, RLInputs, build_algorithm_config, generator_factory
from adanat_rl.rl.env_runner import ShardEnvRunner
from adanat_rl.rl.shards import PolicyWeights, Shard, ShardKey, digest_weights
from benchmarks.large import HIDDEN_SIZE, NAT_ARGUMENTS, discriminator_features_file, weight_files
from benchmarks.process_memory import MEBI, Peak, memory_mb, own_and_shared_mb, read_mb

HORIZON = 4
NUM_CLASSES = NAT_ARGUMENTS["num_classes"]
LENGTH, WIDTH = NAT_ARGUMENTS["grid_size"] ** 2, NAT_ARGUMENTS["width"]
ROW_BYTES = LENGTH * WIDTH * 4  # features of a step of a trajectory on the disk
_NUM_ACTIONS = 4
_LEARNER_SHARD = 16


class ConstantFeatures:
    """Stands for the generator in the learner: a NAT pass over 4096 trajectories takes hours on a CPU."""

    horizon = HORIZON
    feature_shape = (LENGTH, WIDTH)
    feature_dtype = torch.float32
    block_rows = _LEARNER_SHARD
    device = torch.device("cpu")

    class sample_spec:  # noqa: N801, what the connector reads of it
        """Of tokens."""

        dtype = torch.int64

    def features(self, observation: Observation) -> Tensor:
        """A block of equal numbers."""
        return torch.full((len(observation.context), *self.feature_shape), 0.1)


class JustDecode(RewardModel):
    """Scores by the mean grey: what remains is the tokenizer."""

    def score(self, batch: RewardBatch) -> RewardOutput:
        """Mean of the pixels."""
        return RewardOutput(batch.images.mean(dim=(1, 2, 3)))


def settings(options: argparse.Namespace) -> ExperimentConfig:
    """The experiment that all parts belong to."""
    nat, tokenizer = weight_files(options.weights)
    gpus = 1 if options.device == "cuda" else 0
    return resolve(
        overrides=[
            f"generator.nat={nat}",
            f"generator.tokenizer={tokenizer}",
            f"generator.horizon={HORIZON}",
            f"generator.block_rows={min(64, 2 * options.count)}",
            f"policy.hidden_size={HIDDEN_SIZE}",
            f"training.shard_size={options.count}",
            f"training.trajectories_per_iteration={max(2, options.count)}",
            "ppo.features=disk",
            f"ppo.micro_batch_size={options.micro_batch_size}",
            f"ppo.num_epochs={options.epochs}",
            "resources.num_env_runners=0",
            "resources.num_reward_actors=0",
            f"resources.num_gpus_per_env_runner={gpus}",
            f"resources.num_gpus_per_learner={gpus}",
            f"resources.torch_threads={torch.get_num_threads()}",
            f"resources.driver_threads={torch.get_num_threads()}",
        ]
    )


def algorithm_settings(config: ExperimentConfig, learner_generator: Callable[[], Any]) -> GenerationPPOConfig:
    """RLlib's configuration of it, with the shapes of AdaNAT-L."""
    policy = PolicySpec(
        kind="adaptive",
        hidden_size=HIDDEN_SIZE,
        horizon=HORIZON,
        num_classes=NUM_CLASSES,
        num_actions=_NUM_ACTIONS,
        feature_length=LENGTH,
        feature_width=WIDTH,
    )
    inputs = RLInputs(
        policy=policy,
        effect_mask=torch.ones(HORIZON, _NUM_ACTIONS),
        contexts=np.arange(NUM_CLASSES),
        runner_generator=generator_factory(config, config.resources.num_gpus_per_env_runner, "env_runner"),
        learner_generator=learner_generator,
    )
    return build_algorithm_config(config, inputs, GenerationPPO)


def rollout(options: argparse.Namespace) -> dict[str, Any]:
    """One shard drawn by an env runner."""
    config = settings(options)
    runner = ShardEnvRunner(config=algorithm_settings(config, ConstantFeatures), worker_index=0)
    state = {name: value.cpu().numpy() for name, value in runner.module.state_dict().items()}
    weights = PolicyWeights(state, digest_weights(state))
    with Peak() as peak:
        shard = runner.sample_shard(weights, ShardKey(0, 1, 0))
    return {**peak.numbers, "nat_passes_per_image": float(shard.num_passes.mean())}


def reward(options: argparse.Namespace) -> dict[str, Any]:
    """One shard decoded and scored by a reward worker."""
    config = settings(options)
    tokenizer = load_tokenizer(config.generator, options.device)
    rows = min(options.count, config.generator.decode_rows)
    model = reward_model(config, options)
    parts = RewardParts(type(model).__name__, model, tokenizer.decode, None, options.device, rows)
    worker = RewardWorker(lambda: parts)
    shard = make_shard(0, options.count)
    with Peak() as peak:
        worker.score(0, shard.final_samples, shard.context)
    return {**peak.numbers, "model": parts.name, "decode_rows": rows}


def reward_model(config: ExperimentConfig, options: argparse.Namespace) -> RewardModel:
    """The projected discriminator; without the package that its DINO needs, none."""
    features = discriminator_features_file(options.weights)
    if not features.exists():
        return JustDecode()
    rows = 64 if options.device == "cuda" else 8  # of one pass; 64 in the presets
    projected = {"discriminator": "projected", "features": str(features), "micro_batch_size": rows}
    adversarial = config.reward.adversarial.model_copy(update=projected)
    return AdversarialReward(adversarial, NUM_CLASSES, seed=0, device=options.device)


def learner(options: argparse.Namespace) -> dict[str, Any]:
    """One update through connector, feature file and learner; the features come from no NAT."""
    config = settings(options)
    spaces = {DEFAULT_MODULE_ID: (gym.spaces.Box(-1, 1, (1,)), gym.spaces.Box(-1, 1, (_NUM_ACTIONS,)))}
    algorithm = algorithm_settings(config, ConstantFeatures)
    built = algorithm.build_learner(spaces=spaces)
    size = min(options.count, _LEARNER_SHARD)
    shards = [make_shard(number, size) for number in range(options.count // size)]
    steps = sum(map(len, shards))
    with Peak() as peak:
        built.update(
            episodes=shards,
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: steps},
            num_epochs=config.ppo.num_epochs,
            minibatch_size=config.ppo.minibatch_size,
        )
    return {
        **peak.numbers,
        "tokens_and_scalars_mb": sum(map(_bytes_of, shards)) / MEBI,
        "features_on_disk_mb": steps * ROW_BYTES / MEBI,
        "micro_batch_size": options.micro_batch_size,
    }


def worker(options: argparse.Namespace) -> dict[str, Any]:
    """The generator of a worker: built, and used once, so that all of its weights are in memory."""
    config = settings(options)
    before, read_before = own_and_shared_mb(), read_mb()
    start = time.perf_counter()
    generator = build_generator(config, options.device)
    build_s = time.perf_counter() - start
    _use(generator)
    after, read_after = own_and_shared_mb(), read_mb()
    return {
        "build_s": build_s,
        **{f"read_{name}_mb": read_after[name] - read_before[name] for name in read_after},
        **{f"{name}_mb": value for name, value in after.items()},
        "private_before_mb": before["private"],
        **{f"{name}_mb": value for name, value in memory_mb().items()},
    }


def make_shard(number: int, size: int) -> Shard:
    """A scored shard of random numbers, as a runner and the algorithm would leave it."""
    generator = np.random.default_rng(number)

    def normal(*shape: int) -> np.ndarray:
        return generator.standard_normal((size, *shape), np.float32)

    return Shard(
        key=ShardKey(0, 1, number),
        weights_digest="",
        samples=generator.integers(0, NAT_ARGUMENTS["vocab_size"], (size, HORIZON + 1, LENGTH)).astype(np.uint16),
        context=generator.integers(0, NUM_CLASSES, size),
        actions=0.1 * normal(HORIZON, _NUM_ACTIONS),
        log_probs=normal(HORIZON),
        decisions=normal(HORIZON, _NUM_ACTIONS),
        num_passes=np.full(size, 2 * HORIZON - 2, np.int16),
        returns=normal(HORIZON),
    )


def _bytes_of(shard: Shard) -> int:
    return sum(column.nbytes for column in vars(shard).values() if isinstance(column, np.ndarray))


@torch.no_grad()
def _use(generator: Generator) -> None:
    tokens = torch.zeros(1, LENGTH, dtype=torch.int64, device=generator.device)
    generator.features(Observation(tokens, tokens[:, 0], 1, None))
    generator.decode(tokens)


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "rollout": rollout,
    "reward": reward,
    "learner": learner,
    "worker": worker,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory_parts", description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--weights", type=Path, required=True, help="folder that `benchmarks.large` wrote")
    parser.add_argument("--count", type=int, default=8, help="trajectories")
    parser.add_argument("--micro-batch-size", type=int, default=16, help="env steps")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(json.dumps(PARTS[options.part](options)), flush=True)
    if options.part == "worker":
        sys.stdin.read()


if __name__ == "__main__":
    main()
