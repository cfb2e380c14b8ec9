"""Training of what a data set needs before any policy: tokenizer, classifiers, NAT."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from adanat_rl.config.schema import PretrainingConfig
from adanat_rl.data.dataset import ImageDataset
from adanat_rl.data.distortion import distorted
from adanat_rl.experiment.training_state import TrainingState
from adanat_rl.generation.masked.nat import TransformerNAT
from adanat_rl.generation.masked.patch_tokenizer import PatchTokenizer, image_patches
from adanat_rl.generation.optimizers import (
    part_of,
    restore_training,
    set_learning_rate,
    training_tensors,
    with_prefix,
)
from adanat_rl.generation.precision import autocast
from adanat_rl.generation.seeding import Purpose, derive_seed, seeded
from adanat_rl.metrics.features import Classifier, ConvClassifier

AnyClassifier = TypeVar("AnyClassifier", bound=Classifier)
Report = Callable[[dict[str, Any]], None]
"""Receives a row of progress: stage, step, numbers."""

CLASSIFIERS = {"a": "judge_a", "b": "judge_b", "c": "classifier_c"}
"""Names of their files; A and B judge, C is a reward model and judges nothing."""
_WARMUP_STEPS = 100
_LATE_PART = 0.8  # after this part of the steps, copies are distorted by `LATE_STRENGTH` at most
LATE_STRENGTH = 0.3


@dataclass(frozen=True)
class FittedClassifier:
    """A classifier of the training images, and how many of the validation images it gets right."""

    network: ConvClassifier
    arguments: dict[str, Any]
    held_out_accuracy: float


@dataclass(frozen=True)
class TrainingTokens:
    """The tokens that a NAT learns from: of the training images, or of copies of them distorted anew each time.

    Args:
        dataset: the training images. encode: images to tokens `[B, L]`.
    """

    dataset: ImageDataset
    encode: Callable[[Tensor], Tensor]

    @cached_property
    def plain(self) -> Tensor:
        """Tokens `[N, L]` of the images as they are."""
        return self.encode(self.dataset.images)

    def of(self, rows: Tensor, strength: float) -> Tensor:
        """Tokens `[B, L]` of the images of `rows`, distorted by `strength`."""
        if strength == 0:
            return self.plain[rows]
        return self.encode(distorted(self.dataset.images[rows], strength))


def fit_tokenizer(dataset: ImageDataset, config: PretrainingConfig, seed: int) -> PatchTokenizer:
    """Codebook by k-means over all patches of the images."""
    from sklearn.cluster import KMeans  # takes half a second to import

    patches = image_patches(dataset.images, config.patch_size).reshape(-1, config.patch_size**2)
    kmeans = KMeans(config.vocab_size, n_init=4, max_iter=200, random_state=derive_seed(Purpose.CODEBOOK, seed)).fit(
        patches.numpy()
    )
    tokenizer = PatchTokenizer(config.vocab_size, config.patch_size, dataset.images.shape[-1])
    tokenizer.codebook.copy_(torch.from_numpy(kmeans.cluster_centers_).clamp(0, 1))
    return tokenizer


def fit_classifier(
    training: ImageDataset, validation: ImageDataset, name: str, config: PretrainingConfig, seed: int
) -> FittedClassifier:
    """One of the `CLASSIFIERS`, trained on the training images and tried on those for validation."""
    channels = dict(zip(CLASSIFIERS, (*config.classifier_channels, config.reward_classifier_channels), strict=True))
    arguments = {
        "image_size": training.images.shape[-1],
        "channels": channels[name],
        "num_classes": training.num_classes,
    }
    with seeded(Purpose.JUDGE, seed, ord(name)):
        network = train_classifier(ConvClassifier(**arguments), training.images, training.labels, config)
    with torch.no_grad():
        right = network.logits(validation.images).argmax(dim=1) == validation.labels
    network.fit_scale(training.images)
    return FittedClassifier(network, arguments, float(right.float().mean()))


def train_classifier(
    network: AnyClassifier, images: Tensor, labels: Tensor, config: PretrainingConfig
) -> AnyClassifier:
    """AdamW with a one-cycle rate; pixel noise of 4 % of the range, smoothed labels."""
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.02)
    steps = config.num_classifier_steps
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    network.train()
    for _ in range(steps):
        rows = torch.randint(len(images), (config.batch_size,))
        batch = images[rows] + 0.044 * torch.randn_like(images[rows])
        loss = functional.cross_entropy(network.logits(batch), labels[rows], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def fit_nat(
    tokens: TrainingTokens,
    config: PretrainingConfig,
    seed: int,
    report: Report,
    evaluate: Callable[[TransformerNAT], dict[str, float]] | None = None,
    state: TrainingState | None = None,
    num_reports: int = 16,
) -> tuple[TransformerNAT, dict[str, Any]]:
    """Masked-token prediction with a cosine distribution of mask ratios (MaskGIT).

    Args:
        evaluate: numbers of the averaged network, asked for a quarter of the times that progress is reported.
        state: where it goes on, to the same bits, and leaves now and then what the next start needs.

    Returns:
        The network with averaged weights, and its constructor's arguments.
    """
    arguments = {
        "vocab_size": config.vocab_size,
        "grid_size": math.isqrt(tokens.plain.shape[1]),
        "num_classes": tokens.dataset.num_classes,
        "width": config.width,
        "depth": config.depth,
        "num_heads": config.num_heads,
    }
    with seeded(Purpose.NAT, seed):
        nat = TransformerNAT(**arguments, dropout=config.dropout)
        average = TransformerNAT(**arguments).eval()
        average.load_state_dict(nat.state_dict())
        optimizer = torch.optim.AdamW(nat.parameters(), config.lr, betas=(0.9, 0.96), weight_decay=config.weight_decay)
        training = _NATTraining(nat, average, optimizer)
        if state is not None:
            training.restore(state)
        start = time.perf_counter() - training.elapsed_s
        nat.train()
        for step in range(training.step + 1, config.num_steps + 1):
            set_learning_rate(optimizer, config.lr * _learning_rate(step - 1, config.num_steps))
            loss = _nat_loss(nat, tokens, config, _strength(step, config))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(nat.parameters(), 1.0)
            optimizer.step()
            _update_average(average, nat, min(config.ema_decay, step / (step + 9)))
            training.took_step(loss.item(), time.perf_counter() - start)
            if step % max(1, config.num_steps // num_reports) == 0 or step == config.num_steps:
                row = {"stage": "nat", "step": step, "num_steps": config.num_steps, "loss": training.smooth}
                row["elapsed_s"] = training.elapsed_s
                quarter = step % max(1, config.num_steps // max(1, num_reports // 4)) == 0
                if evaluate is not None and (quarter or step == config.num_steps):
                    with torch.random.fork_rng(devices=[]):
                        row.update(evaluate(average))
                report(row)
            if state is not None:
                state.keep(training.content)
    return average, arguments


class _NATTraining:
    """What changes while a NAT is trained."""

    def __init__(self, nat: TransformerNAT, average: TransformerNAT, optimizer: torch.optim.Optimizer) -> None:
        self._nat, self._average, self._optimizer = nat, average, optimizer
        self.step = 0
        self.smooth: float | None = None
        self.elapsed_s = 0.0

    def took_step(self, loss: float, elapsed_s: float) -> None:
        """Counts a step and its loss into the smoothed one."""
        self.step += 1
        self.smooth = loss if self.smooth is None else 0.98 * self.smooth + 0.02 * loss
        self.elapsed_s = elapsed_s

    def content(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and numbers for a file."""
        tensors = training_tensors("nat", self._nat, self._optimizer)
        tensors |= with_prefix("average.", self._average.state_dict())
        return tensors, {"step": self.step, "smooth": self.smooth, "elapsed_s": self.elapsed_s}

    def restore(self, state: TrainingState) -> None:
        """Goes on where a file says, if there is one."""
        found = state.restore()
        if found is None:
            return
        tensors, numbers = found
        restore_training("nat", self._nat, self._optimizer, tensors)
        self._average.load_state_dict(part_of(tensors, "average."))
        self.step, self.smooth, self.elapsed_s = numbers["step"], numbers["smooth"], numbers["elapsed_s"]


