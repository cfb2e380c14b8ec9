"""Fronts: what can be had of two things at once, such as precision and recall, and how far outside a policy lies.

A schedule that gives away recall for precision is not better; one that has more of either than any mixture of
schedules at its cost is. Between neighbours of a front lies a straight line: whoever draws part of the images with one
schedule and the rest with the other has about what lies on it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Front:
    """The points that no other point beats in both coordinates, of which more is better.

    Args:
        points: float64 `[P, 2]`, P ≥ 1, the first coordinate ascending and the second descending.
    """

    points: np.ndarray

    @classmethod
    def of(cls, points: Sequence[Sequence[float]] | np.ndarray) -> Front:
        """The front of points `[N, 2]`.

        Raises:
            ValueError: there are none, or numbers that are not finite.
        """
        every = np.asarray(points, float).reshape(-1, 2)
        if not len(every) or not np.isfinite(every).all():
            raise ValueError("a front needs at least one point, and finite numbers")
        best_first = every[np.lexsort((-every[:, 1], -every[:, 0]))]
        kept = [best_first[0]]
        for point in best_first[1:]:
            if point[1] > kept[-1][1]:
                kept.append(point)
        return cls(np.array(kept[::-1]))

    def lead(self, point: Sequence[float]) -> float:
        """How far a point lies outside, in the unit of the coordinates; negative: how far inside.

        The largest number by which one can lower both coordinates of the point so that still no place on the front
        (its lines, and what lies below and left of them) has more of both (the additive epsilon indicator of Zitzler et
        al. 2003).
        """
        gaps = np.asarray(point, float) - self.points
        candidates = [float(gap.max()) for gap in gaps]
        for first, second in itertools.pairwise(gaps):
            # Along the line from one neighbour to the next the first gap falls and the second rises; the larger of
            # both is least where they meet.
            change = (second - first) @ np.array([1.0, -1.0])
            place = (first[1] - first[0]) / change if change else 0.0
            if 0 < place < 1:
                candidates.append(float((first + place * (second - first)).max()))
        return min(candidates)
