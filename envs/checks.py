"""What a caller hands to the environments, checked: actions, seeds, contexts, options, sizes.

Every refusal is a ValueError of one line that names the argument, what it is and what is accepted.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Collection
from typing import Any

import numpy as np
from gymnasium.spaces import Box


def checked_actions(actions: Any, space: Box) -> np.ndarray:
    """Actions as float32 of the shape of `space`; integers are taken, other types and what lies outside are not."""
    values = _as_array(actions, "actions")
    if values.dtype.kind not in "iuf":
        raise ValueError(f"actions are of dtype {values.dtype}, expected numbers such as float32")
    if values.shape != space.shape:
        raise ValueError(f"actions are of shape {values.shape}, expected {space.shape}")
    if not np.isfinite(values).all():
        where = tuple(int(index) for index in np.argwhere(~np.isfinite(values))[0])
        raise ValueError(f"actions[{', '.join(map(str, where))}] is {values[where]}, expected finite numbers")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if (values < space.low).any() or (values > space.high).any():
        worst = values.flat[np.abs(values).argmax()]
        raise ValueError(
            f"actions reach {worst:g}, outside of {space.low.min():g} … {space.high.max():g}: clip them "
            "(gymnasium.wrappers.ClipAction, or its form for vector environments), or raise the limit "
            "(overrides=['decisions.action_limit=…'])"
        )
    return values


def checked_seeds(seed: Any, num_envs: int) -> list[int | None]:
    """One seed per image: a single seed counts up from image to image; None goes on with what the image has.

    Args:
        seed: None, an integer from 0 up, or a sequence of `num_envs` of them.
    """
    if seed is None:
        return [None] * num_envs
    if isinstance(seed, list | tuple) or (isinstance(seed, np.ndarray) and seed.ndim > 0):
        if len(seed) != num_envs:
            raise ValueError(f"seed has {len(seed)} entries, expected {num_envs}, one per image")
        return [None if value is None else _checked_seed(value) for value in seed]
    first = _checked_seed(seed)
    return [first + index for index in range(num_envs)]


def _checked_seed(value: Any) -> int:
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(f"seed is {value!r}, expected integers from 0 up, or None")
    return number


def checked_labels(labels: Any, num_contexts: int, what: str) -> np.ndarray:
    """Labels as int64; anything but integers 0 … num_contexts - 1 is an error that begins with `what`."""
    values = _as_array(labels, what)
    if values.dtype.kind not in "iu" or values.size == 0 or values.min() < 0 or values.max() >= num_contexts:
        raise ValueError(f"{what} is {_shortened(labels)}, expected labels 0 … {num_contexts - 1}")
    return values.astype(np.int64)


def checked_options(options: Any, accepted: Collection[str]) -> dict[str, Any]:
    """The options of a reset; a key that nobody reads is an error, not ignored."""
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise ValueError(f"options is {_shortened(options)}, expected a dict with the keys {', '.join(accepted)}")
    for key in options:
        if key not in accepted:
            near = difflib.get_close_matches(str(key), accepted, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"options has the key {key!r}, accepted: {', '.join(map(repr, accepted))}{hint}")
    return options


def checked_count(value: Any, what: str) -> int:
    """An integer from 1 up."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{what} is {value!r}, expected an integer from 1 up")
    return int(value)


def checked_limit(value: Any) -> float:
    """The bound of the actions."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < math.inf:
        raise ValueError(f"action_limit is {value!r}, expected a number greater than 0")
    return float(value)


def _as_array(values: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except (ValueError, TypeError, OverflowError):  # nested lists of unequal lengths and the like
        raise ValueError(f"{what} is {_shortened(values)}, expected an array of numbers") from None


def _shortened(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}…"
