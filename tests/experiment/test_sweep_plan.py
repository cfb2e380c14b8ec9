"""Trials of a sweep before anything runs: which there are, their names, their folder's books, what they take."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import resolve
from adanat_rl.config.sweep_settings import SweepConfig, load_sweep, validate_sweep
from adanat_rl.experiment.sweep.folder import FAILED, FINISHED, INTERRUPTED, PENDING, RUNNING, SweepFolder
from adanat_rl.experiment.sweep.outline import describe_sweep
from adanat_rl.experiment.sweep.plan import plan_trials
from adanat_rl.experiment.sweep.resources import check_room, total, trial_bundles

FILES = sorted((Path(__file__).parents[2] / "tune_configs").glob("*.yaml"))
TWO_BY_TWO = {
    "arms": {"critic": {"ppo.advantage": "critic"}, "group": {"ppo.advantage": "group_relative"}},
    "parameters": {"ppo.lr": {"grid": [1e-4, 3e-4]}},
    "seeds": 2,
}


def sweep_of(**content: object) -> SweepConfig:
    return validate_sweep({"name": "try", **content})


def test_every_arm_meets_every_value_with_every_seed_and_all_of_one_seed_come_first() -> None:
    specs = plan_trials(sweep_of(**TWO_BY_TWO))
    found = [(spec.seed, spec.settings["ppo.advantage"], spec.settings["ppo.lr"]) for spec in specs]
    assert found == list(itertools.product((0, 1), ("critic", "group_relative"), (1e-4, 3e-4)))
    assert [spec.number for spec in specs] == list(range(8))
    assert len({spec.name for spec in specs}) == 8
    assert specs[0].arm == "critic, lr=0.0001"
    assert len({spec.arm for spec in specs}) == 4


def test_more_seeds_leave_the_trials_before_as_they_were() -> None:
    assert plan_trials(sweep_of(**{**TWO_BY_TWO, "seeds": 3}))[:8] == plan_trials(sweep_of(**TWO_BY_TWO))


def test_draws_depend_on_the_seed_and_number_alone_and_lie_within_their_bounds() -> None:
    parameters = {
        "ppo.lr": {"log_uniform": [1e-5, 1e-1]},
        "ppo.clip": {"uniform": [0.1, 0.2]},
        "ppo.num_epochs": {"integer": [1, 3]},
        "ppo.leash": {"choice": ["kl", "l2"]},
    }
    few, many, other = (
        plan_trials(sweep_of(parameters=parameters, search={"method": "random", "num_samples": count, "seed": seed}))
        for count, seed in ((5, 0), (200, 0), (5, 1))
    )
    assert [spec.settings for spec in few] == [spec.settings for spec in many[:5]]
    assert few[0].settings != other[0].settings
    rates = [spec.settings["ppo.lr"] for spec in many]
    assert min(rates) >= 1e-5
    assert max(rates) <= 1e-1
    assert 60 < sum(rate < 1e-3 for rate in rates) < 140  # half of the draws, for it is the logarithm that is uniform
    assert all(0.1 <= spec.settings["ppo.clip"] <= 0.2 for spec in many)
    assert {spec.settings["ppo.num_epochs"] for spec in many} == {1, 2, 3}
    assert {spec.settings["ppo.leash"] for spec in many} == {"kl", "l2"}


def test_names_are_good_for_folders_and_for_the_run() -> None:
    learned = {"decisions.learned": {"grid": [["mask_ratio", "guidance_scale"], ["mask_ratio"]]}}
    specs = plan_trials(sweep_of(parameters=learned))
    assert [spec.name for spec in specs] == [
        "000-learned-mask_ratio-guidance_scale-seed0",
        "001-learned-mask_ratio-seed0",
    ]
    config = specs[0].config(sweep_of(parameters=learned), ())
    assert config.name == "try-000-learned-mask_ratio-guidance_scale-seed0"
    assert config.decisions.learned == ("mask_ratio", "guidance_scale")


def test_the_books_tell_what_each_trial_has_come_to(tmp_path: Path) -> None:
    sweep = sweep_of(**TWO_BY_TWO)
    specs = plan_trials(sweep)
    folder = SweepFolder(tmp_path / "sweep")
    folder.prepare(sweep, [])
    folder.write_trial(specs[0], FINISHED)
    folder.write_trial(specs[1], RUNNING)
    folder.write_trial(specs[2], FAILED, "ValueError: no")
    going_on = {state.spec.number: state.status for state in folder.write_trials(sweep, specs, is_over=False)}
    assert going_on == {0: FINISHED, 1: RUNNING, 2: FAILED, **dict.fromkeys(range(3, 8), PENDING)}
    over = folder.write_trials(sweep, specs, is_over=True)
    assert over[1].status == INTERRUPTED
    assert over[2].reason == "ValueError: no"
    assert [state.is_done for state in over] == [True] + 7 * [False]
    assert folder.noted_trials() == specs[:3]
    folder.release()


def test_a_folder_is_of_one_sweep_and_one_process_but_takes_more_seeds(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    folder.prepare(sweep_of(**TWO_BY_TWO), ["ppo.clip=0.3"])
    with pytest.raises(UserError, match="in use by process"):
        SweepFolder(folder.path).prepare(sweep_of(**TWO_BY_TWO), ["ppo.clip=0.3"])
    folder.release()
    for sweep, overrides, word in (
        (sweep_of(**{**TWO_BY_TWO, "metric": "fd_b"}), ["ppo.clip=0.3"], "metric"),
        (sweep_of(**TWO_BY_TWO), [], "overrides"),
        (sweep_of(**{**TWO_BY_TWO, "seeds": [1, 0]}), ["ppo.clip=0.3"], "seeds"),
    ):
        with pytest.raises(UserError, match=word):
            SweepFolder(folder.path).prepare(sweep, overrides)
    folder.prepare(sweep_of(**{**TWO_BY_TWO, "seeds": 4}), ["ppo.clip=0.3"])
    assert folder.saved()[0].seeds == (0, 1, 2, 3)
    folder.release()


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="no sweep"):
        SweepFolder(tmp_path).prepare(sweep_of(), [])


def test_a_trial_takes_its_driver_and_all_its_workers() -> None:
    overrides = ["resources.num_env_runners=3", "resources.num_reward_actors=2", "resources.num_learners=1"]
    overrides += ["resources.num_gpus_per_env_runner=0.5", "resources.num_gpus_per_learner=1"]
    sweep = sweep_of(resources={"cpus_per_trial": 2})
    bundles = trial_bundles(sweep, resolve(overrides=overrides))
    assert bundles[0] == {"CPU": 2}
    assert len(bundles) == 7
    assert bundles[1:4] == 3 * [{"CPU": 0.4, "GPU": 0.5}], "where RLlib pins its env runners to"
    assert bundles[4:6] == 2 * [{"CPU": 0.2}], "where reward actors are pinned to"
    assert total(bundles) == {"CPU": pytest.approx(2 + 3 * 0.4 + 2 * 0.2 + 1), "GPU": pytest.approx(2.5)}
    assert check_room(bundles, {"CPU": 16, "GPU": 8}, "there") == 3
    with pytest.raises(UserError, match="there has 4 CPUs, 8 GPUs"):
        check_room(bundles, {"CPU": 4, "GPU": 8}, "there")


def test_each_part_of_a_composite_reward_has_actors_of_its_own() -> None:
    parts = "reward.parts=[{kind: adversarial}, {kind: nat_pass_cost}]"
    config = resolve(overrides=["reward.kind=composite", parts, "resources.num_reward_actors=1"])
    assert len(trial_bundles(sweep_of(), config)) == 1 + 2 + 2


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_sweep_that_ships_says_what_it_would_do(file: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # no weights of others lie here
    sweep = load_sweep(file)
    text = describe_sweep(sweep, tmp_path / "sweep", ())
    count = len(plan_trials(sweep)) or sweep.search.num_samples
    assert f"{count} trials" in text
    assert sweep.title in text
    assert ("missing files:" in text) == ("imagenet" in file.stem or "cc3m" in file.stem)
    assert not (tmp_path / "sweep").exists()


def test_the_sweeps_that_are_promised_ship() -> None:
    promised = "reward_ablation credit advantage horizon ppo_search discriminator population decisions compute"
    full_scale = "imagenet256_rewards cc3m_rewards"
    assert {file.stem for file in FILES} == {*promised.split(), *full_scale.split()}
