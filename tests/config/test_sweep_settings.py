"""Sweep files: what they mean, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from adanat_rl.config.errors import UserError
from adanat_rl.config.sweep_settings import SweepConfig, load_sweep, trial_config, validate_sweep

CHANGED = {"ppo.lr": {"uniform": [0.1, 0.2]}}
POPULATION = {"parameters": CHANGED, "search": {"method": "random"}, "scheduler": {"kind": "pbt"}}


def refused(content: dict) -> str:
    with pytest.raises(UserError) as caught:
        validate_sweep(content)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_gives_its_name_to_the_sweep_and_a_count_means_as_many_seeds(tmp_path: Path) -> None:
    file = tmp_path / "rates.yaml"
    file.write_text("parameters: {ppo.lr: {grid: [1e-4, 3e-4]}}\nseeds: 3\n")
    sweep = load_sweep(file)
    assert sweep.name == "rates"
    assert sweep.seeds == (0, 1, 2)
    assert sweep.parameters["ppo.lr"].values == (1e-4, 3e-4)  # YAML takes 1e-4 for a word


def test_a_settings_file_lies_beside_the_sweep_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("ppo: {lr: 0.5}\n")
    (tmp_path / "sweep.yaml").write_text("config: base.yaml\nsettings: {ppo.clip: 0.3}\n")
    sweep = load_sweep(tmp_path / "sweep.yaml")
    config = trial_config(sweep, {}, seed=4)
    assert (config.ppo.lr, config.ppo.clip, config.seed) == (0.5, 0.3, 4)


def test_settings_of_a_trial_win_over_the_sweep_and_overrides_over_both() -> None:
    sweep = validate_sweep({"settings": {"ppo.lr": 0.1, "ppo.clip": 0.1, "ppo.num_epochs": 1}})
    config = trial_config(sweep, {"ppo.clip": 0.2, "ppo.num_epochs": 2}, 0, ["ppo.num_epochs=3"])
    assert (config.ppo.lr, config.ppo.clip, config.ppo.num_epochs) == (0.1, 0.2, 3)


def test_a_dumped_sweep_is_the_same_sweep() -> None:
    sweep = validate_sweep({"parameters": {"ppo.lr": {"log_uniform": [1e-5, 1e-2]}}, "search": {"method": "tpe"}})
    content = yaml.safe_load(yaml.safe_dump(sweep.model_dump(mode="json")))
    assert SweepConfig.model_validate(content) == sweep


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"parameters": {"ppo.lrr": {"grid": [1]}}}, ["ppo.lrr", "did you mean 'ppo.lr'"]),
        ({"arms": {"a": {"reward.knd": "fid"}}}, ["arms.a", "reward.knd", "reward.kind"]),
        ({"parameters": {"seed": {"grid": [1]}}}, ["seed", "use `seeds`"]),
        ({"parameters": {"ppo.lr": {"grid": []}}}, ["parameters.ppo.lr", "at least one value"]),
        ({"parameters": {"ppo.lr": {"grid": [1], "choice": [2]}}}, ["exactly one of", "grid, choice"]),
        ({"parameters": {"ppo.lr": {"uniform": [2, 1]}}, "search": {"method": "random"}}, ["uniform", "less than"]),
        ({"parameters": {"ppo.lr": {"log_uniform": [0, 1]}}, "search": {"method": "tpe"}}, ["positive"]),
        ({"parameters": {"ppo.lr": {"uniform": [0, 1]}}}, ["search.method", "grid", "ppo.lr"]),
        ({"search": {"method": "random"}}, ["nothing to choose"]),
        ({"parameters": {"ppo.lr": {"uniform": [0, 1]}}, "search": {"method": "tpe"}, "seeds": 2}, ["one seed"]),
        ({"parameters": {"ppo.leash": {"choice": ["kl", "l2"]}}, "search": {"method": "cmaes"}}, ["cmaes", "tpe"]),
        ({"scheduler": {"kind": "pbt"}}, ["pbt needs parameters"]),
        ({**POPULATION, "arms": {"a": {}, "b": {}}}, ["pbt cannot go on from a trial of another arm"]),
        ({**POPULATION, "parameters": {**CHANGED, "ppo.clip": {"grid": [0.1]}}}, ["another arm or grid"]),
        ({**POPULATION, "resources": {"max_concurrent": 1}}, ["resources.max_concurrent", "leave it out"]),
        ({"seeds": [1, 1]}, ["seeds", "different"]),
        ({"seeds": []}, ["seeds"]),
        ({"metrik": "fd_a"}, ["metrik", "did you mean 'metric'"]),
        ({"metric": "fid"}, ["metric", "fd_a"]),
    ],
)
def test_what_is_wrong_is_named(content: dict, words: list[str]) -> None:
    message = refused(content)
    for word in words:
        assert word in message, message


def test_recall_is_to_be_large_and_distances_small_unless_said_otherwise() -> None:
    assert validate_sweep({"metric": "fd_b"}).minimises
    assert not validate_sweep({"metric": "recall"}).minimises
    assert validate_sweep({"metric": "recall", "direction": "min"}).minimises
