"""Which processes a run has, what each of them holds in memory, and which GPU each of them is on.

Memory is an estimate: weights, what is kept between calls, and of the phases that take turns the one that needs most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.experiment.footprint import (
    JUDGED_ROWS,
    PHOTO_ROWS,
    Costs,
    judge_network,
    photo_networks,
    policy_networks,
)
from adanat_rl.experiment.measuring import num_parameters, weight_bytes
from adanat_rl.experiment.outline import Outline
from adanat_rl.experiment.reward_outline import RewardOutline

GPU_CONTEXT_BYTES = 600 * 2**20  # CUDA and its libraries, in each process
HOST_BYTES = 700 * 2**20  # Python, torch and Ray, in each process
_LOGIT_BYTES = 32  # of a step for each image, token and code: logits of two steps, guided ones and noise, in float32


@dataclass(frozen=True)
class Part:
    """What takes memory.

    Args:
        what: in words; equal ones in one process are one copy if `shared`.
        in_turn: phases of a process take turns, so that only the largest one counts.
    """

    what: str
    num_bytes: int
    shared: bool = False
    in_turn: bool = False


@dataclass(frozen=True)
class Role:
    """What a process does: its memory, and whether it lies on a GPU."""

    name: str
    on_gpu: bool
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Process:
    """One of `count` equal processes.

    Args:
        num_gpus: that it reserves of Ray, or, for the driver, 0.
    """

    name: str
    count: int
    num_gpus: float
    roles: tuple[Role, ...]

    @property
    def on_gpu(self) -> bool:
        """Whether any of its roles uses a GPU."""
        return any(role.on_gpu for role in self.roles)

    def parts(self, on_gpu: bool) -> list[Part]:
        """What it holds on the GPU or on the host, the largest first; what is not counted there is left out."""
        mine = [part for role in self.roles if role.on_gpu == on_gpu for part in role.parts]
        kept = [part for part in dict.fromkeys(mine) if part.shared] + [
            part for part in mine if not (part.shared or part.in_turn)
        ]
        phases = sorted((part for part in mine if part.in_turn), key=lambda part: part.num_bytes)[-1:]
        if on_gpu:
            base = [Part("CUDA", GPU_CONTEXT_BYTES)] if self.on_gpu else []
        else:
            base = [Part("Python, torch, Ray", HOST_BYTES)]
        return sorted([*base, *kept, *phases], key=lambda part: -part.num_bytes)

    def num_bytes(self, on_gpu: bool) -> int:
        """What it takes there."""
        return sum(part.num_bytes for part in self.parts(on_gpu))


def processes_of(
    config: ExperimentConfig, outline: Outline, costs: Costs, reward: RewardOutline | None
) -> list[Process]:
    """All processes of a run, the driver first; what has no process of its own is done by the driver."""
    resources, num_rewards = config.resources, len(config.reward.kinds)
    runner = Role("env runner", resources.num_gpus_per_env_runner > 0, tuple(_runner(config, outline, costs)))
    scorer = Role("reward", resources.num_gpus_per_reward_actor > 0, tuple(_reward(config, outline, costs, reward)))
    learner = Role("learner", resources.num_gpus_per_learner > 0, tuple(_learner(config, outline, costs)))
    driver = [Role("driver", resources.num_gpus_per_driver > 0, tuple(_driver(config, outline, costs)))]
    others = []
    for role, name, count, num_gpus in (
        (runner, "env runner", resources.num_env_runners, resources.num_gpus_per_env_runner),
        (scorer, "reward actor", num_rewards * resources.num_reward_actors, resources.num_gpus_per_reward_actor),
        (learner, "learner", resources.num_learners, resources.num_gpus_per_learner),
    ):
        if count:
            others.append(Process(name, count, num_gpus, (role,)))
        else:
            driver.append(role)
    return [Process("driver", 1, 0.0, tuple(driver)), *others]


def place(processes: Iterable[Process]) -> list[list[str]]:
    """Names of the processes on each GPU of one machine, as Ray deals them: in the order in which they start, each to
    the fullest GPU that still has room; the driver takes the first GPU.
    """
    by_name = {process.name: process for process in processes}
    free: list[float] = []
    names: list[list[str]] = []
    if by_name["driver"].on_gpu:
        free, names = [1.0], [["driver"]]
    for name in ("reward actor", "env runner", "learner"):
        process = by_name.get(name)
        if process is None or process.num_gpus <= 0:
            continue
        for _ in range(process.count):
            for gpu in _next_gpus(free, process.num_gpus):
                if gpu == len(free):
                    free.append(1.0)
                    names.append([])
                free[gpu] -= min(1.0, process.num_gpus)
                names[gpu].append(name)
    return names


def _next_gpus(free: list[float], amount: float) -> list[int]:
    """GPUs for one process; the next number is a fresh one."""
    if amount > 1:
        whole = [gpu for gpu, left in enumerate(free) if left >= 1]
        return [*whole, *range(len(free), len(free) + 64)][: round(amount)]
    fitting = [gpu for gpu, left in enumerate(free) if left >= amount - 1e-9]
    return [min(fitting, key=lambda gpu: free[gpu])] if fitting else [len(free)]


def gpu_bytes(processes: Iterable[Process], names: Iterable[str]) -> int:
    """What processes take of the GPU that they share."""
    by_name = {process.name: process for process in processes}
    return sum(by_name[name].num_bytes(on_gpu=True) for name in names)


def checkpoint_bytes(outline: Outline, reward: RewardOutline | None) -> int:
    """One checkpoint: actor and critic with Adam's two moments, the averaged actor, the trained reward likewise."""
    actor, critic = (num_parameters(network) for network in policy_networks(outline))
    trained = 0 if reward is None else reward.num_trained_parameters
    return 4 * (3 * (actor + critic) + actor + 3 * trained)


