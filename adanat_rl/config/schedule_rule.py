"""The range that each decision of a schedule may have: one rule for settings, schedule files and reference files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from adanat_rl.config.section import MAX_DECISION

# Logits are divided by the sampling temperature: it is no less than this, far below the floor that decisions have.
LEAST_SAMPLING_TEMPERATURE = 1e-6
DECISION_RANGES = {
    "mask_ratio": (0.0, 1.0),
    "confidence_temperature": (0.0, MAX_DECISION),
    "sampling_temperature": (LEAST_SAMPLING_TEMPERATURE, MAX_DECISION),
    "guidance_scale": (0.0, MAX_DECISION),
}
_RULE = (
    "mask ratios must be in [0, 1], sampling temperatures above 0, the rest at least 0, and all of them at most "
    f"{MAX_DECISION:g}"
)


def schedule_problem(rows: Iterable[Sequence[float]]) -> str | None:
    """The first number of rows `[*, 4]` that is out of its range (or no number), in words; None if all are right."""
    for place, row in enumerate(rows, start=1):
        for value, (name, (low, high)) in zip(row, DECISION_RANGES.items(), strict=True):
            if not low <= value <= high:
                return f"row {place}: {name} {value:g} is not accepted: {_RULE}"
    return None
