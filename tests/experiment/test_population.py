"""What a trial of a population gets when it takes over: its own number, and values within the ranges of the sweep."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from adanat_rl.config.sweep_settings import validate_sweep
from adanat_rl.experiment.sweep.population import Population
from adanat_rl.experiment.sweep.searchers import TRIAL

RANGES = {
    "ppo.lr": {"log_uniform": [1e-4, 1e-3]},
    "ppo.clip": {"uniform": [0.1, 0.4]},
    "ppo.num_epochs": {"integer": [1, 8]},
    "ppo.minibatch_size": {"choice": [128, 256]},
}


def takeovers(best: dict[str, Any], resample_probability: float) -> list[dict[str, Any]]:
    scheduler = {"kind": "pbt", "resample_probability": resample_probability}
    sweep = validate_sweep({"parameters": RANGES, "search": {"method": "random"}, "scheduler": scheduler})
    population = Population(sweep)
    worst = SimpleNamespace(config={**best, TRIAL: 3})
    return [population._get_new_config(worst, SimpleNamespace(config={**best, TRIAL: 1}))[0] for _ in range(200)]


@pytest.mark.parametrize("end", [0, 1], ids=["from_the_low_ends", "from_the_high_ends"])
def test_it_keeps_its_number_and_no_value_leaves_its_range(end: int) -> None:
    best = {key: next(iter(kind.values()))[end] for key, kind in RANGES.items()}
    found = [*takeovers(best, resample_probability=0), *takeovers(best, resample_probability=1)]
    assert {config[TRIAL] for config in found} == {3}
    for key, kind in RANGES.items():
        low, high = next(iter(kind.values()))
        values = {config[key] for config in found}
        assert all(low <= value <= high for value in values), (key, values)
        assert len(values) > 1, f"{key} never changes"
    assert all(isinstance(config["ppo.num_epochs"], int) for config in found)
