"""Who may be called the winner of a sweep: arms compared over the seeds that all of them finished, or why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from adanat_rl.evaluation.rewarded import rewarded_judges
from adanat_rl.evaluation.verdicts import Contest, contest
from adanat_rl.plots.ablation.data import Sweep

STOPPED = "stopped"


@dataclass(frozen=True)
class ArmsContest:
    """A contest, or what stands against it.

    Args:
        found: None where nothing can be said. seeds: that all arms of it finished, in order.
        missing: seeds of an arm that it did not finish, though others did.
        num_stopped: trials that the scheduler ended by their numbers: what is left is then no fair sample.
        paid: arms that are paid in the deciding metric, which therefore cannot judge them; they take no part.
    """

    found: Contest | None
    seeds: tuple[int, ...]
    missing: Mapping[str, tuple[int, ...]]
    num_stopped: int
    paid: tuple[str, ...]


def arms_contest(sweep: Sweep) -> ArmsContest:
    """Compares the arms of a sweep by its metric; with continuous parameters no two trials are alike, so nothing."""
    paid = tuple(arm for arm in sweep.arms if sweep.metric in _rewarded(sweep, arm))
    arms = [arm for arm in sweep.arms if arm not in paid and any(trial.arm == arm for trial in sweep.trials)]
    numbers = {arm: _by_seed(sweep, arm) for arm in arms}
    numbers = {arm: found for arm, found in numbers.items() if found}
    common = set.intersection(*(set(found) for found in numbers.values())) if numbers else set()
    seeds = tuple(sorted(common))
    wanted = sorted({trial.seed for trial in sweep.trials if trial.arm in numbers})
    missing = {arm: tuple(seed for seed in wanted if seed not in found) for arm, found in numbers.items()}
    num_stopped = sum(trial.status == STOPPED for trial in sweep.trials)
    values = {arm: np.array([found[seed] for seed in seeds]) for arm, found in numbers.items()}
    is_possible = not sweep.continuous and not num_stopped and len(values) > 1 and len(seeds) > 1
    return ArmsContest(
        found=contest(values, minimises=sweep.minimises, margin=sweep.margin) if is_possible else None,
        seeds=seeds,
        missing={arm: gone for arm, gone in missing.items() if gone},
        num_stopped=num_stopped,
        paid=paid,
    )


def _by_seed(sweep: Sweep, arm: str) -> dict[int, float]:
    """The metric of an arm by seed; the mean where settings beside the arm give it several trials of one seed."""
    found: dict[int, list[float]] = {}
    for trial in sweep.of(arm):
        if sweep.metric in trial.final:
            found.setdefault(trial.seed, []).append(trial.final[sweep.metric])
    return {seed: float(np.mean(values)) for seed, values in found.items()}


def _rewarded(sweep: Sweep, arm: str) -> frozenset[str]:
    """Numbers that some trial of an arm is paid in."""
    runs = [trial.run for trial in sweep.trials if trial.arm == arm and trial.run is not None]
    return frozenset().union(*(rewarded_judges(run.config) for run in runs))
