"""What a judge of the panel is: numbers for a set of images from the features of each, and what it cannot see.

A judge is asked in two steps. Its feature space turns each batch of images into rows that are kept; judges with the
same space share those rows, so a set of images passes a network once. The judge then measures the rows of all images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

MARGIN_OF_DISTANCE = 0.03  # as a part of the distance compared with
MARGIN_OF_SHARE = 0.015  # of shares of images: precision, recall, coverage
MARGIN_OF_ACCURACY = 0.005


@dataclass(frozen=True)
class Value:
    """One number that a judge gives.

    Args:
        key: its name in files, unique in a panel. title: for tables.
        minimises: whether less is better.
        margin: differences of less are of no use to anybody. is_relative: the margin is a part of the number that is
            compared with, which must then be well above 0; otherwise it is in the number's own unit.
    """

    key: str
    title: str
    minimises: bool
    margin: float
    is_relative: bool = False

    def margin_at(self, number: float) -> float:
        """The margin in the value's own unit, compared with a number."""
        return self.margin * abs(number) if self.is_relative else self.margin


class FeatureSpace(Protocol):
    """What is kept of an image."""

    @property
    def name(self) -> str:
        """Unique in a panel: two spaces of one name would be taken for the same."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Features float32 `[B, D]` of images float32 `[B, C, H, W]` in [0, 1], both on the CPU, without gradients; a
        row depends on its image alone.
        """
        ...


class PanelJudge(Protocol):
    """One judge."""

    @property
    def name(self) -> str:
        """For people; unique in a panel."""
        ...

    @property
    def kind(self) -> str:
        """What family it is of, such as "raw pixels": alike judges err alike."""
        ...

    @property
    def blind_to(self) -> str:
        """What it cannot see: the end of the sentence "It is blind to …"."""
        ...

    @property
    def space(self) -> FeatureSpace:
        """What it keeps of each image."""
        ...

    @property
    def values(self) -> tuple[Value, ...]:
        """What it gives, one or more."""
        ...

    @property
    def set_size(self) -> int | None:
        """How many images it measures at once, where its numbers depend on how many they are: of more, disjoint sets of
        so many are measured and averaged. None: as many as there are.
        """
        ...

    def __call__(self, features: Tensor, context: Tensor) -> Mapping[str, float]:
        """A number for each value's key.

        Args:
            features: `[N, D]` float32 in its space, N ≥ 2. context: `[N]` int64, what the images were drawn for.

        Raises:
            UserError: too few images. NonFiniteError: features that are NaN or infinite.
        """
        ...
