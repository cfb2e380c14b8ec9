"""How a training stands by the panel, told from one evaluation: no verdict, but what it is worth a look at."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from adanat_rl.evaluation.panel.contract import Value


@dataclass(frozen=True)
class Standing:
    """Keys of the values that lie beyond their margins against an earlier evaluation of the same images.

    Args:
        ahead: where the later one is better. behind: where it is worse.
    """

    ahead: tuple[str, ...]
    behind: tuple[str, ...]


def standing(
    values: Sequence[Value], now: Mapping[str, float], before: Mapping[str, float], rewarded: Collection[str] = ()
) -> Standing:
    """Compares two evaluations of one seed, value by value; chance is not taken into account.

    Args:
        values: of the panel; those that either evaluation lacks are left out. now, before: numbers by key.
        rewarded: keys that the reward was paid in, which are left out too.
    """
    ahead, behind = [], []
    for value in values:
        ours, theirs = now.get(value.key, np.nan), before.get(value.key, np.nan)
        gain = (theirs - ours) if value.minimises else (ours - theirs)
        if value.key in rewarded or not np.isfinite(gain):
            continue
        if gain > value.margin_at(theirs):
            ahead.append(value.key)
        elif gain < -value.margin_at(theirs):
            behind.append(value.key)
    return Standing(tuple(ahead), tuple(behind))
