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
class Source:
    """Something that a mean difference varies with, such as seeds.

    Args:
        variance: that it gives the mean. freedom: degrees of freedom of that estimate, 1 or more.
    """

    variance: float
    freedom: int


@dataclass(frozen=True)
class Difference:
    """How much better the first is than the second; negative where it is worse.

    Args:
        mean: over the seeds. margin: what is too little to matter, 0 or more.
        sources: what the mean varies with; none where nothing can be said of it (a single number).
        shared: variance of the mean that two sources both hold.
    """

    mean: float
    margin: float
    sources: tuple[Source, ...]
    shared: float = 0.0

    @property
    def finding(self) -> Finding:
        """What it comes to, looked at by itself."""
        if self.low > self.margin:
            return Finding.BETTER
        if self.high < -self.margin:
            return Finding.WORSE
        return Finding.LEVEL if self.is_level else Finding.UNDECIDED

    @property
    def is_level(self) -> bool:
        """Whether it is shown to lie within the margin."""
        return -self.margin <= self.low_90 and self.high_90 <= self.margin

    @property
    def low(self) -> float:
        """Where the 95 % interval begins; it may be infinite."""
        return self.mean - self.half_width(ALPHA)

    @property
    def high(self) -> float:
        """Where the 95 % interval ends."""
        return self.mean + self.half_width(ALPHA)

    @property
    def low_90(self) -> float:
        """Where the 90 % interval begins."""
        return self.mean - self.half_width(2 * ALPHA)

    @property
    def high_90(self) -> float:
        """Where the 90 % interval ends."""
        return self.mean + self.half_width(2 * ALPHA)

    @property
    def p_better(self) -> float:
        """One-sided p-value that the first is better at all, without a margin; 1 where nothing can be said."""
        if not self.sources:
            return 1.0
        half = self._chance_beyond(abs(self.mean)) / 2
        return half if self.mean > 0 else 1 - half

    @property
    def p(self) -> float:
        """Two-sided p-value that it lies beyond the margin, on the side where it is."""
        beyond = abs(self.mean) - self.margin
        return 1.0 if beyond <= 0 else self._chance_beyond(beyond)

    def half_width(self, alpha: float) -> float:
        """Of the interval that leaves out the true difference with a chance of `alpha`, at most.

        With two sources, each with its own few degrees of freedom, the squared half widths of both are added (Banerjee
        1960): that keeps the level at any number of seeds, where an approximation by one t distribution does not. The
        variance that both hold is taken off once.
        """
        from scipy import special  # takes a moment to import

        if not self.sources:
            return np.inf
        squares = [
            float(special.stdtrit(source.freedom, 1 - alpha / 2)) ** 2 * source.variance for source in self.sources
        ]
        shared = float(special.ndtri(1 - alpha / 2)) ** 2 * self.shared
        return max(*squares, sum(squares) - shared) ** 0.5 if len(squares) > 1 else squares[0] ** 0.5

    def _chance_beyond(self, distance: float) -> float:
        """The chance `alpha` whose interval has this half width."""
        from scipy import optimize, special

        if not self.sources or distance <= 0:
            return 1.0
        if not any(source.variance for source in self.sources):
            return 0.0
        if len(self.sources) == 1:
            (source,) = self.sources
            return float(2 * special.stdtr(source.freedom, -distance / source.variance**0.5))
        smallest = 1e-12
        if self.half_width(smallest) <= distance:
            return smallest
        return float(optimize.brentq(lambda alpha: self.half_width(alpha) - distance, smallest, 1.0))


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
    ours, theirs = np.asarray(first, float), np.asarray(second, float)
    if ours.ndim != 1:
        raise ValueError(f"numbers of {ours.shape} and {theirs.shape} seeds do not pair, or are not finite")
    return crossed_difference(ours[None], theirs[None], margin, minimises=minimises)


def crossed_difference(first: np.ndarray, second: np.ndarray, margin: float, *, minimises: bool = True) -> Difference:
    """Compares numbers of several trainings, each of them evaluated on the same seeds.

    Trainings and images are both drawn from many; the interval is for the mean over all of them. With one training it
    is for that training alone, with one set of images for those alone.

    Args:
        first: `[R, S]` of R trainings and S evaluation seeds, or parts of their images. second: `[R, S]`, paired with
            the trainings, or `[1, S]`.

    Raises:
        ValueError: shapes that do not pair, none, or numbers that are not finite.
    """
    ours, theirs = np.asarray(first, float), np.asarray(second, float)
    pairs = ours.ndim == theirs.ndim == 2 and ours.shape[1] == theirs.shape[1] and len(theirs) in (1, len(ours))
    if not pairs or not ours.size or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ValueError(f"numbers of {ours.shape} and {theirs.shape} seeds do not pair, or are not finite")
    gains = theirs - ours if minimises else ours - theirs
    mean = float(gains.mean())
    by_training, by_seed = gains.mean(axis=1), gains.mean(axis=0)
    rounding = (1e-12 * max(float(np.abs(ours).max()), float(np.abs(theirs).max()))) ** 2
    sources = tuple(
        Source(_unless_rounding(float(means.var(ddof=1)), rounding) / len(means), len(means) - 1)
        for means in (by_training, by_seed)
        if len(means) > 1
    )
    if len(sources) < 2:
        return Difference(mean, margin, sources)
    rest = gains - by_training[:, None] - by_seed[None, :] + mean
    freedom = (len(by_training) - 1) * (len(by_seed) - 1)
    return Difference(mean, margin, sources, float((rest**2).sum()) / freedom / gains.size)


def _unless_rounding(variance: float, rounding: float) -> float:
    return 0.0 if variance <= rounding else variance


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
