"""Damaged real images that a reward worker met, as a part of its state.

So the limit of a run counts on in a fresh actor and after a resume, and the driver can name the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

DAMAGED_IMAGES = "damaged_images"  # metric of an update: how many are known; left out while there are none
_KEY = "real_images.damaged"  # JSON in UTF-8: index of an image → where it is and what is wrong


class DamageReport(Protocol):
    """Real images, some of which may be damaged."""

    @property
    def damaged(self) -> dict[int, str]:
        """Index → where it is and what is wrong."""
        ...

    def mark_damaged(self, damaged: Mapping[int, str]) -> None:
        """Takes over what others have found."""
        ...


def damage_state(report: DamageReport | None) -> dict[str, Tensor]:
    """What a state holds of it: nothing, or one tensor uint8."""
    if report is None or not report.damaged:
        return {}
    return {_KEY: torch.tensor(list(json.dumps(report.damaged).encode()), dtype=torch.uint8)}


def take_damage(state: Mapping[str, Tensor], report: DamageReport | None) -> dict[str, Tensor]:
    """Marks the images that a state holds as damaged; returns what belongs to the reward model."""
    if report is not None and _KEY in state:
        report.mark_damaged({int(index): reason for index, reason in _decoded(state[_KEY]).items()})
    return {name: value for name, value in state.items() if name != _KEY}


def damaged_images(state: Mapping[str, Tensor]) -> list[str]:
    """Where they are and what is wrong, out of a service's state; over all parts of a composite, each once."""
    found = [_decoded(value) for name, value in state.items() if name == _KEY or name.endswith(f"/{_KEY}")]
    return list(dict.fromkeys(reason for damaged in found for reason in damaged.values()))


def _decoded(tensor: Tensor) -> dict[str, str]:
    content: dict[str, str] = json.loads(bytes(tensor.tolist()))
    return content
