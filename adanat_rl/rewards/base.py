"""The contract of a reward model: a batch of finished images in, one score per image out.

Write a subclass, name it as `reward.kind: module:Class`, and it runs inside the reward actors. Trainable models also
implement `update` and their state. Everything a model draws comes from the generator it is handed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor


class Requirement(StrEnum):
    """What a reward model needs besides the images; checked when the experiment is built."""

    LABELS = "labels"
    REAL_IMAGES = "real_images"
    CAPTIONS = "captions"


@dataclass(frozen=True)
class RewardBatch:
    """Images to be scored.

    Args:
        images: `[B, C, H, W]` float32 in [0, 1].
        labels: `[B]` int64, the context each image was drawn for: its class, or the row of its caption.
        num_passes: `[B]` int64, NAT passes that each image took; None where nobody counted, as for real images.
    """

    images: Tensor
    labels: Tensor
    num_passes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, index: Tensor) -> RewardBatch:
        """The images at `index`."""
        num_passes = None if self.num_passes is None else self.num_passes[index]
        return RewardBatch(self.images[index], self.labels[index], num_passes)

    def batches(self, rows: Sequence[Tensor]) -> Iterator[RewardBatch]:
        """Several in turn."""
        return map(self.rows, rows)


class ImageSet(Protocol):
    """Many images with labels, of which a model asks for the rows that it wants; a `RewardBatch` is one."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    @property
    def images(self) -> Tensor:
        """All of them at once, `[N, C, H, W]`; at full scale that may be more than memory holds."""
        ...

    @property
    def labels(self) -> Tensor:
        """`[N]` int64."""
        ...

    def rows(self, index: Tensor) -> RewardBatch:
        """The images at `index`."""
        ...

    def batches(self, rows: Sequence[Tensor]) -> Iterator[RewardBatch]:
        """`rows(index)` of several in turn, for whoever knows beforehand what comes: files are read ahead."""
        ...


@dataclass(frozen=True)
class RewardOutput:
    """Scores, higher is better.

    Args:
        scores: `[B]` float32, finite.
        info: further numbers `[B]` float32 by name; they go into the rollout table.
    """

    scores: Tensor
    info: Mapping[str, Tensor] = field(default_factory=dict)


