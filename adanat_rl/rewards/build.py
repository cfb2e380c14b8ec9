"""The reward of a configuration."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.config.files import file_sha256
from adanat_rl.config.own_code import import_own
from adanat_rl.config.paths import resolve_path
from adanat_rl.config.reward_settings import COMPOSITE, RewardPart
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.data.dataset import ImageDataset
from adanat_rl.data.loading import load_images
from adanat_rl.data.streaming import StreamedImages
from adanat_rl.data.tokens import DecodedTokens, TokenSet
from adanat_rl.generation.build import load_captions, load_tokenizer
from adanat_rl.generation.devices import device_for
from adanat_rl.generation.masked.sampler import Tokenizer
from adanat_rl.rewards.adversarial import AdversarialReward
from adanat_rl.rewards.base import ImageSet, Requirement, RewardBatch, RewardModel
from adanat_rl.rewards.real_images import FlippableImages, RealRows
from adanat_rl.rewards.worker import RewardParts

BUILT_IN = {
    "adversarial": ("adanat_rl.rewards.adversarial", "AdversarialReward"),
    "fid": ("adanat_rl.rewards.frechet", "FrechetReward"),
    "image_reward": ("adanat_rl.rewards.image_reward", "ImageReward"),
    "classifier": ("adanat_rl.rewards.classifier", "ClassifierReward"),
    "clip_score": ("adanat_rl.rewards.clip_score", "ClipScoreReward"),
    "aesthetic": ("adanat_rl.rewards.aesthetic", "AestheticReward"),
    "nat_pass_cost": ("adanat_rl.rewards.nat_pass_cost", "PassCostReward"),
}
"""Kind → module and class; a module is imported when its kind is used, for some need an extra."""

_CLIP = "the folder of a CLIP of transformers"
_NAMED_FILES = {
    "clip_score": {"encoder": _CLIP},
    "aesthetic": {"encoder": _CLIP, "head": "a safetensors file of linear layers"},
}


def reward_class(config: ExperimentConfig) -> type[RewardModel]:
    """The class behind `reward.kind`, checked for its arguments and for what it requires; nothing is built yet.

    Of a composite all parts are checked, and the class of the first one is returned.

    Raises:
        UserError: no such module or class, no reward model, wrong arguments, or it needs what this data set lacks.
    """
    if config.reward.kind == COMPOSITE:
        classes = [reward_class(config_of_part(config, part)) for part in config.reward.parts]
        return classes[0]
    kind = config.reward.kind
    cls = _class_of(kind)
    available = _available(config)
    missing = sorted(_required(cls, kind) - available)
    if missing:
        have = ", ".join(sorted(available))
        raise UserError(f"reward.kind: {kind} needs {', '.join(missing)}; data {config.data.name} has {have}")
    if kind not in BUILT_IN:
        _check_arguments(cls, kind, config.reward.args)
    for name, what in _NAMED_FILES.get(kind, {}).items():
        if getattr(getattr(config.reward, kind), name) is None:
            raise UserError(f"reward.{kind}.{name}: null is not accepted; give {what}")
    return cls


def _required(cls: type[RewardModel], kind: str) -> frozenset[Requirement]:
    """What a class says it needs.

    Raises:
        UserError: it says it in a way that nobody understands.
    """
    given: Any = cls.requires
    try:
        return frozenset(Requirement(one) for one in given)
    except (TypeError, ValueError):
        accepted = ", ".join(Requirement)
        raise UserError(f"reward.kind: {kind} requires {given!r}; expected a set of {accepted}") from None


def config_of_part(config: ExperimentConfig, part: RewardPart) -> ExperimentConfig:
    """The configuration with a part of its composite as the whole reward."""
    reward = config.reward.model_copy(update={"kind": part.kind, "args": part.args, "parts": ()})
    return config.model_copy(update={"reward": reward})


def build_reward_parts(config: ExperimentConfig) -> RewardParts:
    """Reward model, decoder and real images, in the process that uses them; of one reward, not of a composite.

    Raises:
        UserError: a setting, a file or an extra is missing or wrong.
    """
    if config.reward.kind == COMPOSITE:
        kinds = ", ".join(config.reward.kinds)
        raise UserError(f"reward.kind: composite is not accepted here; set one of its parts as reward.kind: {kinds}")
    cls = reward_class(config)
    device = device_for(config.resources.num_gpus_per_reward_actor, "resources.num_gpus_per_reward_actor")
    tokenizer = load_tokenizer(config.generator, device)
    real = (
        _real_images(config, tokenizer, device)
        if Requirement.REAL_IMAGES in _required(cls, config.reward.kind)
        else None
    )
    files = real.dataset if isinstance(real, RealRows) and isinstance(real.dataset, StreamedImages) else None
    model = _model(config, cls, device)
    rows = config.generator.decode_rows
    return RewardParts(config.reward.kind, model, tokenizer.decode, real, device, rows, damage=files)


def _available(config: ExperimentConfig) -> frozenset[Requirement]:
    """What the data set of a configuration offers to reward models."""
    found = {Requirement.LABELS}
    if config.data.name != "captions":
        found.add(Requirement.REAL_IMAGES)
    if config.generator.captions is not None:
        found.add(Requirement.CAPTIONS)
    return frozenset(found)


def _class_of(kind: str) -> type[RewardModel]:
    if kind in BUILT_IN:
        module, name = BUILT_IN[kind]
        cls: type[RewardModel] = getattr(importlib.import_module(module), name)
        return cls
    return _import_class(kind)


def _model(config: ExperimentConfig, cls: type[RewardModel], device: str) -> RewardModel:
    reward = config.reward
    if reward.kind == "adversarial":
        return _adversarial(config, device)
    if reward.kind == "image_reward":
        return _image_reward(config, device)
    if reward.kind in BUILT_IN:
        model: RewardModel = importlib.import_module(BUILT_IN[reward.kind][0]).from_config(config, device)
        return model
    return cls(**reward.args)


def _image_reward(config: ExperimentConfig, device: str) -> RewardModel:
    from adanat_rl.rewards.image_reward import load_image_reward  # an extra

    settings = config.reward.image_reward
    return load_image_reward(
        resolve_path(settings.weights, "reward.image_reward.weights"),
        Path(settings.vocabulary).expanduser(),
        load_captions(config.generator).captions,
        block_rows=settings.block_rows,
        device=device,
    )


def _adversarial(config: ExperimentConfig, device: str) -> AdversarialReward:
    data, condition = load_images(config.data), None
    num_contexts = data.num_classes
    if config.generator.captions is not None:
        captions = load_captions(config.generator)
        condition = captions.pooled
        if captions.num_contexts != num_contexts:
            raise UserError(
                f"generator.captions: {config.generator.captions} has {captions.num_contexts} captions, "
                f"data {config.data.name} has {num_contexts}; encode those of the data: adanat-rl prepare --captions"
            )
    channels = data.image_shape[0]
    return AdversarialReward(config.reward.adversarial, num_contexts, config.seed, device, condition, channels)


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
    """The class of an own reward; its module may lie in the working directory, as it does for the actors."""
    cls = import_own(kind, "reward.kind")
    if not (inspect.isclass(cls) and issubclass(cls, RewardModel)):
        raise UserError(f"reward.kind: {kind} is no subclass of adanat_rl.rewards.base.RewardModel")
    return cls


def _check_arguments(cls: type[RewardModel], kind: str, args: dict[str, Any]) -> None:
    try:
        inspect.signature(cls).bind(**args)
    except TypeError as error:
        raise UserError(f"reward.args: {kind}: {error}") from None
