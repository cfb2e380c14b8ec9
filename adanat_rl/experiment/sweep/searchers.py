"""What Tune asks for the next trial: the planned ones in order, or those that Optuna proposes.

A start that goes on after another proposes first, under the same numbers, what the one before had proposed: nothing of
Tune's own state has to survive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.search import Searcher

from adanat_rl.config.sweep_settings import Parameter, SweepConfig
from adanat_rl.experiment.sweep.plan import ALL, TrialSpec
from adanat_rl.generation.seeding import Purpose, derive_seed

TRIAL = "trial"  # key of a trial's number in what Tune hands it


class PlannedTrials(Searcher):
    """The given trials, one after another.

    Args:
        specs: what is left to do. begin: told about each before it starts.
    """

    def __init__(self, specs: Sequence[TrialSpec], begin: Callable[[TrialSpec], None]) -> None:
        super().__init__()
        self._left = list(specs)
        self._begin = begin

    def suggest(self, trial_id: str) -> Any:
        """The next one."""
        if not self._left:
            return Searcher.FINISHED
        spec = self._left.pop(0)
        self._begin(spec)
        return {TRIAL: spec.number, **spec.settings}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing depends on it."""


class OptunaTrials(Searcher):
    """Trials that Optuna's sampler proposes.

    Args:
        sweep: names parameters, sampler and number of trials; of one arm and one seed.
        known: trials of earlier starts, by number. begin: told about each before it starts.
        result_key: of the number in Tune's results that is to be small or large.
    """

    def __init__(
        self, sweep: SweepConfig, known: Sequence[TrialSpec], begin: Callable[[TrialSpec], None], result_key: str
    ) -> None:
        import optuna  # for these sweeps alone

        super().__init__(metric=result_key, mode="min" if sweep.minimises else "max")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._sweep = sweep
        self._known = list(known)
        self._begin = begin
        self._distributions = {key: _distribution(parameter) for key, parameter in sweep.parameters.items()}
        seed = derive_seed(Purpose.SWEEP, sweep.search.seed, len(known))
        method = sweep.search.method
        sampler = optuna.samplers.TPESampler(seed=seed) if method == "tpe" else optuna.samplers.CmaEsSampler(seed=seed)
        self._study = optuna.create_study(direction="minimize" if sweep.minimises else "maximize", sampler=sampler)
        self._trials: dict[str, Any] = {}
        self._number = 0

    def suggest(self, trial_id: str) -> Any:
        """What was proposed before, or what the sampler proposes now."""
        if self._number >= self._sweep.search.num_samples:
            return Searcher.FINISHED
        if self._number < len(self._known):
            settings = self._known[self._number].settings
            self._study.enqueue_trial({key: settings[key] for key in self._distributions})
        trial = self._study.ask(self._distributions)
        self._trials[trial_id] = trial
        arm, shared = next(iter(self._sweep.arms.items()), (ALL, {}))
        spec = TrialSpec(self._number, arm, self._sweep.seeds[0], {**shared, **trial.params})
        if self._number < len(self._known):
            spec = self._known[self._number]
        self._number += 1
        self._begin(spec)
        return {TRIAL: spec.number, **spec.settings}

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tells the sampler what came out."""
        from optuna.trial import TrialState

        trial = self._trials.pop(trial_id, None)
        if trial is None:
            return
        if error or not result or self.metric not in result:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, float(result[self.metric]))


def _distribution(parameter: Parameter) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.kind == "choice":
        return CategoricalDistribution(parameter.values)
    low, high = parameter.values
    if parameter.kind == "integer":
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log=parameter.kind == "log_uniform")