def _strength(step: int, config: PretrainingConfig) -> float:
    """How much the images of a step, counted from 1, are distorted."""
    is_late = step > _LATE_PART * config.num_steps
    return min(config.augmentation, LATE_STRENGTH) if is_late else config.augmentation


def _nat_loss(nat: TransformerNAT, tokens: TrainingTokens, config: PretrainingConfig, strength: float) -> Tensor:
    rows = torch.randint(len(tokens.dataset), (config.batch_size,))
    target = tokens.of(rows, strength)
    dropped = torch.rand(config.batch_size) < config.label_dropout
    context = torch.where(dropped, nat.num_classes, tokens.dataset.labels[rows])
    masked = _random_mask(*target.shape)
    with autocast(config.precision, "cpu"):
        logits, _ = nat(torch.where(masked, nat.mask_token_id, target), context)
    return functional.cross_entropy(logits[masked].float(), target[masked])


def _random_mask(batch_size: int, length: int) -> Tensor:
    """`[B, L]` bool with at least one True a row; the number follows cos(π u / 2), u uniform."""
    count = (torch.cos(math.pi / 2 * torch.rand(batch_size)) * length).ceil().clamp(min=1)
    rank = torch.rand(batch_size, length).argsort(dim=1).argsort(dim=1)
    return rank < count[:, None]


def _learning_rate(step: int, num_steps: int) -> float:
    """Factor on the peak rate: linear warm-up, then a cosine to 5 %."""
    warmup = min(1.0, (step + 1) / _WARMUP_STEPS)
    return warmup * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / num_steps)))


@torch.no_grad()
def _update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        mean.lerp_(value, 1 - decay)
