"""Whether the parts of a configuration fit each other: data, generator, reward, judge and reference, by their shapes.

Only headers of files are read, so it is told within a second, before a worker or a training starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import leaf_fields, load_preset, preset_names, validate
from adanat_rl.config.paths import ASSET_PREFIX, asset_names, resolve_path
from adanat_rl.config.schema import DataConfig, ExperimentConfig
from adanat_rl.data.image_tree import count_classes
from adanat_rl.evaluation.panel.photos import refuse_photo_networks
from adanat_rl.evaluation.reference import Baseline, References, load_references
from adanat_rl.experiment.outline import Outline, UnknownNetworkError, network_of, outline_of
from adanat_rl.generation.generator import Generator
from adanat_rl.metrics.array_archive import array_shapes
from adanat_rl.metrics.features import ConvClassifier
from adanat_rl.metrics.inception import NUM_FEATURES, InceptionV3
from adanat_rl.rewards.build import config_of_part
from adanat_rl.rewards.classifier import CONV_CLASSIFIER_KIND, classifier_shape
from adanat_rl.rewards.discriminator import PatchDiscriminator

Shape = tuple[int, int, int]

_IN_MEMORY: dict[str, tuple[Shape, int]] = {"digits": ((1, 8, 8), 10), "mnist": ((1, 28, 28), 10)}
_TEXT_SETS = {"coco", "cc3m_tsv", "captions"}
_TRAINED_COPIES = 4  # of each value of a trained network: itself, its gradient, two moments of Adam
_EXTRACTORS: dict[str, type[nn.Module]] = {CONV_CLASSIFIER_KIND: ConvClassifier, "inception": InceptionV3}


@dataclass(frozen=True)
class DrawnImages:
    """What a generator draws.

    Args:
        image_shape: C, H, W. kind: of its contexts. num_contexts: None where that is not known yet.
    """

    image_shape: Shape
    kind: Literal["class", "text"]
    num_contexts: int | None


@dataclass(frozen=True)
class RealFacts:
    """What is known of a data set before an image is read.

    Args:
        image_shape: C, H, W; None for captions alone.
        kind: of its contexts, None where only its files tell. num_classes: None likewise, and for captions.
    """

    image_shape: Shape | None
    kind: Literal["class", "text"] | None
    num_classes: int | None


def check_fit(config: ExperimentConfig) -> None:
    """Refuses a configuration whose parts are of different shapes; files that are missing are left out of it.

    Raises:
        UserError: naming the setting, both shapes, and the preset that was meant where one fits better.
    """
    try:
        _check_parts(config)
    except UnknownNetworkError:
        return
    except UserError as error:
        raise UserError(f"{error}{preset_hint(config)}") from None


def check_drawn(config: ExperimentConfig, drawn: DrawnImages) -> None:
    """The same for a generator at hand, such as that of a policy: its images against data and judge.

    Raises:
        UserError: as `check_fit`.
    """
    real = real_facts(config.data)
    try:
        check_images(config, real, drawn, "the generator")
        _check_judge(config, real)
    except UserError as error:
        raise UserError(f"{error}{preset_hint(config)}") from None


def drawn_by(generator: Generator) -> DrawnImages:
    """What a generator says of itself."""
    contexts = generator.context_spec
    return DrawnImages(generator.image_shape, contexts.kind, contexts.num_contexts)


def real_facts(config: DataConfig) -> RealFacts:
    """What names and sizes tell of a data set."""
    if config.name in _IN_MEMORY:
        shape, num_classes = _IN_MEMORY[config.name]
        return RealFacts(shape, "class", num_classes)
    if config.name == "captions":
        return RealFacts(None, "text", None)
    shape = (3, config.image_size, config.image_size)
    if config.name in _TEXT_SETS:
        return RealFacts(shape, "text", None)
    root = Path(config.path or "").expanduser()
    if config.name == "image_folder" and root.is_dir():
        names = Path(config.class_names).expanduser() if config.class_names else None
        return RealFacts(shape, "class", count_classes(root, names))
    return RealFacts(shape, None if config.name == "webdataset" else "class", None)


def check_images(config: ExperimentConfig, real: RealFacts, drawn: DrawnImages, what: str) -> None:
    """Images and contexts of a data set against those that a generator draws.

    Args:
        what: the generator, for the message.

    Raises:
        UserError: they differ.
    """
    name = config.data.name
    key = "data.name" if name in _IN_MEMORY else "data.image_size"
    if real.image_shape is not None and real.image_shape != drawn.image_shape:
        raise UserError(
            f"{key}: images of {name} are {_shown(real.image_shape)}, those that {what} draws are "
            f"{_shown(drawn.image_shape)}"
        )
    if real.kind is not None and real.kind != drawn.kind:
        words = {"class": "class labels", "text": "captions"}
        raise UserError(f"data.name: {name} has {words[real.kind]}, but {what} draws from {words[drawn.kind]}")
    counts = (real.num_classes, drawn.num_contexts)
    if drawn.kind == "class" and None not in counts and counts[0] != counts[1]:
        raise UserError(f"data.name: {name} has {counts[0]} classes, but {what} draws {counts[1]}")


def preset_hint(config: ExperimentConfig) -> str:
    """The shipped presets that agree with what was set where that differs from the defaults; "" if there are none."""
    keys = [key for key, _ in leaf_fields() if key.split(".")[0] in ("data", "generator")]
    default = ExperimentConfig()
    typed = [key for key in keys if _value(config, key) != _value(default, key)]
    if not typed:
        return ""
    agreeing: dict[str, int] = {}
    for name in preset_names():
        preset = validate(load_preset(name))
        if all(_value(preset, key) == _value(config, key) for key in keys):
            return ""  # it is this one, and something else is wrong
        agreeing[name] = sum(_value(preset, key) == _value(config, key) for key in typed)
    best = max(agreeing.values())
    if best == 0:
        return ""
    names = [name for name, count in agreeing.items() if count == best]
    if len(names) == 1:
        return f"; the preset {names[0]} fits: --preset {names[0]}"
    return f"; presets for such data: {', '.join(names)} (--preset NAME)"


def _check_parts(config: ExperimentConfig) -> None:
    real = real_facts(config.data)
    outline = outline_of(config)
    kind: Literal["class", "text"] = "class" if outline.text_shape is None else "text"
    drawn = DrawnImages(outline.image_shape, kind, outline.num_contexts)
    check_images(config, real, drawn, f"generator.tokenizer {config.generator.tokenizer}")
    _check_reward(config, real)
    _check_judge(config, real)
    _check_reference(config, drawn)
    _check_sizes(config, outline)


def _check_reward(config: ExperimentConfig, real: RealFacts) -> None:
    for part in config.reward.parts:
        _check_reward(config_of_part(config, part), real)
    kind = config.reward.kind
    if kind == "classifier":
        name = config.reward.classifier.weights or _asset(config, "classifier_c")
        _check_classifier(name, "reward.classifier.weights", config, real)
    elif kind == "fid":
        name = config.reward.fid.weights or config.evaluation.inception or _asset(config, "judge_a")
        _check_classifier(name, "reward.fid.weights", config, real, is_reward_of_labels=False)
    elif kind == "adversarial" and config.reward.adversarial.discriminator == "patch" and real.image_shape is not None:
        least = 2 * config.reward.adversarial.first_stride
        if real.image_shape[1] < least:
            raise UserError(
                f"reward.adversarial.discriminator: patch takes images of {least} pixels a side or more, those of "
                f"{config.data.name} are {_shown(real.image_shape)}"
            )


def _check_classifier(
    name: str | None, key: str, config: ExperimentConfig, real: RealFacts, *, is_reward_of_labels: bool = True
) -> None:
    """A classifier, or Inception, against the images and classes of the data."""
    if name is None or real.image_shape is None or not _is_there(name):
        return
    network, _ = network_of(name, key, {CONV_CLASSIFIER_KIND: ConvClassifier} if is_reward_of_labels else _EXTRACTORS)
    if not isinstance(network, ConvClassifier):
        if real.image_shape[0] != 3:
            raise UserError(
                f"{key}: {name} is Inception, which takes images in colour; those of {config.data.name} are grey"
            )
        return
    taken = classifier_shape(network)
    if taken != real.image_shape:
        raise UserError(
            f"{key}: {name} takes images of {_shown(taken)}, those of data {config.data.name} are "
            f"{_shown(real.image_shape)}"
        )
    classes = network.head.out_features
    if is_reward_of_labels and real.num_classes is not None and classes != real.num_classes:
        raise UserError(f"{key}: {name} knows {classes} classes, data {config.data.name} has {real.num_classes}")


def _check_judge(config: ExperimentConfig, real: RealFacts) -> None:
    evaluation, name = config.evaluation, config.data.name
    if evaluation.judge == "classifiers":
        if name not in _IN_MEMORY:
            raise UserError(
                f"evaluation.judge: classifiers ship for {' and '.join(_IN_MEMORY)} only; with data.name={name} give "
                "evaluation.judge=inception, evaluation.inception and data.statistics"
            )
        refuse_photo_networks(config)
        return
    if real.image_shape is not None and real.image_shape[0] != 3:
        raise UserError(f"evaluation.judge: inception takes images in colour; those of {name} are grey")
    for key, value in (("evaluation.inception", evaluation.inception), ("data.statistics", config.data.statistics)):
        if value is None:
            raise UserError(f"{key}: null is not accepted: evaluation.judge=inception needs it")
    statistics = config.data.statistics
    if statistics is not None and _is_there(statistics):
        width = array_shapes(resolve_path(statistics, "data.statistics")).get("mu", (NUM_FEATURES,))
        if width != (NUM_FEATURES,):
            raise UserError(
                f"data.statistics: {statistics} has a mean of {list(width)} numbers, Inception gives {NUM_FEATURES}; "
                "make statistics of these images: adanat-rl prepare --statistics"
            )


def _check_reference(config: ExperimentConfig, drawn: DrawnImages) -> None:
    name = config.evaluation.reference
    if name is not None and _is_there(name):
        references = load_references(resolve_path(name, "evaluation.reference"))
        check_references(references, name, config.data.name, drawn.num_contexts)


def check_references(references: References, name: str, dataset: str, num_contexts: int | None) -> None:
    """Baselines of a file against the data that they are compared on.

    Args:
        name: of the file, for messages. dataset: name of the data. num_contexts: of the generator, if known.

    Raises:
        UserError: they are of other data, or schedules per class for another number of classes.
    """
    if references.dataset != dataset:
        raise UserError(
            f"evaluation.reference: {name} holds baselines of {references.dataset}, the data is {dataset}; give "
            "evaluation.reference=null, or a file that `adanat-rl search` made for it"
        )
    if num_contexts is not None:
        check_baselines(references.baselines, f"evaluation.reference: {name}", num_contexts)


def check_baselines(baselines: Iterable[Baseline], where: str, num_contexts: int) -> None:
    """Schedules per class must be of as many classes as the generator draws.

    Args:
        where: setting or option and file, for the message.

    Raises:
        UserError: naming the baseline.
    """
    for row in baselines:
        if row.decisions.ndim == 3 and len(row.decisions) != num_contexts:
            raise UserError(
                f"{where}: {row.name} has schedules of {len(row.decisions)} classes, the generator draws {num_contexts}"
            )


def _check_sizes(config: ExperimentConfig, outline: Outline) -> None:
    """What is trained must fit into the memory of this machine, by its numbers alone; other machines are not known."""
    if config.resources.ray_address != "local":
        return
    policy = outline.policy

    def actor_and_critic() -> nn.Module:
        return nn.ModuleList([policy.build_actor(), policy.build_critic()])

    _check_memory("policy.hidden_size", policy.hidden_size, actor_and_critic)
    adversarial = config.reward.adversarial
    if "adversarial" in config.reward.kinds and adversarial.discriminator == "patch":
        arguments = (outline.num_contexts or 1, adversarial.channels, adversarial.first_stride, outline.image_shape[0])
        _check_memory("reward.adversarial.channels", adversarial.channels, lambda: PatchDiscriminator(*arguments))


def _check_memory(key: str, value: int, build: Callable[[], nn.Module]) -> None:
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        with torch.device("meta"):
            network = build()
        needed = _TRAINED_COPIES * sum(parameter.nbytes for parameter in network.parameters())
    except (RuntimeError, OverflowError, TypeError):  # sizes beyond what a tensor can be said to have
        raise UserError(f"{key}: {value} is not accepted: no machine has the memory for such a network") from None
    if needed > available:
        raise UserError(
            f"{key}: {value} is not accepted: the network takes {needed / 2**30:,.0f} GiB while it is trained, this "
            f"machine has {available / 2**30:,.0f}"
        )


def _asset(config: ExperimentConfig, stem: str) -> str | None:
    name = f"{ASSET_PREFIX}{config.data.name}/{stem}.safetensors"
    return name if name in asset_names() else None


def _is_there(name: str) -> bool:
    return name.startswith(ASSET_PREFIX) or Path(name).expanduser().is_file()


def _value(config: ExperimentConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _shown(shape: Shape) -> str:
    channels, height, width = shape
    return f"{height}×{width} in {'grey' if channels == 1 else 'colour' if channels == 3 else f'{channels} channels'}"
