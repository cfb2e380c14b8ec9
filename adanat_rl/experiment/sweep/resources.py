"""What a trial takes of a cluster: one bundle for its driver and one for each worker, all in one placement group."""

from __future__ import annotations

from typing import Any

from adanat_rl.config.errors import UserError
from adanat_rl.config.schema import ExperimentConfig, ResourcesConfig
from adanat_rl.config.sweep_settings import SweepConfig

Bundle = dict[str, float]


def trial_bundles(sweep: SweepConfig, config: ExperimentConfig) -> list[Bundle]:
    """The driver's bundle, then those of env runners (RLlib pins runner k to bundle k), reward actors (pinned behind
    them by `remote_service`) and learner, which takes the one that is left.

    What works in the driver's process shares its GPU.
    """
    resources = config.resources
    num_rewards = resources.num_reward_actors * len(config.reward.kinds)
    bundles = [_bundle(sweep.resources.cpus_per_trial, _driver_gpus(resources))]
    for count, cpus, gpus in (
        (resources.num_env_runners, resources.num_cpus_per_env_runner, resources.num_gpus_per_env_runner),
        (num_rewards, resources.num_cpus_per_reward_actor, resources.num_gpus_per_reward_actor),
        (resources.num_learners, resources.num_cpus_per_learner, resources.num_gpus_per_learner),
    ):
        bundles += [_bundle(cpus, gpus)] * count
    return bundles


def total(bundles: list[Bundle]) -> Bundle:
    """The sum of bundles."""
    return {unit: sum(bundle.get(unit, 0.0) for bundle in bundles) for unit in ("CPU", "GPU")}


def check_room(bundles: list[Bundle], available: dict[str, Any], where: str) -> int:
    """How many trials run at once.

    Raises:
        UserError: not even one has room.
    """
    needed = total(bundles)
    counts = [int(available.get(unit, 0.0) / amount + 1e-9) for unit, amount in needed.items() if amount]
    if min(counts) < 1:
        want = ", ".join(f"{amount:g} {unit}s" for unit, amount in needed.items() if amount)
        have = ", ".join(f"{available.get(unit, 0.0):g} {unit}s" for unit in needed)
        raise UserError(
            f"resources: a trial takes {want}, but {where} has {have}; lower resources.cpus_per_trial of the sweep, "
            "or its workers: resources.num_env_runners, resources.num_reward_actors"
        )
    return min(counts)


def _bundle(cpus: float, gpus: float) -> Bundle:
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


def _driver_gpus(resources: ResourcesConfig) -> float:
    shares = [resources.num_gpus_per_driver]
    if resources.num_learners == 0:
        shares.append(resources.num_gpus_per_learner)
    if resources.num_env_runners == 0:
        shares.append(resources.num_gpus_per_env_runner)
    if resources.num_reward_actors == 0:
        shares.append(resources.num_gpus_per_reward_actor)
    return max(shares)
