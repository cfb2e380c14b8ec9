from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from adanat_rl.config.errors import UserError
from adanat_rl.generation.masked.schedules import (
    DECISION_NAMES,
    hand_made_schedule,
    load_schedule,
    masked_token_decisions,
)


def test_cosine_schedule_follows_its_formula() -> None:
    schedule = hand_made_schedule(
        5, curve_power=0.7, confidence_temperature=3, sampling_temperature=0.8, guidance_scale=2
    )
    for t in range(5):
        r = (t + 1) / 5
        row = [math.cos(math.pi / 2 * r**0.7), 3 * (1 - r), 0.8, 2 * t / 4]
        np.testing.assert_allclose(schedule[t], row, atol=1e-12)


def test_linear_and_constant_curves_follow_their_formulas() -> None:
    linear, constant = hand_made_schedule(4, "linear", curve_power=2), hand_made_schedule(4, "constant")
    np.testing.assert_allclose(linear[:, 0], [1 - 1 / 16, 1 - 4 / 16, 1 - 9 / 16, 0], atol=1e-12)
    np.testing.assert_allclose(constant[:, 0], [0.5, 0.5, 0.5, 0.0])


def test_adanat_convention_follows_its_formula() -> None:
    schedule = hand_made_schedule(
        8, convention="adanat", confidence_temperature=1, sampling_temperature=1, guidance_scale=1
    )
    for t in range(8):
        r = (t + 1 - 1e-3) / 8
        np.testing.assert_allclose(schedule[t], [math.cos(math.pi * r / 2), 1 - r, 1, (t + 1e-3) / 8], atol=1e-12)


@pytest.mark.parametrize("horizon", [1, 2, 4, 9])
def test_the_last_step_masks_nothing_and_has_the_nominal_guidance(horizon: int) -> None:
    schedule = hand_made_schedule(horizon, guidance_scale=2)
    assert schedule.shape == (horizon, 4)
    assert schedule[-1, 0] == pytest.approx(0, abs=1e-12)
    assert schedule[-1, 3] == 2


def test_ratios_fall_and_stay_in_range_for_every_curve_and_convention() -> None:
    for curve in ("cosine", "linear", "constant"):
        for convention in ("maskgit", "adanat"):
            ratio = hand_made_schedule(12, curve, curve_power=0.3, convention=convention)[:, 0]
            assert ((ratio >= 0) & (ratio <= 1)).all()
            assert (np.diff(ratio) <= 0).all()


def test_decision_rows_have_the_names_of_the_columns() -> None:
    rows = masked_token_decisions(0.2, 0.1)
    assert tuple(row.name for row in rows) == DECISION_NAMES
    assert [row.effective_at_last for row in rows] == [False, False, True, True]
    assert [row.low for row in rows] == [0, 0, 0.2, 0]
    assert (rows[0].base_low, rows[0].base_high) == pytest.approx((0.02, 0.98))
    assert [row.base_low for row in rows[1:]] == [0.1] * 3


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"schedule": rows, "note": "x"}])
def test_schedule_files_are_lists_or_objects(tmp_path: Path, wrap) -> None:
    rows = [[0.5, 1.0, 1.0, 0.0], [0.0, 0.0, 0.7, 3]]
    file = tmp_path / "schedule.json"
    file.write_text(json.dumps(wrap(rows)))
    np.testing.assert_array_equal(load_schedule(file, 2), rows)
    np.testing.assert_array_equal(load_schedule(file), rows)


GOOD = [0.5, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[0.5, 1", "is no JSON"),
        ("{}", "shape .*expected 2 rows of 4 numbers"),
        ("[]", "expected 2 rows of 4 numbers"),
        ("3", "expected 2 rows of 4 numbers"),
        ("null", "expected 2 rows of 4 numbers"),
        (json.dumps([GOOD]), r"shape \[1, 4\], expected 2 rows"),
        (json.dumps([GOOD] * 3), r"shape \[3, 4\], expected 2 rows"),
        (json.dumps([GOOD[:3]] * 2), r"shape \[2, 3\]"),
        (json.dumps([GOOD, GOOD[:2]]), "expected 2 rows of 4 numbers"),
        (json.dumps([GOOD, ["a", "b", "c", "d"]]), "expected 2 rows of 4 numbers"),
        (json.dumps([GOOD, [1.1, 1, 1, 0]]), "mask ratios must be in"),
        (json.dumps([GOOD, [-0.1, 1, 1, 0]]), "mask ratios must be in"),
        (json.dumps([GOOD, [0.5, -1, 1, 0]]), "the rest at least 0"),
        (json.dumps([GOOD, [0.5, 1, 0, 0]]), "sampling temperatures above 0"),
        (json.dumps([GOOD, [0.5, 1, 1, -1]]), "the rest at least 0"),
        ("[[0.5, 1, 1, 0], [NaN, 1, 1, 0]]", "mask ratios must be in"),
        ("[[0.5, 1, 1, 0], [0, 1, 1, 1e999]]", "the rest at least 0"),
        (json.dumps([GOOD, ["0.5", "1", "1", "0"]]), "numbers"),
    ],
)
def test_a_wrong_schedule_file_is_named_with_what_is_wrong(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "schedule.json"
    file.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load_schedule(file, 2)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_schedule_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.json: No such file"):
        load_schedule(tmp_path / "missing.json")
    with pytest.raises(UserError, match="is a folder, expected a file"):
        load_schedule(tmp_path)
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match=r"binary\.json is text in UTF-16"):
        load_schedule(binary)
    binary.write_bytes(b"[[1, \xff")
    with pytest.raises(UserError, match=r"binary\.json is no UTF-8 text: byte 0xff in line 1"):
        load_schedule(binary)
    binary.write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"binary\.json is damaged: it is nested more than 64 levels deep"):
        load_schedule(binary)
