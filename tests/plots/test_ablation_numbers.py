"""Numbers of an ablation report: summary, means, verdict, importance and sentences against other ways to get them."""

from __future__ import annotations

import csv
import itertools
import json
import statistics
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from adanat_rl.config.errors import UserError
from adanat_rl.plots.ablation import parameters
from adanat_rl.plots.ablation.charts import arm_curve, plane_figure
from adanat_rl.plots.ablation.contest import arms_contest
from adanat_rl.plots.ablation.data import Sweep, read_sweep
from adanat_rl.plots.ablation.parameters import counted_trials, importance_figure, importances, parallel_figure
from adanat_rl.plots.ablation.sentences import details, hacking_sentences, headline, status
from adanat_rl.plots.ablation.tables import arm_columns, arm_lines, arm_metrics, reference_lines, summary_frame
from tests.plots.sweeps import REWARDS, Arm, make_search, make_sweep


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return read_sweep(make_sweep(tmp_path_factory.mktemp("sweeps") / "rewards"))


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return read_sweep(make_search(tmp_path_factory.mktemp("sweeps") / "search"))


def raw(sweep: Sweep, name: str) -> tuple[list[dict[str, float]], list[dict[str, dict[str, dict[str, float]]]]]:
    """Metric rows and rows of the comparison of a trial, straight from its files."""
    folder = sweep.path / "trials" / name
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return metrics, json.loads((folder / "evaluation.json").read_text())["rows"]


