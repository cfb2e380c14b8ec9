from __future__ import annotations

import itertools

import numpy as np
import pytest

from adanat_rl.evaluation.fronts import Front


def test_a_front_holds_what_nothing_beats() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((200, 2))
    front = Front.of(points)
    beaten = [any((other > point).all() for other in points) for point in points]
    expected = points[~np.array(beaten)]
    assert np.array_equal(front.points, expected[np.argsort(expected[:, 0])])
    assert (np.diff(front.points[:, 0]) > 0).all()
    assert (np.diff(front.points[:, 1]) < 0).all()


def test_of_points_that_are_level_in_one_coordinate_the_better_one_stays() -> None:
    assert Front.of([[0.5, 0.2], [0.5, 0.3], [0.4, 0.3], [0.5, 0.3]]).points.tolist() == [[0.5, 0.3]]


@pytest.mark.parametrize(
    ("point", "lead"),
    [
        ((0.2, 0.8), 0.0),  # on it
        ((0.4, 0.6), 0.0),  # on the line between neighbours
        ((0.5, 0.7), 0.1),  # above the line: both may fall by .1
        ((0.3, 0.5), -0.1),
        ((0.9, 0.1), 0.3),  # beyond the end
        ((0.1, 0.8), 0.0),  # as much of one, less of the other: nothing is gained
        ((0.1, 0.5), -0.1 - 0.1),
    ],
)
def test_a_lead_is_what_both_coordinates_can_lose(point: tuple[float, float], lead: float) -> None:
    assert Front.of([[0.2, 0.8], [0.6, 0.4]]).lead(point) == pytest.approx(lead)


def test_leads_are_those_of_a_front_of_very_many_points() -> None:
    rng = np.random.default_rng(1)
    corners = Front.of(rng.random((50, 2))).points
    places = np.linspace(0, 1, 20_001)[:, None]
    dense = np.concatenate([a + places * (b - a) for a, b in itertools.pairwise(corners)])
    for point in rng.random((30, 2)) * 1.4:
        expected = (point - dense).max(axis=1).min()
        assert Front.of(corners).lead(point) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("points", [[], [[0.1, float("nan")]]])
def test_no_points_and_no_numbers_are_refused(points: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="finite"):
        Front.of(points)
