"""The adaptivity probe of a configuration: generator, starting point, and the reward that finished images are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from adanat_rl.config.errors import RunError, UserError, reason_of
from adanat_rl.config.paths import ASSET_PREFIX, asset_names, resolve_path
from adanat_rl.config.plain_files import require_plain_files
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.evaluation.drawing import EvaluationSet, draw_set
from adanat_rl.evaluation.probe_drawing import Scorer, starting_schedule
from adanat_rl.experiment.build import driver_device
from adanat_rl.experiment.checkpoints import newest_readable
from adanat_rl.experiment.fitting import check_drawn, check_fit, drawn_by
from adanat_rl.generation.build import build_generator
from adanat_rl.generation.generator import Generator
from adanat_rl.generation.masked.schedules import load_schedule
from adanat_rl.generation.pipeline import load_pipeline
from adanat_rl.generation.policies.base import GenerationPolicy, SchedulePolicy
from adanat_rl.generation.seeding import Purpose, philox
from adanat_rl.generation.weights import fit_state, read_tensors
from adanat_rl.rewards.base import RewardBatch, RewardError, check_metrics, check_scores
from adanat_rl.rewards.build import build_reward_parts
from adanat_rl.rewards.damage import take_damage
from adanat_rl.rewards.guard import RewardGuard, told
from adanat_rl.rewards.worker import RewardParts

Result = TypeVar("Result")
FRESH = "fresh"


@dataclass(frozen=True)
class ProbeSubject:
    """What is probed.

    Args:
        generator: frozen. policy: the starting point. title: of it, for people.
        scorer: the reward. reward: what it is, for people.
    """

    generator: Generator
    policy: GenerationPolicy
    title: str
    scorer: Scorer
    reward: str


def load_probe_subject(
    config: ExperimentConfig, policy: str | None, schedule: Path | None, reward_from: str | None
) -> ProbeSubject:
    """Loads and, where the reward has to be trained first, trains it.

    Args:
        policy: exported policy or run folder. schedule: file instead; the base schedule if both are None.
        reward_from: where a trainable reward takes its state from: a run folder, weights of a discriminator, or "fresh"
            for what a run starts with. None for the weights that ship with the data set, or else fresh.

    Raises:
        UserError: something is missing, damaged or does not fit. RunError: the reward failed.
    """
    torch.set_num_threads(config.resources.torch_threads)
    check_fit(config)
    generator, start, title = _load_start(config, policy, schedule)
    check_drawn(config, drawn_by(generator))
    guard = RewardGuard()
    parts = guard.make(lambda: build_reward_parts(config), config.resources.start_timeout_s)
    if not parts.model.sees_images:
        raise UserError(f"reward.kind: {parts.name} does not look at images, and the probe asks for the effect on them")
    source = reward_from or _shipped(config, parts) or FRESH
    if parts.model.num_updates == 0 and parts.model.num_warmup_updates == 0:
        if reward_from is not None:
            raise UserError(
                f"--reward-from: {reward_from}: reward {parts.name} is not trained and has no state to take"
            )
        described = parts.name
    else:
        described = f"{parts.name} ({_take_state(config, parts, source, generator, start, guard)})"
    return ProbeSubject(generator, start, title, _scorer(config, parts, guard), described)


def _load_start(
    config: ExperimentConfig, policy: str | None, schedule: Path | None
) -> tuple[Generator, GenerationPolicy, str]:
    device = driver_device(config)
    if policy is not None:
        pipeline = load_pipeline(policy, device=device)
        return pipeline.generator, pipeline.policy, f"policy {policy}"
    generator = build_generator(config, device)
    title = "the base schedule"
    if schedule is not None:
        generator = generator.with_base_schedule(load_schedule(schedule))
        title = f"schedule {schedule.stem}"
    return generator, SchedulePolicy(starting_schedule(generator.decision_space)), title


def _shipped(config: ExperimentConfig, parts: RewardParts) -> str | None:
    name = f"{ASSET_PREFIX}{config.data.name}/discriminator.safetensors"
    return name if _discriminator(parts) is not None and name in asset_names() else None


def _discriminator(parts: RewardParts) -> nn.Module | None:
    found = getattr(parts.model, "discriminator", None)
    return found if isinstance(found, nn.Module) else None


def _take_state(
    config: ExperimentConfig,
    parts: RewardParts,
    source: str,
    generator: Generator,
    policy: GenerationPolicy,
    guard: RewardGuard,
) -> str:
    """Puts a trainable reward into the state of its source; returns what that is."""
    if source == FRESH:
        _warm_up(config, parts, generator, policy, guard)
        return f"as a run starts, after {parts.model.num_warmup_updates} updates"
    folder = Path(source).expanduser()
    if folder.is_dir():
        require_plain_files(folder)
        snapshot, problems = newest_readable(folder / "checkpoints")
        if snapshot is None:
            why = f"no checkpoint that can be read ({problems[0]})" if problems else "no checkpoint"
            raise UserError(f"--reward-from: {source} has {why}; give a run folder, a file, or {FRESH}")
        try:
            parts.model.load_state_dict(take_damage(snapshot.tensors["reward"], parts.damage))
        except (Exception, SystemExit) as error:  # of torch where shapes differ, or of somebody's own reward
            reason = reason_of(error)[:200]
            raise UserError(
                f"--reward-from: {source}: its reward is no {parts.name} of these settings: {reason}"
            ) from None
        newer = f"; newer ones are damaged: {problems[0]}" if problems else ""
        return f"of run {folder.name}, iteration {snapshot.iteration}{newer}"
    discriminator = _discriminator(parts)
    if discriminator is None:
        raise UserError(
            f"--reward-from: {source}: reward {parts.name} has no discriminator; give a run folder or {FRESH}"
        )
    path = resolve_path(source, "--reward-from")
    fit_state(discriminator, read_tensors(path)[0], path)
    discriminator.eval().to(parts.device)
    return f"weights {source}"


def _warm_up(
    config: ExperimentConfig, parts: RewardParts, generator: Generator, policy: GenerationPolicy, guard: RewardGuard
) -> None:
    """The updates before the first policy update, on as many images as an iteration draws."""
    rng = philox(Purpose.REWARD_UPDATE, config.seed, 0)
    count = config.training.trajectories_per_iteration
    labels = (
        parts.real.labels.cpu().numpy() if parts.real is not None else np.arange(generator.context_spec.num_contexts)
    )
    context = torch.from_numpy(rng.choice(labels, count))
    images = EvaluationSet(context, torch.from_numpy(rng.integers(0, 2**63, count)))
    sample = draw_set(generator, policy, images, config.evaluation.batch_size).sample
    generated = RewardBatch(generator.decode(sample).to(parts.device), context.to(parts.device))
    real = parts.real if parts.real is not None else generated.rows(torch.zeros(0, dtype=torch.int64))

    metrics = _called(
        config,
        parts,
        guard,
        lambda: parts.model.update(generated, real, rng, parts.model.num_warmup_updates),
        "trained",
    )
    _checked(lambda: check_metrics(parts.name, metrics))


def _scorer(config: ExperimentConfig, parts: RewardParts, guard: RewardGuard) -> Scorer:
    def score(images: Tensor, context: Tensor) -> Tensor:
        batch = RewardBatch(images.to(parts.device), context.to(parts.device))
        output = _called(config, parts, guard, lambda: parts.model.score(batch), "scored")
        scores, _ = _checked(lambda: check_scores(parts.name, output, len(batch)))
        return torch.from_numpy(np.asarray(scores))

    return score


def _called(
    config: ExperimentConfig, parts: RewardParts, guard: RewardGuard, work: Callable[[], Result], what: str
) -> Result:
    """What a call into the reward gives; whatever it does instead is told in one line."""

    def call() -> Result:
        with told(parts.name):
            return guard.call(work, parts.name, what, config.resources.reward_timeout_s)

    return _checked(call)


def _checked(check: Callable[[], Result]) -> Result:
    try:
        return check()
    except RewardError as error:
        raise RunError(str(error)) from None
