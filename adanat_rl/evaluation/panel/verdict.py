"""The one verdict: what the values of a panel say of one policy against another, told together.

A value counts as better or worse when the difference lies beyond its margin even after Holm's correction over all
counted values, so that of two equal policies hardly ever any value says so. Level is said of each value by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from adanat_rl.evaluation.panel.contract import Value
from adanat_rl.evaluation.verdicts import Difference, Finding, crossed_difference, holm

_MOST_NAMED = 3  # values in a sentence


@dataclass(frozen=True)
class Compared:
    """One value of two policies.

    Args:
        value: what it is. ours, theirs: means. difference: how much better ours is.
        finding: what it comes to, among the counted values of the panel. is_counted: False for what a reward was
            paid in, which is looked at by itself.
    """

    value: Value
    ours: float
    theirs: float
    difference: Difference
    finding: Finding
    is_counted: bool


@dataclass(frozen=True)
class PanelVerdict:
    """All values of two policies.

    Args:
        rows: in the order of the panel.
    """

    rows: tuple[Compared, ...]

    def count(self, finding: Finding) -> int:
        """How many counted values come to it."""
        return len(self.keys(finding))

    def keys(self, finding: Finding) -> list[str]:
        """Which counted values come to it."""
        return [row.value.key for row in self.rows if row.is_counted and row.finding is finding]

    @property
    def sentence(self) -> str:
        """Such as "better by 7 of 9 values, level by 1 (recall) and undecided by 1 (density)"; few are named."""
        counted = [row for row in self.rows if row.is_counted]
        if not counted:
            return "not judged by anybody: the reward used all values"
        parts: list[str] = []
        for finding in Finding:
            titles = [row.value.title for row in counted if row.finding is finding]
            if titles:
                count = f"{len(titles)} of {len(counted)} values" if not parts else str(len(titles))
                named = f" ({', '.join(titles)})" if len(titles) <= _MOST_NAMED else ""
                parts.append(f"{finding.value} by {count}{named}")
        left_out = len(self.rows) - len(counted)
        paid = f"; {left_out} not counted, because the reward used {'it' if left_out == 1 else 'them'}"
        listed = " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
        return listed + (paid if left_out else "")


def panel_verdict(
    values: Sequence[Value],
    ours: Mapping[str, Sequence[float] | np.ndarray],
    theirs: Mapping[str, Sequence[float] | np.ndarray],
    rewarded: Collection[str] = (),
) -> PanelVerdict:
    """Compares two policies, or two recipes.

    Args:
        values: of the panel. ours, theirs: by key, numbers `[S]` of evaluation seeds or of parts of their images, or
            `[R, S]` of R trainings on the same images; `theirs` may be of one training where ours are of several.
        rewarded: keys that the reward of either was paid in; they are shown and not counted.

    Raises:
        ValueError: numbers that do not pair, or are not finite.
    """
    found = []
    for value in values:
        first, second = (np.atleast_2d(np.asarray(numbers[value.key], float)) for numbers in (ours, theirs))
        margin = value.margin_at(float(second.mean()))
        found.append((first, second, crossed_difference(first, second, margin, minimises=value.minimises)))
    is_counted = [value.key not in rewarded for value in values]
    held = iter(holm([row[2].p for row, counts in zip(found, is_counted, strict=True) if counts]))
    return PanelVerdict(
        tuple(
            Compared(
                value,
                float(first.mean()),
                float(second.mean()),
                difference,
                _among_others(difference, next(held)) if counts else difference.finding,
                counts,
            )
            for value, counts, (first, second, difference) in zip(values, is_counted, found, strict=True)
        )
    )


def _among_others(difference: Difference, is_held: bool) -> Finding:
    if is_held:
        return Finding.BETTER if difference.mean > 0 else Finding.WORSE
    return Finding.LEVEL if difference.is_level else Finding.UNDECIDED