class RewardModel(ABC):
    """Scores finished images.

    Attributes:
        requires: what it needs besides images.
        set_valued: whether a score depends on batch mates, as a distance between sets does; `check-reward` then expects
            no independence.
        sees_images: False for a model that looks at labels and passes alone; it is handed images of no pixels
            `[B, 0, 0, 0]`, which saves their decoding.
        num_warmup_updates: updates before the first policy update.
        num_updates: updates in each iteration; 0 for a model that is not trained.
    """

    requires: ClassVar[frozenset[Requirement]] = frozenset()
    set_valued: ClassVar[bool] = False
    sees_images: ClassVar[bool] = True
    num_warmup_updates: int = 0
    num_updates: int = 0

    @abstractmethod
    def score(self, batch: RewardBatch) -> RewardOutput:
        """Scores of a batch; a pure function of the batch and the model's state."""

    def update(
        self, generated: ImageSet, real: ImageSet, generator: np.random.Generator, num_updates: int
    ) -> dict[str, float]:
        """Trains the model and returns metrics; a pure function of its arguments and the model's state.

        Args:
            generated: the images of this iteration. real: real images. Rows of both are decoded or read when asked for.
            generator: the only source of randomness.
            num_updates: gradient steps to take.
        """
        raise NotImplementedError(f"{type(self).__name__} has num_updates > 0 but no update method")

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes: a flat dict of tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state_dict` gave."""
        if state:
            raise NotImplementedError(f"{type(self).__name__} was given a state but has no load_state_dict method")


class RewardError(Exception):
    """A reward model gave something that is no reward: wrong shape, wrong type or not finite.

    Args:
        message: naming the reward model. rows: of the batch whose numbers are wrong; empty if it is none in particular.
    """

    def __init__(self, message: str, rows: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


SHAPE, DTYPE, FINITE = "shape", "dtype", "finite"


@dataclass(frozen=True)
class ColumnProblem:
    """What is wrong with scores or further numbers.

    Args:
        rule: SHAPE, DTYPE or FINITE. found: what there is. rows: whose numbers are not finite.
    """

    rule: str
    found: str
    rows: tuple[int, ...] = ()


def check_scores(name: str, output: RewardOutput, batch_size: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Scores and further numbers as NumPy `[B]` float32.

    Raises:
        RewardError: naming the reward model, what is wrong and in which rows; a failed reward is never a number.
    """
    if not isinstance(output, RewardOutput):
        raise RewardError(f"reward {name} returned a {type(output).__name__}, expected a RewardOutput")
    given: object = output.info
    if not isinstance(given, Mapping):
        raise RewardError(f"reward {name} returned info of type {type(given).__name__}, expected a dict")
    info = {str(key): _checked(name, f"info {key!r}", value, batch_size) for key, value in given.items()}
    return _checked(name, "scores", output.scores, batch_size), info


def check_state(name: str, state: object) -> dict[str, Tensor]:
    """The state of a reward model, tensors on the CPU.

    Raises:
        RewardError: it is no flat dict of tensors, or lacks their numbers.
    """
    if not isinstance(state, Mapping):
        raise RewardError(f"reward {name} has a state of type {type(state).__name__}, expected a dict of tensors")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor) or value.is_meta:
            raise RewardError(f"reward {name}: {key!r} of its state is a {type(value).__name__}, expected a tensor")
    return {key: value.detach().to_dense().cpu() for key, value in state.items()}


def check_metrics(name: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics of an update as finite numbers.

    Raises:
        RewardError: naming the reward model and the metric.
    """
    if not isinstance(metrics, Mapping):
        raise RewardError(
            f"reward {name} returned a {type(metrics).__name__} from its update, expected a dict of numbers"
        )
    numbers = {}
    for key, value in metrics.items():
        try:
            numbers[str(key)] = float(value)
        except (TypeError, ValueError):
            raise RewardError(f"reward {name}: metric {key!r} of its update is {value!r}, expected a number") from None
    bad = [key for key, value in numbers.items() if not np.isfinite(value)]
    if bad:
        raise RewardError(f"reward {name} diverged: {', '.join(bad)} not finite after the update")
    return numbers


def problem_of(values: object, batch_size: int) -> ColumnProblem | None:
    """Why something is no column of numbers of a batch; None if it is one.

    The one rule for training and `check-reward`: a tensor `[B]` on any device, of any floating-point type, whose
    numbers are finite as float32. Gradients that hang on are dropped.
    """
    if not isinstance(values, Tensor) or tuple(values.shape) != (batch_size,):
        return ColumnProblem(SHAPE, str(list(values.shape)) if isinstance(values, Tensor) else type(values).__name__)
    if not values.is_floating_point():
        return ColumnProblem(DTYPE, str(values.dtype))
    if values.is_meta or values.layout != torch.strided:
        return ColumnProblem(DTYPE, f"{values.dtype} without numbers" if values.is_meta else str(values.layout))
    bad = torch.nonzero(~torch.isfinite(_single(values))).flatten().tolist()
    return ColumnProblem(FINITE, f"{len(bad)} of {batch_size}", tuple(bad)) if bad else None


def _single(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float32)


def _checked(name: str, what: str, values: object, batch_size: int) -> np.ndarray:
    problem = problem_of(values, batch_size)
    if problem is None:
        assert isinstance(values, Tensor)
        return _single(values).numpy()
    expected = {
        SHAPE: f"{what} of shape {problem.found}, expected [{batch_size}]",
        DTYPE: f"{what} of type {problem.found}, expected float32",
        FINITE: f"{problem.found} {what} that are NaN or infinite",
    }
    raise RewardError(f"reward {name} returned {expected[problem.rule]}", problem.rows)
