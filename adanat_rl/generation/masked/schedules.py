"""The decisions of masked-token generators and the hand-made schedules over them.

A schedule is float `[T, 4]`: mask ratio, confidence temperature, sampling temperature, guidance scale.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np

from adanat_rl.config.errors import UserError
from adanat_rl.config.json_files import read_json
from adanat_rl.config.schedule_rule import schedule_problem
from adanat_rl.generation.decisions import Decision

Curve = Literal["cosine", "linear", "constant"]
Convention = Literal["maskgit", "adanat"]

DECISION_NAMES = ("mask_ratio", "confidence_temperature", "sampling_temperature", "guidance_scale")
MAX_HORIZON = 256
MASK_RATIO, CONFIDENCE_TEMPERATURE, SAMPLING_TEMPERATURE, GUIDANCE_SCALE = range(4)


def masked_token_decisions(
    sampling_temperature_floor: float = 0.0,
    base_floor: float | None = None,
    *,
    mask_ratio_cutoff: float = 0.0,
    guidance_cutoff: float = 0.0,
) -> tuple[Decision, ...]:
    """The four rows.

    Args:
        sampling_temperature_floor: least sampling temperature; logits are divided by it.
        base_floor: the base schedule's temperatures and guidance are lifted to this before their activation is inverted
            (and the ratio moved into [base_floor / 5, 1 - base_floor / 5]); None keeps it as it is.
        mask_ratio_cutoff: ratios below are 0, which finishes the image. guidance_cutoff: scales below are 0, which
            saves the unconditional pass.
    """
    margin = None if base_floor is None else base_floor / 5
    ceiling = None if margin is None else 1 - margin
    return (
        Decision(
            "mask_ratio", "sigmoid", 0.0, 1.0, margin, ceiling, effective_at_last=False, zero_below=mask_ratio_cutoff
        ),
        Decision("confidence_temperature", "softplus", base_low=base_floor, effective_at_last=False),
        Decision("sampling_temperature", "softplus", low=sampling_temperature_floor, base_low=base_floor),
        Decision("guidance_scale", "softplus", base_low=base_floor, zero_below=guidance_cutoff),
    )


def hand_made_schedule(
    horizon: int,
    curve: Curve = "cosine",
    *,
    curve_power: float = 1.0,
    confidence_temperature: float = 4.5,
    sampling_temperature: float = 1.0,
    guidance_scale: float = 2.0,
    convention: Convention = "maskgit",
) -> np.ndarray:
    """A schedule `[T, 4]` by formula.

    With r the part of the steps done, the mask ratio is cos(π r^p / 2) (cosine), 1 - r^p (linear) or 1/2 until the last
    step (constant), p = curve_power; the confidence temperature falls linearly, the guidance scale rises linearly.

    Args:
        horizon: T.
        confidence_temperature: its value at r = 0.
        guidance_scale: its value in the last step.
        convention: "maskgit": r = (t+1)/T, guidance in proportion to t/(T-1). "adanat" (official AdaNAT and AdaGen):
            r = (t+1-0.001)/T, guidance in proportion to (t+0.001)/T, so it ends below its nominal value.
    """
    t = np.arange(horizon, dtype=np.float64)
    if convention == "adanat":
        done, ramp = (t + 1 - 1e-3) / horizon, (t + 1e-3) / horizon
    else:
        done, ramp = (t + 1) / horizon, t / (horizon - 1) if horizon > 1 else np.ones(1)
    if curve == "cosine":
        ratio = np.cos(math.pi / 2 * done**curve_power)
    elif curve == "linear":
        ratio = 1 - done**curve_power
    else:
        ratio = np.where(t < horizon - 1, 0.5, 0.0)
    columns = (
        ratio.clip(0, 1),
        confidence_temperature * (1 - done),
        np.full(horizon, sampling_temperature),
        guidance_scale * ramp,
    )
    return np.stack(columns, axis=1)


def load_schedule(path: Path, horizon: int | None = None) -> np.ndarray:
    """A schedule `[T, 4]` from a JSON file: a list of T rows, or an object with such a list under "schedule".

    Raises:
        UserError: the file is missing, no JSON, or holds numbers of another shape or range.
    """
    content = read_json(path, "schedule file")
    rows = content.get("schedule") if isinstance(content, dict) else content
    schedule = _numbers(rows)
    if schedule.ndim != 2 or schedule.shape[1] != 4 or (horizon is not None and len(schedule) != horizon):
        expected = f"{horizon if horizon is not None else 'T'} rows of 4 numbers ({', '.join(DECISION_NAMES)})"
        raise UserError(f"schedule file {path} has shape {list(schedule.shape)}, expected {expected}")
    check_schedule(schedule, f"schedule file {path}")
    return schedule


def check_schedule(values: np.ndarray, name: str) -> None:
    """Refuses decisions `[..., 4]` that no step can be taken with.

    Args:
        name: where they come from, for the message.

    Raises:
        UserError: there are no steps or too many, or a number is not finite or outside what its decision takes.
    """
    if not 1 <= values.shape[-2] <= MAX_HORIZON:
        raise UserError(f"{name}: {values.shape[-2]} steps; accepted: 1 to {MAX_HORIZON}")
    problem = schedule_problem(values.reshape(-1, len(DECISION_NAMES)).tolist())
    if problem is not None:
        raise UserError(f"{name}: {problem}")


def _numbers(rows: object) -> np.ndarray:
    """Rows of numbers as float64 `[T, M]`; an empty array for anything else."""
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        return np.empty(0)
    if len({len(row) for row in rows}) != 1:
        return np.empty(0)
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for row in rows for value in row):
        return np.empty(0)
    try:
        return np.array(rows, np.float64)
    except OverflowError:  # a whole number of hundreds of digits
        return np.full((len(rows), len(rows[0])), np.inf)
