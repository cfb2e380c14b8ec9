"""What Tune is told to try next: planned trials in order, or proposals that survive a restart under their numbers."""

from __future__ import annotations

import numpy as np
import pytest
from ray.tune.search import Searcher

from adanat_rl.config.sweep_settings import SweepConfig, validate_sweep
from adanat_rl.experiment.sweep.plan import TrialSpec, plan_trials
from adanat_rl.experiment.sweep.searchers import TRIAL, OptunaTrials, PlannedTrials

BEST = np.array([0.25, 0.75])


def sweep_of(method: str, num_samples: int, **more: object) -> SweepConfig:
    parameters = {"ppo.clip": {"uniform": [0.01, 1.0]}, "exploration.std": {"uniform": [0.01, 1.0]}}
    search = {"method": method, "num_samples": num_samples}
    return validate_sweep({"name": "try", "parameters": parameters, "search": search, **more})


def distance(settings: dict) -> float:
    return float(((np.array([settings["ppo.clip"], settings["exploration.std"]]) - BEST) ** 2).sum())


def drive(sweep: SweepConfig, known: list[TrialSpec]) -> list[TrialSpec]:
    """Asks for all trials, one after another, and tells the distance to a planted optimum."""
    begun: list[TrialSpec] = []
    searcher = OptunaTrials(sweep, known, begun.append, "fd_a")
    number = 0
    while (proposed := searcher.suggest(str(number))) != Searcher.FINISHED:
        assert proposed[TRIAL] == number == begun[-1].number
        assert {key: value for key, value in proposed.items() if key != TRIAL} == begun[-1].settings
        searcher.on_trial_complete(str(number), {"fd_a": distance(begun[-1].settings)})
        number += 1
    return begun


def test_planned_trials_come_in_order_and_then_no_more() -> None:
    specs = plan_trials(validate_sweep({"parameters": {"ppo.lr": {"grid": [0.1, 0.2]}}, "seeds": 2}))
    begun: list[TrialSpec] = []
    searcher = PlannedTrials(specs[1:], begun.append)
    proposed = [searcher.suggest("a"), searcher.suggest("b"), searcher.suggest("c")]
    assert proposed == [{TRIAL: spec.number, "ppo.lr": spec.settings["ppo.lr"]} for spec in specs[1:]]
    assert searcher.suggest("d") == Searcher.FINISHED
    assert begun == specs[1:]


@pytest.mark.parametrize("method", ["tpe", "cmaes"])
def test_optuna_learns_from_what_it_is_told(method: str) -> None:
    found = [distance(dict(spec.settings)) for spec in drive(sweep_of(method, 40), [])]
    assert len(found) == 40
    assert np.mean(found[-10:]) < np.mean(found[:10]) / 2
    assert min(found) < 0.01


def test_a_restart_proposes_first_what_was_proposed_before() -> None:
    before = drive(sweep_of("tpe", 15), [])
    after = drive(sweep_of("tpe", 25), before[:12])
    assert after[:12] == before[:12]
    assert len(after) == 25
    assert len({tuple(spec.settings.values()) for spec in after}) == 25


def test_a_trial_that_failed_counts_for_nothing() -> None:
    searcher = OptunaTrials(sweep_of("tpe", 3), [], lambda spec: None, "fd_a")
    searcher.suggest("a")
    searcher.on_trial_complete("a", error=True)
    searcher.suggest("b")
    searcher.on_trial_complete("b", {"fd_a": 0.5})
    searcher.suggest("c")
    searcher.on_trial_complete("c", None)
    states = [trial.state.name for trial in searcher._study.trials]
    assert states == ["FAIL", "COMPLETE", "FAIL"]


def test_the_one_arm_of_such_a_sweep_gives_its_settings() -> None:
    (spec,) = drive(sweep_of("tpe", 1, arms={"classifier": {"reward.kind": "classifier"}}, seeds=[3]), [])
    assert spec.arm == "classifier"
    assert spec.seed == 3
    assert spec.settings["reward.kind"] == "classifier"
    assert spec.config(sweep_of("tpe", 1), ()).reward.kind == "classifier"
