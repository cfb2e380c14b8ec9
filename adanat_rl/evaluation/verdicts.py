"""What numbers of several seeds show of a difference: better, worse, level or undecided, by a margin set beforehand.

Two things are compared seed by seed. A difference counts as better or worse when its 95 % interval, Student's t over
the seeds, lies wholly beyond the margin; as level when its 90 % interval lies wholly within it (two one-sided tests,
Schuirmann 1987). All else is undecided: that nothing was found does not mean that there is nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

ALPHA = 0.05  # how often something that is not so is said, at most
MARGIN = 0.02  # differences of less, as a part of what is compared with, are of no use to anybody


class Finding(StrEnum):
    """What a difference comes to."""

    BETTER = "better"
    WORSE = "worse"
    LEVEL = "level"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Difference:
    """How much better the first is than the second, seed by seed; negative where it is worse.

    Args:
        mean, sd: over the seeds (n - 1). count: of seeds. margin: what is too little to matter, 0 or more.
        low, high: 95 % interval. low_90, high_90: 90 % interval. Infinite with a single seed.
    """

    mean: float
    sd: float
    count: int
    margin: float
    low: float
    high: float
    low_90: float
    high_90: float

    @property
    def finding(self) -> Finding:
        """What it comes to, looked at by itself."""
        if self.low > self.margin:
            return Finding.BETTER
        if self.high < -self.margin:
            return Finding.WORSE
        if -self.margin <= self.low_90 and self.high_90 <= self.margin:
            return Finding.LEVEL
        return Finding.UNDECIDED

    @property
    def p_better(self) -> float:
        """One-sided p-value that the first is better at all, without a margin."""
        from scipy import special

        if self.count < 2:
            return 1.0
        if self.sd == 0:
            return 0.0 if self.mean > 0 else 1.0
        return float(special.stdtr(self.count - 1, -self.mean * self.count**0.5 / self.sd))

    @property
    def p(self) -> float:
        """Two-sided p-value that it lies beyond the margin, on the side where it is."""
        from scipy import special  # takes a moment to import

        beyond = abs(self.mean) - self.margin
        if self.count < 2 or beyond <= 0:
            return 1.0
        if self.sd == 0:
            return 0.0
        return float(2 * special.stdtr(self.count - 1, -beyond * self.count**0.5 / self.sd))


def paired_difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    margin: float,
    *,
    minimises: bool = True,
) -> Difference:
    """Compares two lists of numbers `[S]`, one of each seed in equal order.

    Raises:
        ValueError: different numbers of seeds, none, or numbers that are not finite.
    """
    from scipy import special

    ours, theirs = np.asarray(first, float), np.asarray(second, float)
    if ours.shape != theirs.shape or ours.ndim != 1 or not len(ours) or not np.isfinite([ours, theirs]).all():
        raise ValueError(f"numbers of {ours.shape} and {theirs.shape} seeds do not pair, or are not finite")
    gains = theirs - ours if minimises else ours - theirs
    count, mean = len(gains), float(gains.mean())
    if count < 2:
        return Difference(mean, 0.0, count, margin, -np.inf, np.inf, -np.inf, np.inf)
    sd = float(gains.std(ddof=1))
    if sd <= 1e-12 * float(np.abs([ours, theirs]).max()):  # nothing but rounding
        sd = 0.0
    half, half_90 = (float(special.stdtrit(count - 1, 1 - tail)) * sd / count**0.5 for tail in (ALPHA / 2, ALPHA))
    return Difference(mean, sd, count, margin, mean - half, mean + half, mean - half_90, mean + half_90)


@dataclass(frozen=True)
class Contest:
    """What several arms come to by one metric, over the seeds that all of them have.

    Args:
        order: arms, the best mean first. means: of each. count: of seeds. margin: absolute.
        ahead: difference of the first arm to each other one, in that order.
        surely_better: pairs (better, worse) that hold together after Holm's correction over all pairs.
    """

    order: tuple[str, ...]
    means: Mapping[str, float]
    count: int
    margin: float
    ahead: Mapping[str, Difference]
    surely_better: frozenset[tuple[str, str]]

    @property
    def winner(self) -> str | None:
        """The arm that is better than every other one; None if there is none.

        Of K equal arms each would have to beat all others at once: with K = 2 that happens in 5 % of the sweeps at
        most, with more it is rarer, so that this needs no further correction.
        """
        is_first = all(difference.finding is Finding.BETTER for difference in self.ahead.values())
        return self.order[0] if is_first else None

    @property
    def level(self) -> list[str]:
        """Arms that are shown to be as good as the first, within the margin."""
        return [arm for arm, difference in self.ahead.items() if difference.finding is Finding.LEVEL]

    @property
    def beaten(self) -> list[str]:
        """Arms that the first is surely better than, whoever is the winner."""
        return [arm for arm in self.ahead if (self.order[0], arm) in self.surely_better]


def contest(values: Mapping[str, Sequence[float] | np.ndarray], *, minimises: bool, margin: float = MARGIN) -> Contest:
    """Compares arms.

    Args:
        values: of each arm `[S]`, of the same seeds in the same order.
        margin: as a part of the mean of all arms, in absolute value.

    Raises:
        ValueError: fewer than two arms, or numbers that do not pair.
    """
    if len(values) < 2:
        raise ValueError(f"a contest needs two arms or more, got {len(values)}")
    means = {arm: float(np.mean(numbers)) for arm, numbers in values.items()}
    order = sorted(means, key=lambda arm: means[arm] if minimises else -means[arm])
    absolute = margin * abs(float(np.median(list(means.values()))))
    found = {
        (ours, theirs): paired_difference(values[ours], values[theirs], absolute, minimises=minimises)
        for ours, theirs in itertools.combinations(order, 2)
    }
    held = holm([difference.p for difference in found.values()])
    return Contest(
        order=tuple(order),
        means=means,
        count=len(next(iter(values.values()))),
        margin=absolute,
        ahead={arm: found[order[0], arm] for arm in order[1:]},
        surely_better=frozenset(pair for pair, is_held in zip(found, held, strict=True) if is_held),
    )


def holm(p_values: Sequence[float], alpha: float = ALPHA) -> list[bool]:
    """Which hypotheses fall, so that with a chance of `alpha` at most one of them falls wrongly (Holm, 1979)."""
    falls = [False] * len(p_values)
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        falls[index] = True
    return falls
