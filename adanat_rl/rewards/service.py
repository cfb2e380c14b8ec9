"""The driver's handle to the reward model: the contract, and the one that works in the driver itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from torch import Tensor

from adanat_rl.config.errors import RunError
from adanat_rl.rewards.base import RewardError
from adanat_rl.rewards.guard import Check, RewardGuard, nothing
from adanat_rl.rewards.worker import RewardParts, RewardWorker, Scores

RewardFactory = Callable[[], RewardParts]
Result = TypeVar("Result")
REPLACED_ACTORS = "replaced_reward_actors"
_NAMED_IMAGES = 5


@dataclass(frozen=True)
class Finished:
    """Finished samples: what is scored at once.

    Args:
        samples: `[B, …]` in storage dtype. labels: `[B]` int64.
        num_passes: `[B]` int16, NAT passes of each; None where nobody counted.
        ids: B names of trajectories, for messages.
    """

    samples: np.ndarray
    labels: np.ndarray
    num_passes: np.ndarray | None = None
    ids: Sequence[str] | None = None

    def describe(self, rows: Sequence[int]) -> str:
        """Names and contexts of a few of the images at `rows`; empty for no rows."""
        if not rows:
            return ""
        names = [
            f"{self.ids[row] if self.ids is not None else f'row {row}'} (context {self.labels[row]})"
            for row in rows[:_NAMED_IMAGES]
        ]
        more = f" and {len(rows) - _NAMED_IMAGES} more" if len(rows) > _NAMED_IMAGES else ""
        what = "trajectories iteration-shard-row" if self.ids is not None else "images"
        return f": {what} {', '.join(names)}{more}"


class RewardService(Protocol):
    """What the algorithm needs of the reward model, wherever it runs."""

    @property
    def version(self) -> int:
        """How often the model was updated."""
        ...

    @property
    def num_updates(self) -> int:
        """Gradient steps of an update in each iteration; 0: there is none."""
        ...

    @property
    def num_warmup_updates(self) -> int:
        """Gradient steps before the first policy update."""
        ...

    @property
    def num_replaced_actors(self) -> int:
        """Actors that were replaced so far."""
        ...

    def failure_counters(self) -> dict[str, int]:
        """What was repaired since this was made: replaced actors."""
        ...

    def score(self, batches: Sequence[Finished]) -> list[Scores]:
        """Scores of each batch, all by the current version: `start_score` and `finish_score`."""
        ...

    def start_score(self, batches: Sequence[Finished]) -> None:
        """Begins to score; at most one call is under way."""
        ...

    def finish_score(self) -> list[Scores]:
        """Waits for the scores.

        Raises:
            RunError: naming the reward, and the images that it gave wrong scores.
        """
        ...

    def start_update(self, generated: Finished, key: tuple[int, ...], num_updates: int) -> None:
        """Begins to train the model; at most one update is under way."""
        ...

    def finish_update(self) -> dict[str, float]:
        """Waits for the update and returns its metrics; from now on scores come from the next version."""
        ...

    def state(self) -> dict[str, Tensor]:
        """The trainable state of the current version."""
        ...

    def load_state(self, state: Mapping[str, Tensor], version: int) -> None:
        """Takes over a state.

        Raises:
            RewardError: the model does not take it; where it has actors, what asks them next says so.
        """
        ...

    def close(self) -> None:
        """Ends the actors."""
        ...


class LocalRewardService:
    """The reward model in the driver; scoring and updates run when their results are asked for.

    Args:
        factory: builds the parts. timeout_s: how long a batch, or an update, may take; None: as long as it wants.
        check: asked while the reward is waited for; what it raises ends the wait.
        start_timeout_s: how long the reward may take to be made.

    Raises:
        RunError: it cannot be made.
    """

    num_replaced_actors = 0

    def __init__(
        self,
        factory: RewardFactory,
        timeout_s: float | None = None,
        check: Check = nothing,
        start_timeout_s: float | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._check = check
        self._guard = RewardGuard(check)
        self._worker = self._guard.make(lambda: RewardWorker(factory), start_timeout_s)
        self._state = self._copied_state()
        self.version = 0
        self.num_updates, self.num_warmup_updates = update_counts(self._worker.settings())
        self._unscored: Sequence[Finished] = ()
        self._pending: tuple[Finished, tuple[int, ...], int] | None = None

    def failure_counters(self) -> dict[str, int]:
        """There are no actors."""
        return {REPLACED_ACTORS: 0}

    def score(self, batches: Sequence[Finished]) -> list[Scores]:
        """Scores of each batch."""
        self.start_score(batches)
        return self.finish_score()

    def start_score(self, batches: Sequence[Finished]) -> None:
        """Remembers what to score."""
        self._unscored = batches

    def finish_score(self) -> list[Scores]:
        """Scores it."""
        batches, self._unscored = self._unscored, ()
        return [self._score(batch) for batch in batches]

    def _score(self, batch: Finished) -> Scores:
        self._check()
        try:
            return self._in_time(
                lambda: self._worker.score(self.version, batch.samples, batch.labels, batch.num_passes), "scored"
            )
        except RewardError as error:
            raise RunError(explain(error, batch)) from error

    def start_update(self, generated: Finished, key: tuple[int, ...], num_updates: int) -> None:
        """Remembers what to train on."""
        self._pending = (generated, key, num_updates)

    def finish_update(self) -> dict[str, float]:
        """Trains."""
        if self._pending is None:
            return {}
        (generated, key, num_updates), self._pending = self._pending, None
        try:
            metrics, _ = self._in_time(
                lambda: self._worker.update(
                    self.version, generated.samples, generated.labels, key, num_updates, generated.num_passes
                ),
                "trained",
            )
        except RewardError as error:
            raise RunError(str(error)) from error
        self._state = self._copied_state()
        self.version += 1
        return metrics

    def state(self) -> dict[str, Tensor]:
        """A copy of the trainable state of the current version."""
        return self._state

    def load_state(self, state: Mapping[str, Tensor], version: int) -> None:
        """Takes over a state."""
        self._in_time(lambda: self._worker.load_state(state, version), "taken over its state")
        self._state = self._copied_state()
        self.version = version

    def close(self) -> None:
        """Nothing to end."""

    def _copied_state(self) -> dict[str, Tensor]:
        try:
            return {name: value.clone() for name, value in self._worker.state().items()}
        except RewardError as error:
            raise RunError(str(error)) from error

    def _in_time(self, work: Callable[[], Result], what: str) -> Result:
        return self._guard.call(work, self._worker.name, what, self._timeout_s)


def update_counts(settings: Mapping[str, int]) -> tuple[int, int]:
    """Updates of an iteration and of the warm-up, out of what a worker says of its model."""
    return settings["num_updates"], settings["num_warmup_updates"]


def explain(error: RewardError, batch: Finished) -> str:
    """The error with the images it speaks of."""
    return f"{error}{batch.describe(error.rows)}"
