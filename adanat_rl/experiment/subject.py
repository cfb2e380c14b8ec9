"""What a command is asked to draw with: a shipped or exported policy, a run folder, or a schedule file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from adanat_rl.config.errors import UserError
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.data.loading import load_dataset
from adanat_rl.evaluation.evaluator import Evaluator
from adanat_rl.evaluation.judge import load_judge
from adanat_rl.generation.build import build_generator
from adanat_rl.generation.masked.schedules import load_schedule
from adanat_rl.generation.pipeline import DEFAULT_POLICY, GenerationPipeline, load_pipeline, policy_folder
from adanat_rl.generation.policies.base import GenerationPolicy, SchedulePolicy
from adanat_rl.generation.policies.files import load_policy


@dataclass(frozen=True)
class Subject:
    """A policy with what is needed to judge it.

    Args:
        policy: decides. title: for tables. evaluator: with the generator it belongs to.
        looks_at_images: False for schedules and tables, which need no controls.
    """

    policy: GenerationPolicy
    title: str
    evaluator: Evaluator
    looks_at_images: bool


def load_drawer(config: ExperimentConfig, policy: str | None, schedule: Path | None) -> GenerationPipeline:
    """The pipeline of a policy (default: the shipped one) or of a schedule with the configured generator.

    Raises:
        UserError: it is missing, damaged or does not fit.
    """
    torch.set_num_threads(config.resources.torch_threads)
    if schedule is None:
        return load_pipeline(policy or DEFAULT_POLICY, batch_size=config.evaluation.batch_size)
    rows = load_schedule(schedule)
    generator = build_generator(config).with_base_schedule(rows)
    return GenerationPipeline(generator, SchedulePolicy(torch.from_numpy(rows).float()), config.evaluation.batch_size)


def load_subject(config: ExperimentConfig, policy: str | None, schedule: Path | None) -> Subject:
    """The same, ready to be judged."""
    pipeline = load_drawer(config, policy, schedule)
    dataset = load_dataset(config.data)
    if pipeline.generator.context_spec.num_contexts != dataset.num_classes:
        raise UserError(
            f"the policy was trained for {pipeline.generator.context_spec.num_contexts} classes, "
            f"data {dataset.name} has {dataset.num_classes}"
        )
    evaluation = config.evaluation
    evaluator = Evaluator(
        pipeline.generator,
        dataset,
        load_judge(dataset),
        evaluation.num_images,
        evaluation.batch_size,
        config.resources.driver_threads,
    )
    horizon = pipeline.generator.horizon
    if schedule is not None:
        return Subject(pipeline.policy, f"schedule {schedule.stem}, T = {horizon}", evaluator, False)
    spec = load_policy(policy_folder(policy or DEFAULT_POLICY)).spec
    name = "shipped policy" if policy in (None, DEFAULT_POLICY) else Path(policy).name
    return Subject(pipeline.policy, f"{spec.kind}, T = {horizon} ({name})", evaluator, spec.needs_features)
