"""The reward of a configuration."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from adanat_rl.config.errors import UserError, nearest
from adanat_rl.config.files import file_sha256
from adanat_rl.config.paths import resolve_path
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.data.dataset import ImageDataset
from adanat_rl.data.loading import load_images
from adanat_rl.data.tokens import DecodedTokens, TokenSet
from adanat_rl.generation.build import load_captions, load_tokenizer
from adanat_rl.generation.devices import device_for
from adanat_rl.generation.masked.sampler import Tokenizer
from adanat_rl.rewards.adversarial import AdversarialReward
from adanat_rl.rewards.base import ImageSet, Requirement, RewardBatch, RewardModel
from adanat_rl.rewards.real_images import FlippableImages, RealRows
from adanat_rl.rewards.worker import RewardParts


def reward_class(config: ExperimentConfig) -> type[RewardModel]:
    """The class behind `reward.kind`, checked for what it requires; nothing is built yet.

    Raises:
        UserError: no such module or class, no reward model, or it needs what this data set lacks.
    """
    kind = config.reward.kind
    cls = _class_of(kind)
    available = _available(config)
    missing = sorted(cls.requires - available)
    if missing:
        have = ", ".join(sorted(available))
        raise UserError(f"reward.kind: {kind} needs {', '.join(missing)}; data {config.data.name} has {have}")
    return cls


def build_reward_parts(config: ExperimentConfig) -> RewardParts:
    """Reward model, decoder and real images, in the process that uses them."""
    cls = reward_class(config)
    device = device_for(config.resources.num_gpus_per_reward_actor, "resources.num_gpus_per_reward_actor")
    tokenizer = load_tokenizer(config.generator, device)
    real = _real_images(config, tokenizer, device) if Requirement.REAL_IMAGES in cls.requires else None
    model = _model(config, cls, device)
    return RewardParts(config.reward.kind, model, tokenizer.decode, real, device, config.generator.decode_rows)


def _available(config: ExperimentConfig) -> frozenset[Requirement]:
    """What the data set of a configuration offers to reward models."""
    found = {Requirement.LABELS}
    if config.data.name != "captions":
        found.add(Requirement.REAL_IMAGES)
    if config.generator.captions is not None:
        found.add(Requirement.CAPTIONS)
    return frozenset(found)


def _class_of(kind: str) -> type[RewardModel]:
    if kind == "adversarial":
        return AdversarialReward
    if kind == "image_reward":
        from adanat_rl.rewards.image_reward import ImageReward  # an extra

        return ImageReward
    return _import_class(kind)


def _model(config: ExperimentConfig, cls: type[RewardModel], device: str) -> RewardModel:
    reward = config.reward
    if reward.kind == "adversarial":
        return _adversarial(config, device)
    if reward.kind == "image_reward":
        from adanat_rl.rewards.image_reward import load_image_reward

        settings = reward.image_reward
        return load_image_reward(
            resolve_path(settings.weights, "reward.image_reward.weights"),
            Path(settings.vocabulary).expanduser(),
            load_captions(config.generator).captions,
            block_rows=settings.block_rows,
            device=device,
        )
    return _instantiate(cls, reward.kind, reward.args)


def _adversarial(config: ExperimentConfig, device: str) -> AdversarialReward:
    num_contexts, condition = load_images(config.data).num_classes, None
    if config.generator.captions is not None:
        captions = load_captions(config.generator)
        condition = captions.pooled
        if captions.num_contexts != num_contexts:
            raise UserError(
                f"generator.captions: {config.generator.captions} has {captions.num_contexts} captions, "
                f"data {config.data.name} has {num_contexts}; encode those of the data: adanat-rl prepare --captions"
            )
    return AdversarialReward(config.reward.adversarial, num_contexts, config.seed, device, condition)


def _real_images(config: ExperimentConfig, tokenizer: Tokenizer, device: str) -> ImageSet:
    """A small data set as one batch; a large one read row by row, from encoded images where there are any."""

    @torch.no_grad()
    def reconstruct(images: Tensor) -> Tensor:
        return tokenizer.decode(tokenizer.encode(images))

    shown_as = reconstruct if config.reward.reconstruct_real else None
    if config.data.tokens is not None:
        tokens = TokenSet(Path(config.data.tokens).expanduser(), _hash_of_tokenizer(config))
        shape = (tokenizer.image_channels, tokenizer.image_size, tokenizer.image_size)
        decoded = DecodedTokens(tokens, tokenizer.decode, shape, device)
        return RealRows(decoded, device, config.data.horizontal_flip)
    dataset = load_images(config.data)
    if isinstance(dataset, ImageDataset):
        images = dataset.images.to(device)
        return RewardBatch(images if shown_as is None else shown_as(images), dataset.labels.to(device))
    flip, prefetch = config.data.horizontal_flip, config.data.prefetch
    return RealRows(cast(FlippableImages, dataset), device, flip, shown_as, prefetch)


def _hash_of_tokenizer(config: ExperimentConfig) -> str:
    return file_sha256(resolve_path(config.generator.tokenizer, "generator.tokenizer"))


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
