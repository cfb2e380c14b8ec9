"""Several numbers for a value of one set of images, from parts of the set: more to go by than one number a seed.

The numbers are the pseudo-values of a jackknife (Tukey 1958) over groups of images: n times the value, less n - 1 times
that of all but one group, moved so that their mean is the value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NUM_GROUPS = 4
_SMALLEST_GROUP = 50  # images


def num_groups(count: int) -> int:
    """In how many groups so many images are dealt: a single one where they would be small."""
    return NUM_GROUPS if count >= NUM_GROUPS * _SMALLEST_GROUP else 1


def pseudo_values(value: float, without: Sequence[float]) -> list[float]:
    """A number of each group.

    Args:
        value: of all images. without: of all but one group, by the group that is left out.
    """
    left = np.array(without)
    spread: np.ndarray = -(len(left) - 1) * (left - left.mean())
    return (value + spread).tolist()
