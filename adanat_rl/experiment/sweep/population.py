"""A population for Tune: its trials in Tune's words, and the scheduler that lets the worse go on from the better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ray import tune
from ray.tune.schedulers import PopulationBasedTraining

from adanat_rl.config.metric_keys import ITERATION
from adanat_rl.config.sweep_settings import Parameter, SweepConfig
from adanat_rl.experiment.sweep.plan import TrialSpec
from adanat_rl.experiment.sweep.searchers import TRIAL


class Population(PopulationBasedTraining):
    """Tune's scheduler, with two differences: a trial that takes over keeps its own number, and so its own run folder,
    and no parameter leaves its range.

    Args:
        sweep: with `scheduler.kind: pbt`.
    """

    def __init__(self, sweep: SweepConfig) -> None:
        settings = sweep.scheduler
        super().__init__(
            time_attr=ITERATION,
            metric=sweep.metric,
            mode="min" if sweep.minimises else "max",
            perturbation_interval=settings.grace_iterations,
            quantile_fraction=settings.quantile,
            resample_probability=settings.resample_probability,
            hyperparam_mutations={key: _mutation(parameter) for key, parameter in sweep.parameters.items()},
            custom_explore_fn=partial(_keep_in_range, sweep.parameters),
            log_config=False,
        )

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        config, operations = super()._get_new_config(trial, trial_to_clone)
        return {**config, TRIAL: trial.config[TRIAL]}, operations


def population_space(sweep: SweepConfig, specs: Sequence[TrialSpec]) -> dict[str, Any]:
    """The given trials: their numbers, and the parameters of each."""
    settings = {spec.number: dict(spec.settings) for spec in specs}
    space: dict[str, Any] = {TRIAL: tune.grid_search(list(settings))}
    for key in sweep.parameters:
        space[key] = tune.sample_from(partial(_setting_of, settings, key))
    return space


def _setting_of(settings: Mapping[int, Mapping[str, Any]], key: str, trial: Any) -> Any:
    return settings[trial["config"][TRIAL]][key]


def _mutation(parameter: Parameter) -> Any:
    if parameter.kind == "choice":
        return list(parameter.values)
    low, high = parameter.values
    if parameter.kind == "integer":
        return tune.randint(low, high + 1)
    return tune.loguniform(low, high) if parameter.kind == "log_uniform" else tune.uniform(low, high)


def _keep_in_range(parameters: Mapping[str, Parameter], config: dict[str, Any]) -> dict[str, Any]:
    """A change by a factor may step over the ends of a range."""
    for key, parameter in parameters.items():
        if parameter.kind != "choice":
            low, high = parameter.values
            config[key] = min(max(config[key], low), high)
    return config
