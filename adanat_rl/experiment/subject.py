"""What a command is asked to draw with: a shipped or exported policy, a run folder, or a schedule file."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from adanat_rl.config.errors import UserError
from adanat_rl.config.files import file_sha256
from adanat_rl.config.loading import load_preset, preset_names, validate
from adanat_rl.config.paths import ASSET_PREFIX, resolve_path
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.data.loading import load_images
from adanat_rl.evaluation.build import build_judge
from adanat_rl.evaluation.evaluator import Evaluator
from adanat_rl.experiment.build import check_contexts, draw_here, driver_device
from adanat_rl.experiment.fitting import check_drawn, drawn_by
from adanat_rl.experiment.own_policy import load_own_policy
from adanat_rl.generation.build import (
    assemble_generator,
    build_generator,
    evaluated_contexts,
    with_evaluated_captions,
)
from adanat_rl.generation.masked.schedules import load_schedule
from adanat_rl.generation.pipeline import GenerationPipeline, load_pipeline, policy_folder
from adanat_rl.generation.policies.base import GenerationPolicy, SchedulePolicy
from adanat_rl.generation.policies.files import load_policy
from adanat_rl.generation.text.build import encode_prompts
from adanat_rl.generation.threads import settle_process

_GENERATOR = "generator."


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


def load_drawer(
    config: ExperimentConfig,
    policy: str | None,
    schedule: Path | None,
    prompts: Sequence[str] | None = None,
    typed: Collection[str] = (),
) -> GenerationPipeline:
    """The pipeline of a policy (default: the shipped one) or of a schedule with the configured generator.

    Args:
        prompts: drawn instead of the captions that the generator was trained with.
        typed: keys of settings that a person set; those of the generator take the place of a policy's own.

    Raises:
        UserError: it is missing, damaged or does not fit, or a typed setting is one that the policy fixes.
    """
    torch.set_num_threads(config.resources.torch_threads)
    settle_process()
    device = driver_device(config)
    if schedule is None:
        batch_size = config.evaluation.batch_size
        name = policy or shipped_policy(config.data.name)
        keys = [key.removeprefix(_GENERATOR) for key in typed if key.startswith(_GENERATOR)]
        settings = {key: getattr(config.generator, key) for key in keys}
        return load_pipeline(
            name, settings=settings, prompts=prompts, text=config.text, device=device, batch_size=batch_size
        )
    rows = load_schedule(schedule)
    captions = None if prompts is None else encode_prompts(prompts, config.text, config.generator, device)
    generator = assemble_generator(config.generator, config.decisions, device, captions).with_base_schedule(rows)
    return GenerationPipeline(generator, SchedulePolicy(torch.from_numpy(rows).float()), config.evaluation.batch_size)


def check_preset(config: ExperimentConfig, policy: str | None, named: str | None, typed: Collection[str] = ()) -> None:
    """Refuses a preset or file of settings with another generator than that of the policy, which draws with its own.

    Args:
        named: option and name of the settings, such as "--preset mnist"; None if none were named.
        typed: keys of settings that a person set, which `load_drawer` looks at.

    Raises:
        UserError: naming the file that differs.
    """
    if policy is None or named is None:
        return
    exported = load_policy(policy_folder(policy))
    for key, digest in exported.generator_hashes.items():
        name = getattr(config.generator, key)
        is_there = name.startswith(ASSET_PREFIX) or Path(name).expanduser().is_file()
        if f"{_GENERATOR}{key}" in typed or not is_there:
            continue
        if file_sha256(resolve_path(name, f"{_GENERATOR}{key}")) != digest:
            raise UserError(
                f"{named}: draws with {name}, but policy {policy} was trained with "
                f"{getattr(exported.generator, key)} and draws with nothing else; leave one of the two out"
            )


def _own_drawer(config: ExperimentConfig, own: str) -> GenerationPipeline:
    torch.set_num_threads(config.resources.torch_threads)
    settle_process()
    generator = build_generator(config, driver_device(config))
    return GenerationPipeline(generator, load_own_policy(own, generator), config.evaluation.batch_size)


def shipped_policy(dataset: str) -> str:
    """The asset name of the policy that ships for a data set.

    Raises:
        UserError: none does.
    """
    name = _shipped_name(dataset)
    if not policy_folder(name).is_dir():
        raise UserError(f"policy: none ships for data {dataset}; give --policy or --schedule")
    return name


def _shipped_name(dataset: str) -> str:
    return f"asset:{dataset}/policy"


def _preset_of(policy: str | None) -> str:
    """A hint with the shipped presets whose generator is that of a policy; "" if there are none."""
    if policy is None:
        return ""
    its = load_policy(policy_folder(policy)).generator
    presets = {name: validate(load_preset(name)).generator for name in preset_names()}
    names = [name for name, own in presets.items() if (own.nat, own.tokenizer) == (its.nat, its.tokenizer)]
    return f"; the policy belongs to --preset {' or --preset '.join(names)}" if names else ""


def load_subject(
    config: ExperimentConfig,
    policy: str | None,
    schedule: Path | None,
    typed: Collection[str] = (),
    own: str | None = None,
) -> Subject:
    """The same, ready to be judged.

    Args:
        own: `module:function`, which makes a policy for the configured generator.
    """
    pipeline = load_drawer(config, policy, schedule, typed=typed) if own is None else _own_drawer(config, own)
    try:
        check_drawn(config, drawn_by(pipeline.generator))
    except UserError as error:
        raise UserError(f"{error}{_preset_of(policy) if '--preset' not in str(error) else ''}") from None
    dataset = load_images(config.data)
    check_contexts(pipeline.generator, dataset)
    evaluation = config.evaluation
    evaluator = Evaluator(
        with_evaluated_captions(pipeline.generator, config),
        evaluated_contexts(config, dataset.labels),
        build_judge(config, driver_device(config)),
        evaluation.num_final_images or evaluation.num_images,
        evaluation.batch_size,
        draw_here(config),
    )
    horizon = pipeline.generator.horizon
    if own is not None:
        looks = pipeline.policy.plan(torch.zeros(1, dtype=torch.int64, device=pipeline.generator.device)) is None
        return Subject(pipeline.policy, f"{own}, T = {horizon}", evaluator, looks)
    if schedule is not None:
        return Subject(pipeline.policy, f"schedule {schedule.stem}, T = {horizon}", evaluator, False)
    spec = load_policy(policy_folder(policy or shipped_policy(config.data.name))).spec
    name = "shipped policy" if policy is None or policy == _shipped_name(config.data.name) else Path(policy).name
    return Subject(pipeline.policy, f"{spec.kind}, T = {horizon} ({name})", evaluator, spec.needs_features)
