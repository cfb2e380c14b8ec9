"""The learner of an algorithm, in the driver or in an actor that may die, hang or raise: then a fresh one takes over.

An update is a pure function of the state before it and the train batch, so an update that was lost is made again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.core.learner.training_data import TrainingData
from torch import Tensor

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.schema import ResourcesConfig
from adanat_rl.rewards.ray_errors import reason
from adanat_rl.rl.shards import Shard

_TICK_S = 0.1


@dataclass(frozen=True)
class Learned:
    """What an update gives: its metrics as RLlib wants them, advantages `[trajectories, T]`, and the state after it."""

    metrics: Any
    advantages: np.ndarray
    state: dict[str, Tensor]


class Learning:
    """Updates by RLlib's learner group.

    Args:
        group: the learners. rebuild: makes the same group again, with fresh weights.
        resources: deadlines and limits. check: called while an actor is waited for; what it raises ends the wait.
    """

    def __init__(
        self,
        group: LearnerGroup,
        rebuild: Callable[[], LearnerGroup],
        resources: ResourcesConfig,
        check: Callable[[], None],
    ) -> None:
        self.group = group
        self.num_replaced = 0
        self._rebuild = rebuild
        self._resources = resources
        self._check = check

    def update(
        self, shards: Sequence[Shard], before: Mapping[str, Tensor], settings: Mapping[str, Any], next_std: float
    ) -> Learned:
        """Learns from a train batch.

        Args:
            before: the state to begin with, which the learner has; a fresh one takes it over.
            settings: keyword arguments of RLlib's update. next_std: the action noise of the next iteration.

        Raises:
            RunError: the learner failed, and did so again as often as is allowed.
        """
        if self.group.is_local:
            return self._update_here(shards, settings, next_std)
        retries = 0
        while True:
            try:
                if retries:
                    self._replace(before)
                return self._update_actor(shards, settings, next_std)
            except RayError as error:  # includes the time-out
                cause = error.cause if isinstance(error, RayTaskError) else None
                if isinstance(cause, RunError | UserError):
                    raise cause from error
                retries += 1
                if retries > self._resources.max_learner_retries:
                    raise RunError(
                        f"the learner actor failed, after {self._resources.max_learner_retries} retries on fresh ones: "
                        f"{reason(error)}"
                    ) from error

    def call(self, method: str, *args: Any) -> Any:
        """Calls a method of the learner, wherever it runs; a request to stop does not end that.

        Raises:
            RunError: its actor failed.
        """
        if self.group.is_local:
            return getattr(self.group._learner, method)(*args)
        try:
            return self._ask(_nothing, method, *args)
        except RayError as error:
            raise RunError(f"the learner actor failed: {reason(error)}") from error

    def close(self) -> None:
        """Ends an actor without waiting for it; the host's own stop would wait for one that hangs."""
        if self.group.is_local or self.group._is_shut_down:
            return
        for actor in self.group._workers:
            ray.kill(actor)
        with suppress(RayError, RuntimeError):  # its workers are gone already
            self.group._backend_executor.shutdown(graceful_termination=False)
        self.group._is_shut_down = True

    def _update_here(self, shards: Sequence[Shard], settings: Mapping[str, Any], next_std: float) -> Learned:
        learner: Any = self.group._learner
        try:
            metrics = self.group.update(episodes=list(shards), **settings)
        except (RunError, UserError, OSError):
            raise
        except Exception as error:  # whatever torch finds wrong with a device
            raise RunError(f"the learner failed: {reason(error)}") from error
        learner.set_action_std(next_std)
        return Learned(metrics, learner.last_advantages(), learner.training_state())

    def _update_actor(self, shards: Sequence[Shard], settings: Mapping[str, Any], next_std: float) -> Learned:
        data = TrainingData(episodes=list(shards))
        metrics = self._ask(self._check, "update", training_data=data, return_state=False, **settings)
        self._ask(self._check, "set_action_std", next_std)
        return Learned([metrics], self._ask(self._check, "last_advantages"), self._ask(self._check, "training_state"))

    def _ask(self, check: Callable[[], None], method: str, *args: Any, **kwargs: Any) -> Any:
        """One call of the actor, watched until its deadline."""
        check()
        timeout_s = self._resources.learner_timeout_s
        reference = getattr(self.group._workers[0], method).remote(*args, **kwargs)
        deadline = time.monotonic() + timeout_s
        while not ray.wait([reference], timeout=_TICK_S)[0]:
            check()
            if time.monotonic() > deadline:
                raise GetTimeoutError(f"no answer within resources.learner_timeout_s = {timeout_s:g} s")
        return ray.get(reference, timeout=timeout_s)

    def _replace(self, state: Mapping[str, Tensor]) -> None:
        """A fresh actor with that state in the place of the one that failed."""
        self.num_replaced += 1
        self.close()
        self.group = self._rebuild()
        self._ask(self._check, "load_training_state", dict(state))


def _nothing() -> None:
    pass
