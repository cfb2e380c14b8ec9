"""What `sweep --dry-run` says: the trials, what each takes, and how many run at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adanat_rl.config.errors import UserError
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.config.sweep_settings import SweepConfig
from adanat_rl.experiment.build import complete_known_inputs
from adanat_rl.experiment.cluster import is_private, this_machine
from adanat_rl.experiment.inputs import missing_inputs
from adanat_rl.experiment.sweep.plan import TrialSpec, plan_trials
from adanat_rl.experiment.sweep.resources import check_room, total, trial_bundles
from adanat_rl.experiment.sweep.run import check_trials


def describe_sweep(sweep: SweepConfig, folder: Path, overrides: tuple[str, ...]) -> str:
    """The text.

    Raises:
        UserError: something that would keep the sweep from running.
    """
    configs = check_trials(sweep, overrides, complete_known_inputs)
    specs = plan_trials(sweep)
    lines = [f"sweep {sweep.name}: {sweep.title}" if sweep.title else f"sweep {sweep.name}"]
    lines += [f"folder: {folder}{' (exists: goes on)' if (folder / 'sweep.yaml').exists() else ''}"]
    lines += _trials(specs) if specs else _proposed(sweep)
    lines += _missing(configs)
    lines.append(f"each: {_each(configs[0])}")
    lines.append(f"decides: {sweep.metric}, {'least' if sweep.minimises else 'most'} is best; {_scheduler(sweep)}")
    return "\n".join([*lines, _room(sweep, configs)])


def _trials(specs: list[TrialSpec]) -> list[str]:
    width = max(len(spec.name) for spec in specs)
    rows = [f"  {spec.name:<{width}}  {shown_settings(spec.settings)}".rstrip() for spec in specs]
    return [f"{len(specs)} trials:", *rows]


def _proposed(sweep: SweepConfig) -> list[str]:
    search = sweep.search
    rows = [f"  {key}: {parameter.kind} {list(parameter.values)}" for key, parameter in sweep.parameters.items()]
    return [f"{search.num_samples} trials, proposed by Optuna ({search.method}, seed {search.seed}):", *rows]


def shown_settings(settings: Mapping[str, Any]) -> str:
    """Settings on one line."""
    return " ".join(f"{key}={_shown(value)}" for key, value in settings.items())


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"[{','.join(map(_shown, value))}]" if isinstance(value, list | tuple) else str(value)


def _missing(configs: list[ExperimentConfig]) -> list[str]:
    """Files that are not there."""
    found = {one.setting: one for config in configs for one in missing_inputs(config)}
    lines = [f"  {key}: {one.path}{one.about}" for key, one in found.items()]
    return ["missing files:", *lines] if lines else []


def _each(config: ExperimentConfig) -> str:
    training = config.training
    images = training.num_iterations * training.trajectories_per_iteration
    return f"{training.num_iterations:,} iterations, {images:,} images in {config.generator.horizon} steps"


def _scheduler(sweep: SweepConfig) -> str:
    scheduler = sweep.scheduler
    if scheduler.kind == "asha":
        return (
            f"asha: from iteration {scheduler.grace_iterations} on, one in {scheduler.reduction_factor:g} goes on at "
            "each rung"
        )
    if scheduler.kind == "pbt":
        return f"pbt: every {scheduler.grace_iterations} iterations the worst {scheduler.quantile:.0%} take over"
    return "every trial runs to its end"


def _room(sweep: SweepConfig, configs: list[ExperimentConfig]) -> str:
    bundles = trial_bundles(sweep, configs[0])
    needed = ", ".join(f"{amount:g} {unit}s" for unit, amount in total(bundles).items() if amount)
    text = f"a trial takes {needed} in {len(bundles)} bundle{'s' if len(bundles) > 1 else ''} of one placement group"
    if not is_private(configs[0].resources):
        return f"{text}; the cluster at {configs[0].resources.ray_address} says how many run at once"
    try:
        room = min(check_room(trial_bundles(sweep, config), this_machine(), "this machine") for config in configs)
    except UserError as error:
        return f"{text}; {error}"
    return f"{text}; {min(room, sweep.resources.max_concurrent or room)} at once on this machine"
