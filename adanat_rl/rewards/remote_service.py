"""The reward model in M Ray actors that score shards, one of them trained.

The service mirrors the trainable state. An actor that dies, hangs or gives no number is replaced by a fresh one with
that state, and what it owed is asked again; after the configured number of retries the run stops with the reward's
name.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    placement_group,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch import Tensor

from adanat_rl.config.errors import RunError
from adanat_rl.config.schema import ResourcesConfig
from adanat_rl.rewards.base import RewardError
from adanat_rl.rewards.guard import Check, nothing
from adanat_rl.rewards.ray_errors import is_lost, reason
from adanat_rl.rewards.service import (
    REPLACED_ACTORS,
    Finished,
    LocalRewardService,
    RewardFactory,
    RewardService,
    explain,
    update_counts,
)
from adanat_rl.rewards.worker import RewardWorker, Scores

_TICK_S = 0.1
_FETCH_TIMEOUT_S = 120.0  # to bring an answer that is there from another machine


def start_reward_service(
    factory: RewardFactory, resources: ResourcesConfig, part: int = 0, check: Check = nothing
) -> RewardService:
    """The service with as many actors as configured.

    Args:
        part: number of the part of a composite reward, which tells the bundles of the caller's placement group.
        check: asked while something is waited for; what it raises ends the wait.
    """
    if resources.num_reward_actors == 0:
        return LocalRewardService(factory, resources.reward_timeout_s, check, resources.start_timeout_s)
    return RemoteRewardService(factory, resources, part, check)


class RemoteRewardService:
    """The reward model in M named Ray actors, each on a bundle of its own.

    In an actor that itself lies in a placement group, such as a trial of Tune, the actors take bundles of that group
    (`experiment/sweep/resources.py`). Each is pinned to its own: elsewhere it could take the place of a larger worker.

    Raises:
        RunError: the actors do not start in time.
    """

    def __init__(
        self, factory: RewardFactory, resources: ResourcesConfig, part: int = 0, check: Check = nothing
    ) -> None:
        self.version = 0
        self._check = check
        self.num_replaced_actors = 0
        self._factory = factory
        self._resources = resources
        self._uid = uuid.uuid4().hex[:8]
        bundle = {"CPU": resources.num_cpus_per_reward_actor, "GPU": resources.num_gpus_per_reward_actor}
        self._bundle = {name: amount for name, amount in bundle.items() if amount}
        # Of a group that this lies in: 0 is the driver's own, then come the env runners', which RLlib pins.
        self._first_bundle = 1 + resources.num_env_runners + part * resources.num_reward_actors
        callers_group = get_current_placement_group()
        self._owns_group = callers_group is None
        self._group = self._reserve() if callers_group is None else callers_group
        self._actors = [self._create(index) for index in range(resources.num_reward_actors)]
        self._unscored: Sequence[Finished] = ()
        self._flights: dict[Any, int] = {}
        self._pending: tuple[Finished, tuple[int, ...], int] | None = None
        self._reference: Any = None
        try:
            settings = [self._started(index, lambda actor: actor.settings.remote()) for index in self._indices]
            self._state: dict[str, Tensor] = self._started(0, lambda actor: actor.state.remote())
        except BaseException:
            self.close()
            raise
        self.num_updates, self.num_warmup_updates = update_counts(settings[0])

    def failure_counters(self) -> dict[str, int]:
        """Replaced actors."""
        return {REPLACED_ACTORS: self.num_replaced_actors}

    @property
    def _indices(self) -> range:
        return range(self._resources.num_reward_actors)

    @property
    def actors(self) -> list[Any]:
        """The actor handles as they are now."""
        return list(self._actors)

    def score(self, batches: Sequence[Finished]) -> list[Scores]:
        """Scores of each batch, dealt in turn to the actors."""
        self.start_score(batches)
        return self.finish_score()

    def start_score(self, batches: Sequence[Finished]) -> None:
        """Deals the batches to the actors and returns at once."""
        self._unscored = batches
        self._flights = self._submit_scores(range(len(batches)))

    def finish_score(self) -> list[Scores]:
        """Collects the scores; what an actor failed to give is asked again of a fresh one. The deadline counts from
        here.
        """
        batches, results, retries = self._unscored, dict[int, Scores](), 0
        while True:
            failed = self._gather(self._flights, results)
            if not failed:
                break
            retries += 1
            self._give_up_after(retries, "score", next(iter(failed.values())))
            for actor in sorted(failed):
                self._replace(actor)
            self._flights = self._submit_scores(index for index in range(len(batches)) if index not in results)
        self._unscored, self._flights = (), {}
        return [results[index] for index in range(len(batches))]

    def start_update(self, generated: Finished, key: tuple[int, ...], num_updates: int) -> None:
        """Sends the update to the first actor and returns at once."""
        self._pending = (generated, key, num_updates)
        self._submit_update()

    def finish_update(self) -> dict[str, float]:
        """Collects the update; one that failed is repeated from the mirrored state on a fresh actor, unless the
        failure is one of the data, which would come again.
        """
        if self._pending is None:
            return {}
        retries = 0
        while True:
            try:
                answer: tuple[dict[str, float], dict[str, Tensor]]
                answer = self._answer(self._reference, self._resources.reward_timeout_s)
                break
            except RayError as error:  # includes the time-out
                if isinstance(error, RayTaskError) and isinstance(error.cause, RunError):
                    raise RunError(str(error.cause)) from error
                retries += 1
                self._give_up_after(retries, "update", _reason(error))
                self._replace(0)
                self._submit_update()
        self._pending, self._reference = None, None
        self.version += 1
        metrics, self._state = answer
        self._check()
        shared = ray.put(self._state)
        for actor in self._actors[1:]:
            actor.load_state.remote(shared, self.version)  # calls of one actor keep their order: no need to wait
        return metrics

    def state(self) -> dict[str, Tensor]:
        """The mirrored state."""
        return self._state

    def load_state(self, state: Mapping[str, Tensor], version: int) -> None:
        """Takes over a state, in the mirror and in all actors."""
        self._state, self.version = dict(state), version
        self._check()
        shared = ray.put(self._state)
        for actor in self._actors:
            actor.load_state.remote(shared, version)

    def close(self) -> None:
        """Ends the actors and gives their bundles back; nothing where Ray itself is gone."""
        try:
            self._check()
        except RunError:
            return
        except Exception:  # a request to stop: all the more reason
            pass
        for actor in self._actors:
            ray.kill(actor)
        if self._owns_group:
            remove_placement_group(self._group)

    def _reserve(self) -> PlacementGroup:
        """A bundle for each actor."""
        resources = self._resources
        group = placement_group([self._bundle] * resources.num_reward_actors, strategy="SPREAD")
        deadline = time.monotonic() + resources.start_timeout_s
        while not group.wait(_TICK_S):
            self._check()
            if time.monotonic() <= deadline:
                continue
            remove_placement_group(group)
            raise RunError(
                f"no room for {resources.num_reward_actors} reward actors ({self._bundle} each) "
                f"within {resources.start_timeout_s:g} s"
            )
        return group

    def _create(self, index: int) -> Any:
        resources = self._resources
        bundle = index if self._owns_group else self._first_bundle + index
        options = {
            "name": f"adanat-reward-{self._uid}-{index}-{self.num_replaced_actors}",
            "num_cpus": resources.num_cpus_per_reward_actor,
            "num_gpus": resources.num_gpus_per_reward_actor,
            "max_restarts": 0,  # a restart by Ray would silently begin with fresh weights
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=bundle),
        }
        return ray.remote(RewardWorker).options(**options).remote(self._factory, resources.torch_threads)

    def _replace(self, index: int) -> None:
        """Kills what may be left of an actor and starts a fresh one with the mirrored state; waits until it is
        ready.
        """
        ray.kill(self._actors[index])
        self.num_replaced_actors += 1
        self._actors[index] = self._create(index)
        self._started(index, lambda actor: actor.load_state.remote(self._state, self.version))

    def _started(self, index: int, ask: Callable[[Any], Any]) -> Any:
        """The first answer of a fresh actor. One whose machine is lost while it starts is made again elsewhere, until
        `start_timeout_s` is over.

        Raises:
            RunError: with the reason, such as what the actor's constructor raised.
        """
        deadline = time.monotonic() + self._resources.start_timeout_s
        lost = ""  # why the last one was, which says more than that the time is over
        while True:
            try:
                return self._answer(ask(self._actors[index]), max(0.0, deadline - time.monotonic()))
            except RayError as error:
                may_be_made_again = is_lost(error) and time.monotonic() <= deadline
                lost = _reason(error) if is_lost(error) else lost
                if not may_be_made_again:
                    raise RunError(f"a reward actor does not start: {lost or _reason(error)}") from error
                ray.kill(self._actors[index])
                self.num_replaced_actors += 1
                self._actors[index] = self._create(index)
                self._pause()

    def _pause(self) -> None:
        time.sleep(_TICK_S)
        self._check()

    def _answer(self, reference: Any, timeout_s: float) -> Any:
        """The answer of one call, watched until its deadline."""
        deadline = time.monotonic() + timeout_s
        while not ray.wait([reference], timeout=_TICK_S)[0]:
            self._check()
            if time.monotonic() > deadline:
                raise GetTimeoutError(f"no answer within {timeout_s:g} s")
        return ray.get(reference, timeout=_FETCH_TIMEOUT_S)

    def _submit_update(self) -> None:
        if self._pending is None:
            return
        generated, key, num_updates = self._pending
        self._reference = self._actors[0].update.remote(
            self.version, generated.samples, generated.labels, key, num_updates, generated.num_passes
        )

    def _submit_scores(self, indices: Iterable[int]) -> dict[Any, int]:
        """Calls of the actors for batches; the reference of each, and which batch it will score."""
        return {
            self._actors[index % len(self._actors)].score.remote(
                self.version, batch.samples, batch.labels, batch.num_passes
            ): index
            for index in indices
            for batch in [self._unscored[index]]
        }

    def _gather(self, flights: dict[Any, int], results: dict[int, Scores]) -> dict[int, str]:
        """Books what arrives in time into `results`; returns the actors that failed, with the reason."""
        failed: dict[int, str] = {}
        deadline = time.monotonic() + self._resources.reward_timeout_s
        open_flights = list(flights)
        while open_flights:
            ready, open_flights = ray.wait(open_flights, timeout=_TICK_S)
            if not ready:
                self._check()
                if time.monotonic() <= deadline:
                    continue
                late = {flights[reference] % len(self._actors) for reference in open_flights}
                return {**dict.fromkeys(late, "no answer in time"), **failed}
            for reference in ready:
                index = flights[reference]
                try:
                    results[index] = ray.get(reference, timeout=_FETCH_TIMEOUT_S)
                except RayError as error:
                    failed[index % len(self._actors)] = _reason(error, self._unscored[index])
        return failed

    def _give_up_after(self, retries: int, what: str, reason: str) -> None:
        if retries > self._resources.max_reward_retries:
            raise RunError(f"no {what} after {self._resources.max_reward_retries} retries on fresh actors: {reason}")


def _reason(error: RayError, batch: Finished | None = None) -> str:
    """What went wrong in an actor, with the images of `batch` whose scores are wrong."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, RewardError):
        return explain(error.cause, batch) if batch is not None else str(error.cause)
    return reason(error)
