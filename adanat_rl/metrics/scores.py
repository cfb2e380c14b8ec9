"""Inception score and kernel distance (KID) of generated images.

Inception score: Salimans et al., "Improved techniques for training GANs", NeurIPS 2016, as the mean over splits of a
fixed shuffle. KID: Bińkowski et al., "Demystifying MMD GANs", ICLR 2018, the unbiased estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.generation.seeding import Purpose, philox
from adanat_rl.metrics.accumulation import State, ranks
from adanat_rl.metrics.checks import checked_rows
from adanat_rl.metrics.kernels import squared_mmd

NUM_SPLITS = 10


class ScoreSplits:
    """Sums from which the Inception score of N images follows, without keeping their logits.

    Of split s the score is exp(mean over images of KL(p(y|x) || p(y))): the mean of Σ p log p, less Σ p̄ log p̄ of
    the split's mean p̄. All in float64.

    Args:
        num_images: N, at least `num_splits`. num_logits: classes C. num_splits: S.
        shuffle: whether splits are parts of the fixed shuffle, or of the images in order.
    """

    def __init__(self, num_images: int, num_logits: int, num_splits: int = NUM_SPLITS, shuffle: bool = True) -> None:
        if not 1 <= num_splits <= num_images:
            raise UserError(f"Inception score: {num_images} images do not make {num_splits} splits")
        bounds = np.arange(1, num_splits + 1) * num_images // num_splits
        place = ranks(num_images) if shuffle else np.arange(num_images)
        self._split = torch.from_numpy(np.searchsorted(bounds, place, side="right"))
        self._counts = torch.zeros(num_splits, dtype=torch.float64)
        self._probabilities = torch.zeros(num_splits, num_logits, dtype=torch.float64)
        self._negative_entropies = torch.zeros(num_splits, dtype=torch.float64)

    def add(self, logits: Tensor, index: np.ndarray) -> None:
        """Takes in logits `[B, C]` of the images `index` `[B]`.

        Raises:
            UserError: another width, or places that the set has not. NonFiniteError: NaN or infinite logits.
        """
        rows = checked_rows(logits, "class logits of the generated images", width=self._probabilities.shape[1]).cpu()
        places = np.asarray(index, np.int64)
        if len(places) != len(rows) or (len(rows) and not 0 <= places.min() <= places.max() < len(self._split)):
            raise UserError(f"Inception score: {len(rows)} rows for {len(places)} places of {len(self._split)} images")
        log_p = rows.log_softmax(dim=1)
        p = log_p.exp()
        split = self._split[torch.from_numpy(places)]
        self._counts.index_add_(0, split, torch.ones(len(split), dtype=torch.float64))
        self._probabilities.index_add_(0, split, p)
        self._negative_entropies.index_add_(0, split, torch.xlogy(p, p).sum(dim=1))

    def score(self) -> tuple[float, float]:
        """Mean and population standard deviation over the splits.

        Raises:
            UserError: there is no image yet.
        """
        scores = self.scores()
        return float(scores.mean()), float(scores.std(correction=0))

    def scores(self) -> Tensor:
        """The score `[S]` of each split; one that has no image yet is left out.

        Raises:
            UserError: there is no image yet.
        """
        there = self._counts > 0
        if not there.any():
            raise UserError("Inception score: no image has come yet")
        counts = self._counts[there]
        mean_p = self._probabilities[there] / counts[:, None]
        divergence = self._negative_entropies[there] / counts - torch.xlogy(mean_p, mean_p).sum(dim=1)
        return divergence.exp()

    def state(self) -> State:
        """Everything to go on from, given the constructor's arguments."""
        return {
            "counts": self._counts.numpy(),
            "probabilities": self._probabilities.numpy(),
            "negative_entropies": self._negative_entropies.numpy(),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> Self:
        """Goes on from a state."""
        self._counts, self._probabilities, self._negative_entropies = (
            torch.tensor(state[name]) for name in ("counts", "probabilities", "negative_entropies")
        )
        return self


def inception_score(logits: Tensor, num_splits: int = NUM_SPLITS, shuffle: bool = True) -> tuple[float, float]:
    """Mean and population standard deviation of the score over the splits of images with logits `[N, C]`."""
    rows = checked_rows(logits, "class logits of the generated images")
    splits = ScoreSplits(len(rows), rows.shape[1], num_splits, shuffle)
    splits.add(rows, np.arange(len(rows)))
    return splits.score()


def kernel_distance(
    real: Tensor, generated: Tensor, num_subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Mean and population standard deviation of the squared MMD, kernel (x·y / D + 1)³, over random subsets.

    Args:
        real: `[N, D]`. generated: `[M, D]`. subset_size: images of either side, at most the smaller of N and M.
        seed: of the subsets.

    Raises:
        UserError: fewer than 2 images on a side, or different widths. NonFiniteError: NaN or infinite features.
    """
    use = "kernel distance (KID)"
    ours = checked_rows(real, "features of the real images", fewest=2, use=use)
    theirs = checked_rows(generated, "features of the generated images", fewest=2, width=ours.shape[1], use=use).to(
        ours.device
    )
    if num_subsets < 1 or subset_size < 2:
        raise UserError(f"{use}: {num_subsets} subsets of {subset_size} images; 1 or more of 2 or more are needed")
    size = min(subset_size, len(ours), len(theirs))
    draws = philox(Purpose.JUDGE, seed, len(ours), len(theirs))
    values = []
    for _ in range(num_subsets):
        rows = [torch.from_numpy(draws.choice(len(side), size, replace=False)) for side in (ours, theirs)]
        values.append(squared_mmd(ours[rows[0]], theirs[rows[1]]))
    distances = torch.stack(values)
    return float(distances.mean()), float(distances.std(correction=0))
