"""Training of what a data set needs before any policy: tokenizer, classifiers, NAT."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from adanat_rl.config.schema import PretrainingConfig
from adanat_rl.data.digits import ImageDataset
from adanat_rl.generation.masked.nat import TransformerNAT
from adanat_rl.generation.masked.patch_tokenizer import PatchTokenizer, image_patches
from adanat_rl.generation.precision import autocast
from adanat_rl.generation.seeding import Purpose, derive_seed, seeded
from adanat_rl.metrics.features import Classifier, ConvClassifier

AnyClassifier = TypeVar("AnyClassifier", bound=Classifier)
Report = Callable[[dict[str, Any]], None]
"""Receives a row of progress: stage, step, numbers."""

CLASSIFIERS = {"a": "judge_a", "b": "judge_b", "c": "classifier_c"}
"""Names of their files; A and B judge, C is a reward model and judges nothing."""
_HELD_OUT_PART = 0.2
_WARMUP_STEPS = 100


@dataclass(frozen=True)
class FittedClassifier:
    """A classifier trained on all real images, and the accuracy of its twin trained on 80 % of them."""

    network: ConvClassifier
    arguments: dict[str, Any]
    held_out_accuracy: float


def fit_tokenizer(dataset: ImageDataset, config: PretrainingConfig, seed: int) -> PatchTokenizer:
    """Codebook by k-means over all patches of the real images."""
    from sklearn.cluster import KMeans  # takes half a second to import

    patches = image_patches(dataset.images, config.patch_size).reshape(-1, config.patch_size**2)
    kmeans = KMeans(config.vocab_size, n_init=4, max_iter=200, random_state=derive_seed(Purpose.CODEBOOK, seed)).fit(
        patches.numpy()
    )
    tokenizer = PatchTokenizer(config.vocab_size, config.patch_size, dataset.images.shape[-1])
    tokenizer.codebook.copy_(torch.from_numpy(kmeans.cluster_centers_).clamp(0, 1))
    return tokenizer


def fit_classifier(dataset: ImageDataset, name: str, config: PretrainingConfig, seed: int) -> FittedClassifier:
    """One of the `CLASSIFIERS`: trained on 80 % to report its accuracy, then anew on everything."""
    channels = dict(zip(CLASSIFIERS, (*config.classifier_channels, config.reward_classifier_channels), strict=True))
    arguments = {
        "image_size": dataset.images.shape[-1],
        "channels": channels[name],
        "num_classes": dataset.num_classes,
    }
    key = (Purpose.JUDGE, seed, ord(name))
    order = torch.randperm(len(dataset.images), generator=torch.Generator().manual_seed(derive_seed(*key)))
    images, labels = dataset.images[order], dataset.labels[order]
    held_out = int(len(images) * _HELD_OUT_PART)
    with seeded(*key):
        twin = train_classifier(ConvClassifier(**arguments), images[held_out:], labels[held_out:], config)
        network = train_classifier(ConvClassifier(**arguments), images, labels, config)
    with torch.no_grad():
        right = twin.logits(images[:held_out]).argmax(dim=1) == labels[:held_out]
    network.fit_scale(dataset.images)
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
    tokens: Tensor,
    labels: Tensor,
    num_classes: int,
    config: PretrainingConfig,
    seed: int,
    report: Report,
    evaluate: Callable[[TransformerNAT], dict[str, float]] | None = None,
    num_reports: int = 16,
) -> tuple[TransformerNAT, dict[str, Any]]:
    """Masked-token prediction with a cosine distribution of mask ratios (MaskGIT).

    Args:
        tokens: `[N, L]` of all real images. labels: `[N]`.
        evaluate: numbers of the averaged network, asked for a quarter of the times that progress is reported.

    Returns:
        The network with averaged weights, and its constructor's arguments.
    """
    arguments = {
        "vocab_size": config.vocab_size,
        "grid_size": math.isqrt(tokens.shape[1]),
        "num_classes": num_classes,
        "width": config.width,
        "depth": config.depth,
        "num_heads": config.num_heads,
    }
    with seeded(Purpose.NAT, seed):
        nat = TransformerNAT(**arguments, dropout=config.dropout)
        average = TransformerNAT(**arguments).eval()
        average.load_state_dict(nat.state_dict())
        optimizer = torch.optim.AdamW(nat.parameters(), config.lr, betas=(0.9, 0.96), weight_decay=config.weight_decay)
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate(step, config.num_steps))
        start, smooth = time.perf_counter(), None
        nat.train()
        for step in range(1, config.num_steps + 1):
            loss = _nat_loss(nat, tokens, labels, config)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(nat.parameters(), 1.0)
            optimizer.step()
            rate.step()
            _update_average(average, nat, min(config.ema_decay, step / (step + 9)))
            smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
            if step % max(1, config.num_steps // num_reports) == 0 or step == config.num_steps:
                row = {"stage": "nat", "step": step, "num_steps": config.num_steps, "loss": smooth}
                row["elapsed_s"] = time.perf_counter() - start
                quarter = step % max(1, config.num_steps // max(1, num_reports // 4)) == 0
                if evaluate is not None and (quarter or step == config.num_steps):
                    with torch.random.fork_rng(devices=[]):
                        row.update(evaluate(average))
                report(row)
    return average, arguments


def _nat_loss(nat: TransformerNAT, tokens: Tensor, labels: Tensor, config: PretrainingConfig) -> Tensor:
    rows = torch.randint(len(tokens), (config.batch_size,))
    target = tokens[rows]
    dropped = torch.rand(config.batch_size) < config.label_dropout
    context = torch.where(dropped, nat.num_classes, labels[rows])
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