def test_the_summary_has_what_the_files_of_each_trial_say(rewards: Sweep, tmp_path: Path) -> None:
    (tmp_path / "summary.csv").write_text(summary_frame(rewards).to_csv(index=False))
    with (tmp_path / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    for row in rows:
        metrics, compared = raw(rewards, row["name"])
        policy = compared[0]["summary"]
        shuffled = next(item for item in compared if item["name"] == "shuffled_over_all")  # type: ignore[comparison-overlap]
        assert float(row["own_reward"]) == pytest.approx(
            statistics.mean(item["reward/mean"] for item in metrics if 50 < item["iteration"] <= 60)
        )
        for key in ("fd_a", "fd_b", "precision", "recall", "accuracy", "nat_passes_per_image", "images_per_s"):
            assert float(row[key]) == pytest.approx(policy[key]["mean"])
        assert float(row["shuffled_fd_a"]) == pytest.approx(shuffled["summary"]["fd_a"]["mean"])
        assert float(row["train_seconds"]) == 90.0
        assert float(row["train_nat_passes"]) == 3072 * 60
        assert row["status"] == "finished"
        assert row["hacking_iteration"] == ("30" if row["arm"] == "classifier" else "")
    assert [row["seed"] for row in rows[:5]] == ["0", "1", "2", "3", "4"]
    assert rows[0]["reward.kind"] == "adversarial"
    assert list(rows[0])[-2:] == ["images_per_s", "train_seconds"]  # what differs between two runs stands last


def test_the_summary_has_a_row_for_trials_that_came_to_nothing(tmp_path: Path) -> None:
    states = {"001_a_seed1": ("failed", "score is not finite"), "002_b_seed0": ("pending", None)}
    path = make_sweep(tmp_path / "sweep", {"a": Arm((0.2, 0.3)), "b": Arm((0.4,))}, states=states)
    frame = summary_frame(read_sweep(path))
    assert frame["status"].tolist() == ["finished", "failed", "pending"]
    assert frame["reason"].tolist()[1] == "score is not finite"
    assert frame["fd_a"].isna().tolist() == [False, True, True]
    assert frame["train_seconds"].isna().tolist() == [False, False, True]


def test_the_table_has_means_and_spreads_over_seeds_best_first(rewards: Sweep) -> None:
    columns = arm_columns(rewards)
    assert [column.key for column in columns] == [
        "own_reward", "fd_a", "fd_b", "precision", "recall", "accuracy", "shuffled_fd_a", "nat_passes_per_image"
    ]  # fmt: skip
    lines = {line.title: line for line in arm_lines(rewards, columns)}
    assert list(lines) == ["adversarial", "fid_leave_one_out", "fid_group", "classifier"]
    for name, line in lines.items():
        cell = line.cells[1]
        values = REWARDS[name].fd_a
        assert (cell.text, cell.spread) == (f"{statistics.mean(values):.3f}", f"{statistics.stdev(values):.3f}")
        assert float(line.cells[6].text) == pytest.approx(statistics.mean(values) + 0.01, abs=5e-4)
    marked = {(name, cell.title) for name, line in lines.items() for cell in line.cells if cell.best}
    assert {("adversarial", "FD A"), ("adversarial", "FD B"), ("classifier", "Precision")} <= marked
    assert not any(title in {"Own reward", "Accuracy"} for _, title in marked)


def test_schedules_stand_in_the_table_for_reference(rewards: Sweep) -> None:
    lines = {line.title: line for line in reference_lines(rewards, arm_columns(rewards))}
    assert set(lines) == {"base schedule", "hand-made, T = 8", "hand-made, T = 4"}
    assert [cell.text for cell in lines["hand-made, T = 8"].cells[:2]] == ["–", "0.240"]


def test_numbers_for_tracking_are_means_with_names_that_it_takes(rewards: Sweep, tmp_path: Path) -> None:
    found = arm_metrics(rewards)
    assert found["fid_group/fd_a"] == pytest.approx(statistics.mean(REWARDS["fid_group"].fd_a))
    assert not any("images_per_s" in key for key in found)
    odd = read_sweep(make_sweep(tmp_path / "odd", {"ppo.lr=1e-4, T/2": Arm((0.2,))}))
    assert "ppo.lr_1e-4_ T_2/fd_a" in arm_metrics(odd)


def interval(first: tuple[float, ...], second: tuple[float, ...], level: float = 0.95) -> tuple[float, float]:
    """Student's interval of how much less the first is, by scipy."""
    result = stats.ttest_rel(second, first).confidence_interval(level)
    return float(result.low), float(result.high)


def test_the_sentence_says_who_won_by_how_much_and_how_sure(rewards: Sweep) -> None:
    found = arms_contest(rewards)
    low, high = interval(REWARDS["adversarial"].fd_a, REWARDS["fid_leave_one_out"].fd_a)
    margin = 0.02 * (0.22 + 0.27) / 2  # of the median arm
    assert low > margin
    assert headline(rewards, found) == (
        f"adversarial wins: FD A 0.180 over 5 seeds, 0.040 below fid_leave_one_out (95 % interval {low:.3f} to "
        f"{high:.3f}, paired by seed; margin {margin:.3f})."
    )
    lines = details(rewards, found)
    assert "adversarial has the best mean by FD B (0.162 ± 0.007)" in " ".join(lines)
    assert lines[-1] == (
        "The best baseline (hand-made, T = 8) has FD A 0.240 ± 0.014 over evaluation seeds; adversarial is 0.060 below."
    )


def test_what_the_seeds_cannot_tell_is_not_claimed(tmp_path: Path) -> None:
    arms = {"a": Arm((0.20, 0.30, 0.25, 0.21)), "b": Arm((0.21, 0.26, 0.24, 0.28))}
    close = read_sweep(make_sweep(tmp_path / "close", arms))
    found = arms_contest(close)
    low, high = interval(arms["a"].fd_a, arms["b"].fd_a)
    assert headline(close, found) == (
        f"a is ahead, but no arm wins: FD A 0.240 over 4 seeds, 0.008 below b, and the 95 % interval of that, "
        f"\N{MINUS SIGN}{-low:.3f} to {high:.3f}, does not lie beyond the margin of 0.005."
    )
    assert details(close, found)[0].startswith("Undecided: b (")
    single = read_sweep(make_sweep(tmp_path / "single", {"a": Arm((0.2,)), "b": Arm((0.3,))}))
    assert arms_contest(single).found is None
    assert headline(single, arms_contest(single)) == (
        "a has the best FD A 0.200 over 1 seed, 0.100 below b; how sure that is cannot be told from a single seed that "
        "all arms finished."
    )
    alone = read_sweep(make_sweep(tmp_path / "alone", {"a": Arm((0.2, 0.3))}))
    assert headline(alone, arms_contest(alone)) == "There is one arm to show, a: FD A 0.250 ± 0.071 over 2 seeds."


def test_arms_without_a_difference_that_matters_are_level_and_not_undecided(tmp_path: Path) -> None:
    arms = {"a": Arm((0.2, 0.201, 0.199, 0.2)), "b": Arm((0.2005, 0.2011, 0.1996, 0.2002))}
    sweep = read_sweep(make_sweep(tmp_path / "level", arms))
    low, high = interval(arms["a"].fd_a, arms["b"].fd_a, 0.9)
    assert -0.004 < low < high < 0.004
    assert headline(sweep, arms_contest(sweep)) == (
        "No arm stands out: a has the best FD A 0.200 over 4 seeds, and b is level with it (margin 0.004)."
    )


def test_arms_are_paired_by_the_seeds_that_all_of_them_finished(tmp_path: Path) -> None:
    # The seeds of the failed trials are the hard ones: their arm looks better for having lost them
    arms = {"a": Arm((0.20, 0.21, 0.30, 0.31)), "b": Arm((0.17, 0.1801, 0.29, 0.30))}
    states = {"002_a_seed2": ("failed", "no memory"), "003_a_seed3": ("failed", "no memory")}
    sweep = read_sweep(make_sweep(tmp_path / "sweep", arms, states=states))
    found = arms_contest(sweep)
    assert found.seeds == (0, 1)
    assert found.found is not None
    assert found.found.order == ("b", "a")
    assert found.found.means == {"a": pytest.approx(0.205), "b": pytest.approx(0.17505)}
    assert headline(sweep, found).startswith("b wins: FD A 0.175 over 2 seeds, 0.030 below a")
    assert "Arms are compared over 2 seeds that all of them finished: a lacks 2 and 3." in details(sweep, found)


def test_no_winner_is_named_among_what_a_scheduler_left(tmp_path: Path) -> None:
    arms = {"a": Arm((0.10, 0.11, 0.40)), "b": Arm((0.20, 0.21, 0.22))}
    sweep = read_sweep(make_sweep(tmp_path / "sweep", arms, states={"002_a_seed2": ("stopped", None)}))
    found = arms_contest(sweep)
    assert found.found is None
    assert headline(sweep, found) == (
        "No arm is named the winner: the scheduler stopped 1 trial for its numbers, and what is left of an arm is no "
        "fair sample of it; a has the best mean of what finished, FD A 0.105 ± 0.007 over 2 seeds."
    )


def test_the_margin_is_that_of_the_sweeps_file(tmp_path: Path) -> None:
    path = make_sweep(tmp_path / "sweep", {"a": Arm((0.20, 0.21, 0.22)), "b": Arm((0.23, 0.241, 0.249))})
    sweep = read_sweep(path)
    assert headline(sweep, arms_contest(sweep)).startswith("a wins")
    (path / "sweep.yaml").write_text("name: sweep\npreset: digits\nmargin: 0.2\n")
    wide = read_sweep(path)
    assert headline(wide, arms_contest(wide)).startswith("No arm stands out")


def test_an_arm_that_is_paid_in_the_metric_takes_no_part(tmp_path: Path) -> None:
    arms = {"honest": Arm((0.20, 0.21, 0.22)), "other": Arm((0.30, 0.32, 0.31)), "fid": Arm((0.10, 0.11, 0.12))}
    path = make_sweep(tmp_path / "sweep", arms)
    for config in path.glob("trials/*_fid_*/config.yaml"):
        content = yaml.safe_load(config.read_text())
        content["reward"]["kind"] = "composite"
        content["reward"]["parts"] = [{"kind": "adversarial"}, {"kind": "fid", "weight": 0.1}]
        config.write_text(yaml.safe_dump(content))
    sweep = read_sweep(path)
    found = arms_contest(sweep)
    assert found.paid == ("fid",)
    assert headline(sweep, found).startswith("honest wins: FD A 0.210 over 3 seeds, 0.100 below other")
    assert any("fid is paid in FD A, which is then no judge of it" in line for line in details(sweep, found))


def test_more_is_better_where_the_sweep_says_so(tmp_path: Path) -> None:
    path = make_sweep(tmp_path / "sweep", {"low": Arm((0.1, 0.2), recall=0.5), "high": Arm((0.3, 0.4), recall=0.9)})
    content = json.loads((path / "trials.json").read_text()) | {"metric": "eval/recall", "direction": "max"}
    (path / "trials.json").write_text(json.dumps(content))
    sweep = read_sweep(path)
    assert sweep.shown_arms == ["high", "low"]
    assert headline(sweep, arms_contest(sweep)).startswith("high wins: recall 0.901 over 2 seeds, 0.400 above")


def test_an_unfinished_sweep_says_so(tmp_path: Path) -> None:
    states = {"001_a_seed1": ("running", None), "002_b_seed0": ("pending", None), "003_b_seed1": ("failed", "no")}
    arms = {"a": Arm((0.2, 0.3)), "b": Arm((0.4, 0.5))}
    half = read_sweep(make_sweep(tmp_path / "half", arms, states=states))
    assert headline(half, arms_contest(half)).startswith("So far, there is one arm to show, a: FD A 0.200")
    assert status(half) == (
        "This sweep is not finished: 1 of 4 trials are done (1 running, 1 pending, 1 failed). "
        "The report shows what there is."
    )
    states = {f"00{number}_{arm}_seed{seed}": ("pending", None) for number, (arm, seed) in enumerate(
        itertools.product("ab", (0, 1))
    )}  # fmt: skip
    nothing = read_sweep(make_sweep(tmp_path / "nothing", arms, states=states))
    assert headline(nothing, None) == "There is nothing to compare yet: no trial has its final evaluation."
    states = {"003_b_seed1": ("failed", "no")}
    failed = read_sweep(make_sweep(tmp_path / "failed", arms, states=states))
    assert status(failed) == "1 of 4 trials failed; what is said here is without it."


def test_hacking_is_counted_by_arm(rewards: Sweep) -> None:
    assert hacking_sentences(rewards) == [
        "adversarial: in none of 5 trials.",
        "fid_group: in none of 5 trials.",
        "classifier: in 5 of 5 trials, first seen at iteration 30.",
        "fid_leave_one_out: in none of 5 trials.",
    ]


def test_a_search_names_its_best_trial_and_claims_no_more(search: Sweep) -> None:
    values = {trial.name: raw(search, trial.name)[1][0]["summary"]["fd_a"]["mean"] for trial in search.finished}
    best = min(values, key=lambda name: values[name])
    sentence = headline(search, None)
    assert sentence.startswith(f"The best of 23 finished trials is {best} with FD A {values[best]:.3f} (ppo.lr = ")
    assert f"the median is {statistics.median(values.values()):.3f}" in sentence
    assert "only new seeds can tell" in sentence


def test_curves_are_means_over_seeds(rewards: Sweep) -> None:
    trials = rewards.of("fid_group")
    curve = arm_curve(trials, "eval/fd_a")
    assert curve is not None
    assert curve.x.tolist() == [0, 10, 20, 30, 40, 50, 60]
    for index, at in enumerate(curve.x):
        values = [row["eval/fd_a"] for trial in trials for row in raw(rewards, trial.name)[0] if row["iteration"] == at]
        assert curve.y[index] == pytest.approx(statistics.mean(values))
        assert curve.sd is not None
        assert curve.sd[index] == pytest.approx(statistics.stdev(values))
    assert arm_curve(trials, "eval/unknown") is None


def test_the_plane_has_a_point_a_trial_and_a_mean_an_arm(rewards: Sweep) -> None:
    axes = plane_figure(rewards, "precision", "recall", ("Precision", "Recall"), "up").axes[0]
    points = next(item for item in axes.lines if item.get_label() == "_trials of classifier")
    numbers = [raw(rewards, trial.name)[1][0]["summary"] for trial in rewards.of("classifier")]
    assert np.allclose(points.get_xdata(), [item["precision"]["mean"] for item in numbers])
    assert np.allclose(points.get_ydata(), [item["recall"]["mean"] for item in numbers])
    mean = next(item for item in axes.lines if item.get_label() == "classifier")
    assert np.asarray(mean.get_xdata()) == pytest.approx([np.mean([item["precision"]["mean"] for item in numbers])])
    labels = {item.get_text() for item in axes.texts}
    assert {"adversarial", "classifier", "hand made T=8", "base schedule"} <= labels


def ranks(values: list[float]) -> np.ndarray:
    return np.argsort(np.argsort(values)).astype(float)


def test_without_optuna_importance_is_the_rank_correlation(search: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameters.importlib.util, "find_spec", lambda name: None)
    found, what = importances(search)
    assert what == "size of the rank correlation"
    trials = counted_trials(search)
    assert len(trials) == 24  # the stopped one has the last evaluation of its training
    scores = [trial.latest("fd_a") for trial in trials]
    by_key = {item.key: item for item in found}
    for key in ("ppo.lr", "decisions.smoothing"):
        expected = np.corrcoef(ranks([trial.settings[key] for trial in trials]), ranks(scores))[0, 1]  # type: ignore[arg-type]
        assert by_key[key].correlation == pytest.approx(expected)
        assert by_key[key].weight == pytest.approx(abs(expected))
    assert np.isnan(by_key["ppo.advantage"].correlation)
    axes = importance_figure(found, what).axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([item.weight for item in found])


def test_with_optuna_importance_is_a_share_of_the_variance(search: Sweep) -> None:
    pytest.importorskip("optuna")
    found, what = importances(search)
    assert "fANOVA" in what
    assert sum(item.weight for item in found) == pytest.approx(1.0)
    assert found[0].key == "ppo.lr"
    assert [item.weight for item in importances(search)[0]] == [item.weight for item in found]


def test_parallel_coordinates_lead_each_trial_through_its_settings(search: Sweep) -> None:
    keys = ["ppo.lr", "ppo.advantage"]
    axes = parallel_figure(search, keys).axes[0]
    trials = {trial.name: trial for trial in counted_trials(search)}
    lines = {str(item.get_label()): np.asarray(item.get_ydata()) for item in axes.lines}
    rates = np.log([trial.settings["ppo.lr"] for trial in trials.values()])
    scores = np.array([trial.latest("fd_a") for trial in trials.values()], float)
    for name, trial in trials.items():
        word = 0.0 if trial.settings["ppo.advantage"] == "critic" else 1.0
        rate = (np.log(trial.settings["ppo.lr"]) - rates.min()) / np.ptp(rates)
        score = ((trial.latest("fd_a") or 0.0) - scores.min()) / np.ptp(scores)
        assert lines[name] == pytest.approx([rate, word, score])
    assert [item.get_text() for item in axes.get_xticklabels()] == ["lr", "advantage", "FD A"]


def test_few_or_equal_trials_have_no_importance(tmp_path: Path) -> None:
    assert importances(read_sweep(make_search(tmp_path / "few", 3))) == ([], "")


def test_a_folder_that_is_no_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no sweep: it has no trials\.json"):
        read_sweep(tmp_path)
    (tmp_path / "trials.json").write_text('{"name": "x"}')
    with pytest.raises(UserError, match=r"trials\.json cannot be read"):
        read_sweep(tmp_path)
