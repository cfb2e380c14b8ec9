"""Training of the convolutional tokenizer: first an autoencoder, then codes by k-means, then both together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from adanat_rl.config.schema import PretrainingConfig
from adanat_rl.data.dataset import ImageDataset
from adanat_rl.experiment.training_state import TrainingState
from adanat_rl.generation.masked.conv_tokenizer import ConvVQTokenizer
from adanat_rl.generation.optimizers import (
    part_of,
    restore_training,
    set_learning_rate,
    training_tensors,
    with_prefix,
)
from adanat_rl.generation.seeding import Purpose, derive_seed, seeded

_LR = 2e-3
_WARMUP_STEPS = 50
_PLAIN_PART = 0.22  # of the steps without codes
_COMMITMENT = 0.25  # weight of the distance between latents and their codes
_CODE_DECAY = 0.97
_START_COUNT = 20.0  # weight that the codes of k-means have in the moving averages
_DEAD_COUNT, _REVIVED_COUNT = 0.5, 5.0
_KMEANS_IMAGES = 600


class MovingCodebook:
    """Codes as moving averages of the latents that chose them (van den Oord et al. 2017, appendix A.1).

    A code that hardly anybody chooses is put where a latent of the batch lies.

    Args:
        codes: `[V, D]` to start from.
    """

    def __init__(self, codes: Tensor) -> None:
        self.codes = codes.clone()
        self._counts = torch.full((len(codes),), _START_COUNT)
        self._sums = codes * _START_COUNT

    def tensors(self) -> dict[str, Tensor]:
        """Codes and moving averages."""
        return {"codes": self.codes, "counts": self._counts, "sums": self._sums}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> MovingCodebook:
        """The book that `tensors` came from."""
        book = cls(tensors["codes"])
        book._counts, book._sums = tensors["counts"].clone(), tensors["sums"].clone()
        return book

    @torch.no_grad()
    def update(self, latents: Tensor, tokens: Tensor) -> None:
        """Takes in latents `[N, D]` and the codes `[N]` they chose; draws from torch's global generator."""
        chosen = functional.one_hot(tokens, len(self.codes)).to(latents.dtype)
        self._counts.lerp_(chosen.sum(dim=0), 1 - _CODE_DECAY)
        self._sums.lerp_(chosen.T @ latents, 1 - _CODE_DECAY)
        dead = self._counts < _DEAD_COUNT
        if dead.any():
            rows = torch.randint(len(latents), (int(dead.sum()),))
            self._sums[dead] = latents[rows] * _REVIVED_COUNT
            self._counts[dead] = _REVIVED_COUNT
        self.codes = self._sums / self._counts[:, None]


def fit_conv_tokenizer(
    dataset: ImageDataset,
    config: PretrainingConfig,
    seed: int,
    report: Callable[[dict[str, Any]], None],
    state: TrainingState | None = None,
) -> tuple[ConvVQTokenizer, dict[str, Any]]:
    """The tokenizer, and its constructor's arguments.

    Args:
        report: gets a row of progress ten times. state: where it goes on, to the same bits, and leaves now and then
            what the next start needs.
    """
    arguments = {
        "vocab_size": config.vocab_size,
        "image_size": dataset.images.shape[-1],
        "channels": config.tokenizer_channels,
        "code_width": config.code_width,
    }
    steps = config.num_tokenizer_steps
    num_plain = int(_PLAIN_PART * steps)
    start, before, first = time.perf_counter(), 0.0, 1
    with seeded(Purpose.CODEBOOK, seed):
        tokenizer = ConvVQTokenizer(**arguments)
        optimizer = torch.optim.AdamW(tokenizer.parameters(), _LR, weight_decay=1e-4)
        book: MovingCodebook | None = None
        found = None if state is None else state.restore()
        if found is not None:
            tensors, numbers = found
            before, first = numbers["elapsed_s"], numbers["step"] + 1
            book = _restore(tensors, tokenizer, optimizer)
        for step in range(first, steps + 1):
            if step == num_plain + 1:
                book = MovingCodebook(_kmeans_codes(tokenizer, dataset.images, config.vocab_size, seed))
            set_learning_rate(optimizer, _LR * _learning_rate(step - 1, steps))
            images = dataset.images[torch.randint(len(dataset.images), (config.batch_size,))]
            error, commitment = _losses(tokenizer, images, book)
            optimizer.zero_grad()
            (error + _COMMITMENT * commitment).backward()
            nn.utils.clip_grad_norm_(tokenizer.parameters(), 1.0)
            optimizer.step()
            elapsed = before + time.perf_counter() - start
            if step % max(1, steps // 10) == 0 or step == steps:
                row = {"stage": "tokenizer", "step": step, "num_steps": steps, "loss": float(error.detach())}
                report({**row, "elapsed_s": elapsed})
            if state is not None:
                numbers = {"step": step, "elapsed_s": elapsed}
                state.keep(partial(_content, tokenizer, optimizer, book, numbers))
    return tokenizer.eval(), arguments


def _content(
    tokenizer: ConvVQTokenizer,
    optimizer: torch.optim.Optimizer,
    book: MovingCodebook | None,
    numbers: dict[str, Any],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and numbers for a file."""
    tensors = training_tensors("tokenizer", tokenizer, optimizer)
    return tensors | with_prefix("book.", {} if book is None else book.tensors()), numbers


def _restore(
    tensors: Mapping[str, Tensor], tokenizer: ConvVQTokenizer, optimizer: torch.optim.Optimizer
) -> MovingCodebook | None:
    """Puts the tensors of a file to their places; the codes, where there were any."""
    restore_training("tokenizer", tokenizer, optimizer, tensors)
    book = part_of(tensors, "book.")
    return MovingCodebook.from_tensors(book) if book else None


def _losses(tokenizer: ConvVQTokenizer, images: Tensor, book: MovingCodebook | None) -> tuple[Tensor, Tensor]:
    """Squared error of the images in [-1, 1], and of the latents against their codes; gradients pass codes straight."""
    latents = tokenizer.latents(images)
    commitment = torch.zeros(())
    if book is not None:
        tokenizer.codebook.copy_(book.codes)
        tokens = tokenizer.nearest(latents.detach())
        codes = tokenizer.codebook[tokens]
        commitment = functional.mse_loss(latents, codes)
        book.update(latents.detach().flatten(0, 1), tokens.flatten())
        latents = latents + (codes - latents).detach()
    return 4 * functional.mse_loss(tokenizer.rebuild(latents), images), commitment


@torch.no_grad()
def _kmeans_codes(tokenizer: ConvVQTokenizer, images: Tensor, vocab_size: int, seed: int) -> Tensor:
    """Codes `[V, D]` by k-means over the latents of the first real images."""
    from sklearn.cluster import KMeans  # takes half a second to import

    latents = tokenizer.latents(images[:_KMEANS_IMAGES]).flatten(0, 1).numpy()
    kmeans = KMeans(vocab_size, n_init=1, max_iter=30, random_state=derive_seed(Purpose.CODEBOOK, seed)).fit(latents)
    return torch.from_numpy(kmeans.cluster_centers_).float()


def _learning_rate(step: int, num_steps: int) -> float:
    """Factor on the peak rate: linear warm-up, then a cosine to 3 %."""
    warmup = min(1.0, (step + 1) / _WARMUP_STEPS)
    return warmup * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / num_steps)))
