"""The reward of a configuration."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch

from adanat_rl.config.errors import UserError, nearest
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.data.loading import load_dataset
from adanat_rl.generation.build import load_tokenizer
from adanat_rl.rewards.adversarial import AdversarialReward
from adanat_rl.rewards.base import Requirement, RewardBatch, RewardModel
from adanat_rl.rewards.worker import RewardParts

_AVAILABLE = frozenset({Requirement.LABELS, Requirement.REAL_IMAGES})


def reward_class(config: ExperimentConfig) -> type[RewardModel]:
    """The class behind `reward.kind`, checked for what it requires; nothing is built yet.

    Raises:
        UserError: no such module or class, no reward model, or it needs what this data set lacks.
    """
    kind = config.reward.kind
    cls = AdversarialReward if kind == "adversarial" else _import_class(kind)
    missing = sorted(cls.requires - _AVAILABLE)
    if missing:
        have = ", ".join(sorted(_AVAILABLE))
        raise UserError(f"reward.kind: {kind} needs {', '.join(missing)}; data {config.data.name} has {have}")
    return cls


def build_reward_parts(config: ExperimentConfig) -> RewardParts:
    """Reward model, decoder and real images, in the process that uses them.

    Real images go through the tokenizer and back, so that quantisation gives nothing away to a discriminator.
    """
    cls = reward_class(config)
    dataset = load_dataset(config.data)
    device = "cuda" if config.resources.num_gpus_per_reward_actor > 0 else "cpu"
    tokenizer = load_tokenizer(config.generator, device)
    if cls is AdversarialReward:
        model: RewardModel = AdversarialReward(config.reward.adversarial, dataset.num_classes, config.seed, device)
    else:
        model = _instantiate(cls, config.reward.kind, config.reward.args)
    real = None
    if Requirement.REAL_IMAGES in cls.requires:
        with torch.no_grad():
            images = tokenizer.decode(tokenizer.encode(dataset.images.to(device)))
        real = RewardBatch(images, dataset.labels.to(device))
    return RewardParts(config.reward.kind, model, tokenizer.decode, real, device)


def _import_class(kind: str) -> type[RewardModel]:
    module_name, _, class_name = kind.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a user's module does when it is imported
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"reward.kind: {kind}: cannot import {module_name}: {reason}") from None
    cls = getattr(module, class_name, None)
    if cls is None:
        raise UserError(f"reward.kind: {kind}: {module_name} has no {class_name}{nearest(class_name, dir(module))}")
    if not (inspect.isclass(cls) and issubclass(cls, RewardModel)):
        raise UserError(f"reward.kind: {kind} is no subclass of adanat_rl.rewards.base.RewardModel")
    return cls


def _instantiate(cls: type[RewardModel], kind: str, args: dict[str, Any]) -> RewardModel:
    try:
        inspect.signature(cls).bind(**args)
    except TypeError as error:
        raise UserError(f"reward.args: {kind}: {error}") from None
    return cls(**args)
