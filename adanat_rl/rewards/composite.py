"""A weighted sum of several rewards: one service per part, so that each has its own actors and all score at once.

A part's scores may be standardised over the whole train batch before they are weighted; what it gave is kept under its
name among the further numbers of the scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from adanat_rl.config.errors import RunError
from adanat_rl.config.reward_settings import COMPOSITE
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.rewards.build import build_reward_parts, config_of_part
from adanat_rl.rewards.guard import Check, nothing
from adanat_rl.rewards.remote_service import start_reward_service
from adanat_rl.rewards.service import REPLACED_ACTORS, Finished, RewardService
from adanat_rl.rewards.worker import Scores

_EQUAL = 1e-6  # relative to the largest score: what differs less is rounding of float32


@dataclass(frozen=True)
class Part:
    """A part of the sum.

    Args:
        name: in further numbers and metrics. service: gives its scores, and trains it.
        weight: factor of its scores. normalize: whether they are standardised over the batch before.
    """

    name: str
    service: RewardService
    weight: float = 1.0
    normalize: bool = True


def reward_service(config: ExperimentConfig, check: Check = nothing) -> RewardService:
    """The reward of a configuration, in the driver or in its actors; of a composite each part has as many.

    Args:
        check: asked while something is waited for; what it raises ends the wait.

    Raises:
        RunError: actors do not start in time. UserError: a setting or a file is wrong.
    """
    if config.reward.kind != COMPOSITE:
        return start_reward_service(partial(build_reward_parts, config), config.resources, check=check)
    names = part_names(config.reward.kinds)
    with ExitStack() as started:
        parts = []
        for number, (name, part) in enumerate(zip(names, config.reward.parts, strict=True)):
            factory = partial(build_reward_parts, config_of_part(config, part))
            service = start_reward_service(factory, config.resources, number, check)
            started.callback(service.close)
            parts.append(Part(name, service, part.weight, part.normalize))
        started.pop_all()
    return CompositeRewardService(parts)


def part_names(kinds: Sequence[str]) -> list[str]:
    """A short name for each kind: its own, or its class's; with the module where two classes are called the same."""
    short = [kind.rpartition(":")[2] for kind in kinds]
    count = Counter(short)
    return [name if count[name] == 1 else kind.replace(":", ".") for name, kind in zip(short, kinds, strict=True)]


class CompositeRewardService:
    """Several rewards as one: `Σ weight · score`, where a normalised part's scores have mean 0 and sd 1 over a batch.

    The version is the sum of the versions of the parts, so it rises whenever a part was trained.

    Args:
        parts: with different names; they are closed along with this.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        if len({part.name for part in parts}) < len(parts):
            raise ValueError(f"parts {[part.name for part in parts]}: each name once")
        self._parts = list(parts)
        self._sizes: list[int] = []

    @property
    def version(self) -> int:
        """Sum of the parts'."""
        return sum(part.service.version for part in self._parts)

    @property
    def num_updates(self) -> int:
        """Most updates of a part in each iteration; the others get as many as they want."""
        return max(part.service.num_updates for part in self._parts)

    @property
    def num_warmup_updates(self) -> int:
        """Most updates of a part before the first policy update."""
        return max(part.service.num_warmup_updates for part in self._parts)

    @property
    def num_replaced_actors(self) -> int:
        """Over all parts."""
        return sum(part.service.num_replaced_actors for part in self._parts)

    def failure_counters(self) -> dict[str, int]:
        """Over all parts."""
        return {REPLACED_ACTORS: self.num_replaced_actors}

    def score(self, batches: Sequence[Finished]) -> list[Scores]:
        """Scores of each batch; parts are standardised over all of them together."""
        self.start_score(batches)
        return self.finish_score()

    def start_score(self, batches: Sequence[Finished]) -> None:
        """Sends the batches to all parts before any is waited for."""
        self._sizes = [len(batch.labels) for batch in batches]
        for part in self._parts:
            part.service.start_score(batches)

    def finish_score(self) -> list[Scores]:
        """Waits for all parts and adds them up.

        Raises:
            RunError: a part failed, or the sum is not finite.
        """
        version = self.version
        given = {part.name: part.service.finish_score() for part in self._parts}
        if not self._sizes:
            return []
        total = np.zeros(sum(self._sizes))
        for part in self._parts:
            scores = np.concatenate([one.scores for one in given[part.name]]).astype(np.float64)
            total += part.weight * (standardised(scores) if part.normalize else scores)
        with np.errstate(over="ignore"):
            rewards = total.astype(np.float32)
        bad = int((~np.isfinite(rewards)).sum())
        if bad:
            raise RunError(f"reward composite: the weighted sum of {bad} of {len(rewards)} images is not finite")
        pieces = np.split(rewards, np.cumsum(self._sizes)[:-1])
        return [
            Scores(piece, {name: value for part in given for name, value in _info(part, given[part][index])}, version)
            for index, piece in enumerate(pieces)
        ]

    def start_update(self, generated: Finished, key: tuple[int, ...], num_updates: int) -> None:
        """Begins to train the parts that are trained; each takes the steps that it wants, at most `num_updates`.

        The first update of all warms up, where a part wishes it.
        """
        warms_up = self.version == 0 and self.num_warmup_updates > 0
        for part in self._parts:
            service = part.service
            steps = min(num_updates, service.num_warmup_updates if warms_up else service.num_updates)
            if steps:
                service.start_update(generated, key, steps)

    def finish_update(self) -> dict[str, float]:
        """Waits for all of them; metrics carry the name of their part in front."""
        return {
            f"{part.name}_{metric}": value
            for part in self._parts
            for metric, value in part.service.finish_update().items()
        }

    def state(self) -> dict[str, Tensor]:
        """`NAME/state/…` and `NAME/version` of each part."""
        state = {}
        for part in self._parts:
            state[f"{part.name}/version"] = torch.tensor(part.service.version)
            state |= {f"{part.name}/state/{key}": value for key, value in part.service.state().items()}
        return state

    def load_state(self, state: Mapping[str, Tensor], version: int) -> None:
        """Takes over a state; each part gets its own version back.

        Raises:
            RunError: it is the state of other parts.
        """
        wanted = {f"{part.name}/version" for part in self._parts}
        if not wanted <= state.keys() or sum(int(state[name]) for name in wanted) != version:
            found = sorted(name for name in state if name.endswith("/version"))
            raise RunError(f"reward composite: the state holds {found}, expected {sorted(wanted)}")
        for part in self._parts:
            prefix = f"{part.name}/state/"
            own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            part.service.load_state(own, int(state[f"{part.name}/version"]))

    def close(self) -> None:
        """Ends the actors of all parts."""
        with ExitStack() as closing:
            for part in self._parts:
                closing.callback(part.service.close)


def standardised(scores: np.ndarray) -> np.ndarray:
    """Scores `[N]` float64 minus their mean, over their unbiased sd; zeros where they differ by rounding alone."""
    if len(scores) < 2 or np.ptp(scores) <= _EQUAL * np.abs(scores).max():
        return np.zeros_like(scores)
    centred = scores - scores.mean()
    result: np.ndarray = centred / centred.std(ddof=1)
    return result


def _info(name: str, scores: Scores) -> Iterator[tuple[str, np.ndarray]]:
    """The raw scores of a part and its further numbers, by the names they have in the rollout table."""
    yield name, scores.scores
    for key, values in scores.info.items():
        yield key if key.startswith(f"{name}_") else f"{name}_{key}", values