def feature_bytes(config: ExperimentConfig, outline: Outline, dtype: torch.dtype) -> int:
    """NAT features of a train batch."""
    samples = config.training.trajectories_per_iteration * config.generator.horizon
    return samples * outline.length * outline.nat.width * dtype.itemsize


def nat_dtype(outline: Outline) -> torch.dtype:
    """What the NAT is stored as."""
    return next(iter(outline.nat.parameters())).dtype


def _generator(outline: Outline) -> Iterator[Part]:
    """What every process with a generator holds."""
    yield Part("NAT", weight_bytes(outline.nat), shared=True)
    yield Part("tokenizer", weight_bytes(outline.tokenizer), shared=True)
    yield Part("first step", outline.first_step_bytes)


def _drawing(outline: Outline, costs: Costs, rows: int) -> int:
    """A step of a batch of images: logits and noise of all of them, and a call of the NAT."""
    return _LOGIT_BYTES * rows * outline.length * outline.vocab_size + costs.nat.peak_bytes


def _runner(config: ExperimentConfig, outline: Outline, costs: Costs) -> Iterator[Part]:
    yield from _generator(outline)
    yield Part("actor", weight_bytes(policy_networks(outline)[0]))
    size = max(config.training.shard_size, config.evaluation.batch_size if config.evaluation.on_env_runners else 0)
    yield Part(f"drawing {size} images", _drawing(outline, costs, size), in_turn=True)
    if config.keep_features and outline.policy.needs_features:
        yield Part("features of the train batch", feature_bytes(config, outline, nat_dtype(outline)))


def _learner(config: ExperimentConfig, outline: Outline, costs: Costs) -> Iterator[Part]:
    actor, critic = policy_networks(outline)
    yield Part("actor, critic, gradients, Adam", 4 * (weight_bytes(actor) + weight_bytes(critic)) + weight_bytes(actor))
    if not outline.policy.needs_features:
        return
    if not config.keep_features:
        yield from _generator(outline)
        yield Part("a call of the NAT", costs.nat.peak_bytes, in_turn=True)
    if config.ppo.features != "disk":
        yield Part("features of the train batch", feature_bytes(config, outline, nat_dtype(outline)))
    yield Part(f"learning from {costs.micro_rows} env steps", costs.update.peak_bytes, in_turn=True)


def _reward(config: ExperimentConfig, outline: Outline, costs: Costs, reward: RewardOutline | None) -> Iterator[Part]:
    yield Part("tokenizer", weight_bytes(outline.tokenizer), shared=True)
    image_bytes = 4 * outline.image_shape[0] * outline.image_shape[1] * outline.image_shape[2]
    images = config.training.shard_size * image_bytes
    yield Part(f"decoding {costs.decode_rows} images", costs.decode.peak_bytes + 2 * images, in_turn=True)
    if reward is None:
        return
    if reward.trained is not None:
        yield Part(f"{reward.name}, gradients, Adam", 4 * weight_bytes(reward.trained))
    if reward.frozen is not None:
        yield Part(f"{reward.name}, frozen part", weight_bytes(reward.frozen))
    yield Part(f"scoring {costs.score_rows} images", costs.score.peak_bytes + images, in_turn=True)
    yield Part("an update of the reward model", costs.update_reward.peak_bytes, in_turn=True)


def _driver(config: ExperimentConfig, outline: Outline, costs: Costs) -> Iterator[Part]:
    yield from _generator(outline)
    size = config.evaluation.batch_size
    judge = judge_network(config)
    if judge is not None:
        yield Part("Inception", weight_bytes(judge))
        yield Part(f"judging {JUDGED_ROWS} images", costs.judge.peak_bytes, in_turn=True)
    for name, network, _ in photo_networks(config):
        yield Part(name, weight_bytes(network))
    if costs.photos.peak_bytes:
        yield Part(f"judging {PHOTO_ROWS} photos", costs.photos.peak_bytes, in_turn=True)
    noise = size * costs.noise.peak_bytes
    yield Part(f"drawing {size} images", max(noise, _drawing(outline, costs, size)), in_turn=True)
    decoding = costs.decode.peak_bytes * size // costs.decode_rows
    yield Part(f"decoding {size} images", decoding, in_turn=True)
