"""The reward against the judges in the report of a run: drawn as measured, marked and said where it was hacked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from adanat_rl.config.run_paths import RunPaths
from adanat_rl.plots.judges import hacking_of, hacking_sentence, joined, judges_figure, moments
from adanat_rl.plots.page import status
from adanat_rl.plots.report import write_report
from adanat_rl.plots.run_data import RunData, read_run
from tests.plots.runs import comparison, make_run
from tests.plots.sweeps import Arm, make_trial
from tests.plots.test_report_page import Page


@pytest.fixture(scope="module")
def hacked(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    path = tmp_path_factory.mktemp("runs") / "hacked"
    make_trial(path, Arm((0.6,), recall=0.4, hacked=True), 0, 0.6, "finished", 8)
    return read_run(RunPaths(path))


def lines(axes: Axes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {str(item.get_label()): (np.asarray(item.get_xdata()), np.asarray(item.get_ydata())) for item in axes.lines}


def test_each_panel_has_what_was_measured(hacked: RunData) -> None:
    panels = judges_figure(hacked, None, "title").axes
    assert len(panels) == 4
    rows = [json.loads(line) for line in (hacked.path / "metrics.jsonl").read_text().splitlines()]
    for axes, key in zip(panels[1:], ("fd_a", "fd_b", "recall"), strict=True):
        x, y = lines(axes)[key]
        assert x.tolist() == [0, 10, 20, 30, 40, 50, 60]
        assert y.tolist() == [row[f"eval/{key}"] for row in rows if f"eval/{key}" in row]
    x, y = lines(panels[0])["reward"]
    assert x.tolist() == [10, 20, 30, 40, 50, 60]
    assert y[1] == pytest.approx(np.mean([row["reward/mean"] for row in rows if 10 < row["iteration"] <= 20]))
    x, y = lines(panels[0])["_iterations"]
    assert y.tolist() == [row["reward/mean"] for row in rows if "reward/mean" in row]
    assert len({axes.get_xlim() for axes in panels}) == 1


def test_the_moment_is_marked_in_every_panel(hacked: RunData) -> None:
    found = hacking_of(hacked)
    assert found is not None
    for axes in judges_figure(hacked, found).axes:
        assert set(lines(axes)["_hacking"][0]) == {found.iteration}
        assert axes.patches[0].get_extents().width > 0
    assert not any("_hacking" in lines(axes) for axes in judges_figure(hacked, None).axes)


def test_the_page_says_it_at_its_head_and_shows_the_samples(hacked: RunData) -> None:
    write_report(RunPaths(hacked.path))
    page = Page((hacked.path / "report.html").read_text())
    found = hacking_of(hacked)
    assert found is not None
    assert page.words.count(found.sentence) == 2
    assert f"When hacking was seen, iteration {found.iteration}" in page.words
    assert "Best evaluation, iteration 0" in page.words
    assert (hacked.path / "figures" / "reward_against_judges.png").exists()


def test_the_best_evaluation_is_never_the_moment_itself(hacked: RunData) -> None:
    found = hacking_of(hacked)
    assert found is not None
    assert moments(hacked, found) == [("Best evaluation", 0), ("When hacking was seen", found.iteration)]
    best = [dict(row) for row in hacked.rows]
    best[found.iteration]["eval/fd_a"] = 0.01
    changed = RunData(**{**hacked.__dict__, "rows": tuple(best)})
    assert [iteration for _, iteration in moments(changed, found)] == [0, found.iteration]


def test_a_run_without_hacking_says_how_far_it_was_looked_for(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "good", iterations=8, total=8)
    run = read_run(folder)
    assert hacking_sentence(run, hacking_of(run)) == (
        "No reward hacking was seen: over no 4 evaluations in a row did the reward clearly rise while FD A or FD B got "
        "worse by more than 10%."
    )
    short = read_run(make_run(tmp_path / "short", iterations=4, total=8, finished=False))
    assert hacking_sentence(short, None) == "Reward hacking is looked for over 4 evaluations; there are 3."
    off = read_run(make_run(tmp_path / "off", overrides=("evaluation.hacking_window=0",)))
    assert hacking_sentence(off, None) == "Reward hacking was not looked for (evaluation.hacking_window is 0)."


def test_the_section_is_there_from_the_second_evaluation_on(tmp_path: Path) -> None:
    for iterations, expected in ((0, False), (2, True)):
        folder = make_run(tmp_path / str(iterations), iterations=iterations, total=20, finished=False)
        write_report(folder)
        assert ("judges" in Page(folder.report_file.read_text()).ids) == expected


def test_long_curves_are_joined_without_moving_their_mean() -> None:
    x, y = np.arange(1000.0), np.random.default_rng(0).normal(size=1000)
    short_x, short_y = joined(x, y, 100)
    assert len(short_x) == len(short_y) == 100
    assert short_y.mean() == pytest.approx(y.mean())
    assert short_x[3] == pytest.approx(34.5)
    assert joined(x[:50], y[:50], 100)[1].tolist() == y[:50].tolist()


def test_a_run_that_keeps_its_best_policy_says_of_which_iteration_the_comparison_is(tmp_path: Path) -> None:
    compared = comparison([0.2, 0.3])
    overrides = ("checkpoints.keep_best=true", "checkpoints.final=best")
    folder = make_run(tmp_path / "run", compared=compared, overrides=overrides)
    run = read_run(folder)
    assert (run.is_outdated, run.is_of_best, status(run)) == (False, False, "")
    folder.evaluation_file.write_text(json.dumps({**compared, "iteration": 2}))
    run = read_run(folder)
    assert (run.is_outdated, run.is_of_best) == (False, True)
    assert "are of iteration 2, the best evaluation of 4 iterations" in status(run)
