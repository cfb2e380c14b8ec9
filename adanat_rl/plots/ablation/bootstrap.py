"""How sure a winner is: arms compared over resampled seeds.

Each arm's seeds are drawn with replacement, arm by arm, and the means are compared (Efron's bootstrap). It knows the
spread among the given seeds only, so that with few of them it is rather too sure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_SAMPLES = 10_000
SURE = 0.95  # share of the samples from which on an arm is said to win


@dataclass(frozen=True)
class Contest:
    """What the bootstrap says.

    Args:
        best_share: `[K]` how often each arm has the best mean; equal means share.
        margin: difference of the means of the first two, positive. low, high: its 95 % interval.
    """

    best_share: np.ndarray
    margin: float
    low: float
    high: float


def contest(
    values: Sequence[np.ndarray], generator: np.random.Generator, *, minimises: bool, num_samples: int = NUM_SAMPLES
) -> Contest:
    """Compares arms.

    Args:
        values: of each of the K arms, the best first, one number a seed `[S_k]`. generator: draws the seeds.

    Raises:
        ValueError: fewer than two arms, or one without values.
    """
    if len(values) < 2 or not all(map(len, values)):
        raise ValueError(f"a contest needs two arms with values, got {list(map(len, values))}")
    sign = 1.0 if minimises else -1.0
    means = np.stack([_resampled_means(sign * arm, generator, num_samples) for arm in values], axis=1)
    is_best = np.isclose(means, means.min(axis=1, keepdims=True), rtol=1e-12, atol=0.0)
    share = (is_best / is_best.sum(axis=1, keepdims=True)).mean(axis=0)
    low, high = np.quantile(means[:, 1] - means[:, 0], (0.025, 0.975))
    margin = sign * float(values[1].mean() - values[0].mean())
    return Contest(share, margin, float(low), float(high))


def _resampled_means(values: np.ndarray, generator: np.random.Generator, num_samples: int) -> np.ndarray:
    return values[generator.integers(0, len(values), (num_samples, len(values)))].mean(axis=1)
