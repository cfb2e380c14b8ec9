"""What a run would take: printed by `--dry-run`, nothing is launched and no weights are read."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.experiment.cluster import required_cpus, required_gpus
from adanat_rl.experiment.duration import Duration, assumptions, estimate_duration
from adanat_rl.experiment.footprint import (
    Costs,
    Work,
    costs_of,
    judge_network,
    photo_networks,
    policy_networks,
    work_of,
)
from adanat_rl.experiment.inputs import Input, inputs_of
from adanat_rl.experiment.limits import usable_cpus
from adanat_rl.experiment.machines import Machine
from adanat_rl.experiment.measuring import num_parameters
from adanat_rl.experiment.outline import Outline, UnknownNetworkError, outline_of
from adanat_rl.experiment.reward_outline import RewardOutline, reward_outline
from adanat_rl.experiment.workers import (
    Process,
    checkpoint_bytes,
    feature_bytes,
    gpu_bytes,
    nat_dtype,
    place,
    processes_of,
)
from adanat_rl.generation.text.table import table_bytes
from adanat_rl.rl.shards import Shard, ShardKey


def describe_run(config: ExperimentConfig, folder: Path, machine: Machine | None = None) -> str:
    """Files, resources, sizes and counts as comment lines below the YAML.

    Args:
        folder: of the run. machine: what the run's duration is estimated for.

    Raises:
        UserError: a file is damaged, or files do not fit each other.
    """
    return "\n".join(f"# {line}" for line in _lines(config, folder, machine))


def _lines(config: ExperimentConfig, folder: Path, machine: Machine | None) -> Iterator[str]:
    yield f"run folder: {folder} ({'exists: goes on there' if folder.exists() else 'new'})"
    yield from _files(inputs_of(config))
    yield from _workers(config)
    try:
        outline = outline_of(config)
    except UnknownNetworkError as error:
        yield f"parameters, arithmetic, memory and time: not known yet: {error}"
        return
    reward = reward_outline(config, outline)
    costs = costs_of(config, outline, reward)
    work = work_of(config, outline, costs, reward)
    processes = processes_of(config, outline, costs, reward)
    yield from _parameters(config, outline, reward)
    yield from _iteration(config, outline, work)
    yield f"between processes: {bytes_per_trajectory(config, outline):.0f} bytes per trajectory"
    yield from _memory(processes)
    yield from _gpus(processes, machine)
    yield from _disk(config, outline, reward)
    if machine is not None:
        yield from _time(config, outline, costs, work, reward, processes, machine)


def bytes_per_trajectory(config: ExperimentConfig, outline: Outline) -> float:
    """Serialised size of a shard over its trajectories, for shards of this configuration."""
    size, horizon, space = config.training.shard_size, config.generator.horizon, outline.space
    shard = Shard(
        key=ShardKey(config.seed, 1, 0),
        weights_digest="0" * 32,
        samples=np.zeros((size, horizon + 1, outline.length), outline.storage_dtype),
        context=np.zeros(size, np.int64),
        actions=np.zeros((size, horizon, space.num_actions), np.float32),
        log_probs=np.zeros((size, horizon), np.float32),
        decisions=np.zeros((size, horizon, space.num_decisions), np.float32),
        num_passes=np.zeros(size, np.int16),
    )
    return len(pickle.dumps(shard, protocol=5)) / size


def _files(inputs: list[Input]) -> Iterator[str]:
    missing = sum(not one.there for one in inputs)
    yield f"files: {len(inputs)}, {f'{missing} of them missing' if missing else 'all there'}"
    width = max((len(one.setting) for one in inputs), default=0)
    for one in inputs:
        state = "there" if one.there else "missing" if one.needed else "missing, for prepare and sample only"
        yield f"  {one.setting:<{width}}  {one.path}: {state}"
        if not one.there:
            yield f"  {'':<{width}}    {one.about.removeprefix(':').removeprefix(';').strip()}"


def _workers(config: ExperimentConfig) -> Iterator[str]:
    resources, num_rewards = config.resources, len(config.reward.kinds)
    yield (
        f"workers: {resources.num_env_runners} env runners, {num_rewards * resources.num_reward_actors} reward actors, "
        f"{resources.num_learners} learner actors, on {resources.ray_address}"
    )
    yield (
        f"reserves: {required_cpus(resources, num_rewards):g} CPUs, {required_gpus(resources, num_rewards):g} GPUs; "
        f"this machine has {usable_cpus()} CPUs"
    )


def _parameters(config: ExperimentConfig, outline: Outline, reward: RewardOutline | None) -> Iterator[str]:
    actor, critic = policy_networks(outline)
    parts = [
        f"NAT {num_parameters(outline.nat):,}",
        f"tokenizer {num_parameters(outline.tokenizer):,}",
        f"actor {num_parameters(actor):,}",
        f"critic {num_parameters(critic):,}",
    ]
    if reward is None:
        parts.append(f"reward {config.reward.kind} not counted")
    else:
        parts.append(f"{reward.name} {reward.num_parameters:,}")
        if reward.frozen is not None and reward.trained is not None:
            parts[-1] += f" ({reward.num_trained_parameters:,} of them trained)"
    judge = judge_network(config)
    if judge is not None:
        parts.append(f"Inception {num_parameters(judge):,}")
    parts += [f"{name} {num_parameters(network):,}" for name, network, _ in photo_networks(config)]
    yield f"parameters: {', '.join(parts)}"
    expected = [
        name
        for name, source in (("NAT", outline.nat_source), ("tokenizer", outline.tokenizer_source))
        if source == "expected"
    ]
    if expected:
        yield f"  {' and '.join(expected)} as expected of the missing files"


def _iteration(config: ExperimentConfig, outline: Outline, work: Work) -> Iterator[str]:
    training = config.training
    shards = training.trajectories_per_iteration // training.shard_size
    yield (
        f"iteration: {training.trajectories_per_iteration} trajectories in {shards} shards, "
        f"at most {outline.passes_per_image} NAT passes each"
    )
    learner = f" and {work.feature_passes:,} in the learner" if work.feature_passes else ""
    yield f"  NAT passes: {work.passes:,} at most: {work.rollout_passes:,} in the rollout{learner}"
    phases = (
        ("rollout", work.rollout),
        ("features for the learner", work.features),
        ("actor and critic", work.learning),
        ("decoding", work.decoding + work.reward_decoding),
        ("reward model", work.scoring + work.reward_update),
    )
    shown = ", ".join(f"{name} {_tera(flops)}" for name, flops in phases if flops)
    yield f"  TFLOPs: {_tera(work.flops)} at most: {shown}"
    yield f"run: {training.num_iterations} iterations, {training.num_iterations * work.passes:,} NAT passes at most"


def _memory(processes: list[Process]) -> Iterator[str]:
    yield "memory of each process, estimated: weights, what is kept, and the phase that takes most"
    for process in processes:
        count = f"{process.count} × " if process.count > 1 else ""
        for on_gpu, where in ((True, "GPU"), (False, "host")):
            if on_gpu and not process.on_gpu:
                continue
            parts = [part for part in process.parts(on_gpu) if part.num_bytes >= 2**20]
            shown = ", ".join(f"{part.what} {_size(part.num_bytes)}" for part in parts)
            yield f"  {count}{process.name}, {where}: {_size(process.num_bytes(on_gpu))}: {shown}"


def _gpus(processes: list[Process], machine: Machine | None) -> Iterator[str]:
    gpus = place(processes)
    if not gpus:
        yield "GPUs: none are used"
        return
    yield f"GPUs: {len(gpus)}, as Ray deals them on one machine"
    by_name = {process.name: process for process in processes}
    first = 0
    for names, group in groupby(gpus):
        count = len(list(group))
        where = f"GPU {first}" if count == 1 else f"GPUs {first}-{first + count - 1}, each"
        first += count
        shown = ", ".join(
            f"{names.count(name)} × {name}" + (f" of {by_name[name].num_gpus:g}" if by_name[name].num_gpus else "")
            for name in dict.fromkeys(names)
        )
        room = ""
        needed = gpu_bytes(processes, names)
        if machine is not None and machine.device.is_gpu:
            memory = machine.device.memory_bytes
            room = f" of {memory / 1e9:g} GB" + ("" if needed <= memory else ": DOES NOT FIT")
        yield f"  {where}: {shown}; {needed / 1e9:.1f} GB{room}"


def _disk(config: ExperimentConfig, outline: Outline, reward: RewardOutline | None) -> Iterator[str]:
    one, kept = checkpoint_bytes(outline, reward), config.checkpoints.keep + 1
    yield f"disk: {_size(one)} a checkpoint, {_size(kept * one)} for {config.checkpoints.keep} and one being written"
    if config.ppo.features == "disk" and outline.policy.needs_features:
        size = feature_bytes(config, outline, nat_dtype(outline))
        yield f"  {_size(size)} for features of a train batch, in the folder for temporary files (ppo.features)"
    if outline.text_shape is not None:
        length, width = outline.text_shape
        million = table_bytes(1_000_000, length, width, width)
        yield f"  {_size(million)} for a million encoded captions (generator.captions)"


def _time(
    config: ExperimentConfig,
    outline: Outline,
    costs: Costs,
    work: Work,
    reward: RewardOutline | None,
    processes: list[Process],
    machine: Machine,
) -> Iterator[str]:
    gpus = place(processes)
    if machine.device.is_gpu and not gpus:
        yield f"time on {machine.name}: no worker takes a GPU; set resources.num_gpus_per_env_runner and the like"
        return
    if machine.device.is_gpu and len(gpus) > machine.count:
        yield (
            f"time on {machine.name}: DOES NOT FIT: the workers take {len(gpus)} GPUs, it has {machine.count}; "
            "lower resources.num_env_runners, resources.num_reward_actors or resources.num_gpus_per_*"
        )
        return
    took = estimate_duration(config, outline, costs, work, reward, processes, machine)
    yield (
        f"time on {machine.name}, estimated: {_duration(took.iteration)} an iteration, {_duration(took.run)} the run"
    )
    yield f"  iteration: {', '.join(f'{name} {_duration(seconds)}' for name, seconds in _phases(took) if seconds)}"
    yield (
        f"  {_duration(took.evaluation)} an evaluation, {_duration(took.final)} the final one"
        + (f", {_duration(took.warm_up)} the warm-up of the reward model" if took.warm_up else "")
    )
    if not machine.device.is_gpu and gpus:
        yield "  as if no worker took a GPU: there all of resources.num_gpus_per_* must be 0"
    yield from (f"  {line}" for line in assumptions(config, machine))


def _phases(took: Duration) -> Iterable[tuple[str, float]]:
    return (
        ("rollout", took.rollout),
        ("its noise", took.noise),
        ("decoding and scoring", took.scoring),
        ("features for the learner", took.features),
        ("their file", took.feature_file),
        ("learning", took.learning),
        ("reward update", took.reward_update),
    )


def _tera(flops: float) -> str:
    value = flops / 1e12
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _size(num_bytes: float) -> str:
    """Bytes for people."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB")):
        if num_bytes >= limit:
            return f"{num_bytes / limit:.1f} {unit}"
    return f"{num_bytes / 1e3:.0f} kB"


def _duration(seconds: float) -> str:
    """Seconds for people."""
    for limit, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * limit:
            return f"{seconds / limit:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
