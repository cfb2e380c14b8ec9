"""The sentence of a report: right where the policy is better, worse, equal or unfinished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from adanat_rl.plots.headline import adaptivity, best_baseline, compare_rows, details, headline
from adanat_rl.plots.numbers import compact, duration, fixed, trimmed
from adanat_rl.plots.report import write_report
from adanat_rl.plots.run_data import RunData, read_run
from tests.plots.runs import comparison, make_run, row


def read(path: Path, policy: list[float], baseline: list[float] | None, **options: object) -> RunData:
    return read_run(make_run(path / "run", compared=comparison(policy, baseline), **options))  # type: ignore[arg-type]


def compared_with(policy: list[float], same_steps: list[float] | None, more_steps: list[float] | None) -> dict:
    """A comparison by judge A, and by a judge B that says nine tenths of it."""
    compared = comparison(policy, more_steps)
    if same_steps is not None:
        compared["rows"].append(row("static", "baseline", same_steps, title="static, T = 4"))
    for item in compared["rows"]:
        item["values"]["fd_b"] = [0.9 * value for value in item["values"]["fd_a"]]
        item["summary"]["fd_b"] = {name: 0.9 * value for name, value in item["summary"]["fd_a"].items()}
    return compared


def read_compared(path: Path, *numbers: list[float] | None, **options: object) -> RunData:
    return read_run(make_run(path / "run", compared=compared_with(*numbers), **options))  # type: ignore[arg-type]


def test_what_was_gained_comes_first_then_as_many_steps_then_more(tmp_path: Path) -> None:
    run = read_compared(tmp_path, [0.17, 0.19, 0.18], [0.31, 0.33, 0.34], [0.11, 0.13, 0.12])
    assert headline(run) == (
        "In 4 steps and 6 NAT passes per image the learned policy is better than the base schedule of as many steps "
        "that it started from, by both judges: FD A 0.180 ± 0.010 against 0.460 ± 0.010, FD B 0.162 ± 0.009 against "
        "0.414 ± 0.009."
    )
    assert details(run)[:2] == [
        "It is better than static, T = 4 (the only baseline with as many steps), by both judges: FD A 0.180 ± 0.010 "
        "against 0.327 ± 0.015, FD B 0.162 ± 0.009 against 0.294 ± 0.014.",
        "It is worse than hand-made, T = 8 (the best baseline with more steps: 8 steps and 14 passes), by both judges: "
        "FD A 0.180 ± 0.010 against 0.120 ± 0.010, FD B 0.162 ± 0.009 against 0.108 ± 0.009.",
    ]


def test_a_rival_that_is_the_best_of_several_trainings_is_told_as_that(tmp_path: Path) -> None:
    compared = compared_with([0.17, 0.19, 0.18], [0.16, 0.18, 0.19], None)
    compared["rows"][-1]["how"] = "the same PPO, learning rate 0.03, best of 5 training seeds"
    said = details(read_run(make_run(tmp_path / "run", compared=compared)))[0]
    assert "of 5 trainings of it the best was kept, of this policy there is one" in said


def test_judges_that_do_not_agree_are_told_apart(tmp_path: Path) -> None:
    compared = compared_with([0.17, 0.19, 0.18], [0.31, 0.33, 0.34], None)
    static = compared["rows"][-1]
    for values, words in (
        ([0.10, 0.11, 0.12], "with as many steps), better by FD A and worse by FD B: FD A 0.180"),
        ([0.10, 0.30, 0.12], "better by FD A and undecided by FD B beside static, T = 4"),
    ):
        static["values"]["fd_b"] = values
        folder = make_run(tmp_path / f"run{values[1]}", compared=compared)
        assert words in details(read_run(folder))[0]


def test_without_a_base_schedule_the_best_of_as_many_steps_stands_first(tmp_path: Path) -> None:
    compared = compared_with([0.17, 0.19, 0.18], [0.31, 0.33, 0.34], None)
    compared["rows"] = [item for item in compared["rows"] if item["kind"] != "base_schedule"]
    run = read_run(make_run(tmp_path / "run", compared=compared))
    assert "is better than static, T = 4 (the only baseline with as many steps), by both judges" in headline(run)
    assert not any("It is" in line for line in details(run))


@pytest.mark.parametrize(
    ("policy", "rival", "words"),
    [
        ([0.33, 0.36, 0.34], [0.23, 0.25, 0.24], "worse than"),
        ([0.20, 0.30, 0.25], [0.30, 0.20, 0.26], "not shown to be better or worse than"),
        ([0.2, 0.3, 0.25], [0.2004, 0.3001, 0.2503], "level with"),
    ],
)
def test_what_is_found_is_said_and_no_more(tmp_path: Path, policy: list[float], rival: list[float], words: str) -> None:
    run = read_compared(tmp_path, policy, rival, None)
    assert details(run)[0].startswith(f"It is {words} static, T = 4 (the only baseline")


def test_one_seed_claims_nothing(tmp_path: Path) -> None:
    run = read_compared(tmp_path, [0.2], [0.3], None)
    assert "not shown to be better or worse" in headline(run)
    assert headline(run).endswith("; one seed cannot decide it.")


@pytest.mark.parametrize(
    "overrides",
    [
        ("reward.kind=fid",),
        ("reward.kind=composite", "reward.parts=[{kind: adversarial}, {kind: fid, weight: 0.1}]"),
    ],
)
def test_a_run_is_not_judged_by_what_it_is_paid_in(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    run = read_compared(tmp_path, [0.17, 0.19, 0.18], [0.31, 0.33, 0.34], None, overrides=overrides)
    sentence = headline(run)
    assert sentence.endswith("that it started from, by FD B: FD B 0.162 ± 0.009 against 0.414 ± 0.009.")
    assert "FD A" not in sentence
    assert any("The run is paid in FD A, which is then no judge of it" in line for line in details(run))
    alone = read_run(make_run(tmp_path / "alone", compared=comparison([0.17, 0.19], [0.2, 0.3]), overrides=overrides))
    for item in alone.comparison["rows"]:  # type: ignore[index]
        item["summary"].pop("fd_b", None)
    assert "no judge remains" in headline(alone)


def with_panel(compared: dict[str, Any], not_counted: list[str]) -> dict[str, Any]:
    """The comparison with what a panel of two values says."""
    for item in compared["rows"]:
        item["values"] |= {"fd_pixels": [1.0, 1.1, 1.2], "recall_pixels": [0.8, 0.8, 0.8]}
        item["summary"] |= {"fd_pixels": {"mean": 1.1, "sd": 0.1}, "recall_pixels": {"mean": 0.8, "sd": 0.0}}
    values = [
        {"key": "fd_pixels", "title": "FD pixels", "minimises": True},
        {"key": "recall_pixels", "title": "recall pixels", "minimises": False},
    ]
    findings = {"fd_pixels": "better", "recall_pixels": "worse"}
    told = {"sentence": "better by 1 of 2 values (FD pixels)", "findings": findings, "not_counted": not_counted}
    rivals = [item["name"] for item in compared["rows"] if item["kind"] in {"base_schedule", "baseline"}]
    return {**compared, "panel": {"values": values, "against": dict.fromkeys(rivals, told)}}


def test_the_panel_has_the_word_where_there_is_one(tmp_path: Path) -> None:
    compared = with_panel(comparison([0.2, 0.22, 0.21], [0.3, 0.31, 0.33]), [])
    run = read_run(make_run(tmp_path / "run", compared=compared))
    start = "In 4 steps and 6 NAT passes per image the learned policy is better by 1 of 2 values (FD pixels), beside "
    assert headline(run) == f"{start}the base schedule of as many steps that it started from."
    assert any("better by 1 of 2 values (FD pixels), beside hand-made, T = 8" in line for line in details(run))


def test_a_panel_whose_values_are_all_paid_in_has_not(tmp_path: Path) -> None:
    compared = with_panel(comparison([0.2, 0.22, 0.21], None), ["fd_pixels", "recall_pixels"])
    run = read_run(make_run(tmp_path / "run", compared=compared))
    assert "better by FD A and level by FD B beside the base schedule" in headline(run)


def test_the_report_shows_what_the_panel_says(tmp_path: Path) -> None:
    compared = with_panel(comparison([0.2, 0.22, 0.21], [0.3, 0.31, 0.33]), ["recall_pixels"])
    folder = make_run(tmp_path / "run", compared=compared)
    write_report(folder)
    page = folder.report_file.read_text()
    assert "What judges of unlike kinds say" in page
    assert "8: better by 1 of 2 values (FD pixels)" in page
    assert "recall pixels ↑ <small>not counted: the reward used it</small>" in page
    assert 'class="better"><span>1.100 <small>better</small>' in page


def test_an_unfinished_run_says_how_far_it_is(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", iterations=5, total=20, finished=False))
    assert headline(run) == (
        "After 5 of 20 iterations the policy's FD (features of digit classifier A) went from 0.500 untrained to 0.460 "
        "(iteration 4), on one evaluation seed; spread and baselines come with the comparison at the end."
    )


def test_a_run_that_has_only_begun_claims_nothing(tmp_path: Path) -> None:
    first = read_run(make_run(tmp_path / "a", iterations=0, total=20, finished=False))
    assert headline(first).startswith("Nothing is learned yet: the untrained policy stands at FD")
    none = read_run(make_run(tmp_path / "b", iterations=-1, total=20, finished=False))
    assert headline(none) == "Nothing has been evaluated yet: the run has only begun."


def test_the_difference_is_a_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.3, 0.05, 5), rng.normal(0.32, 0.05, 5)
    difference = compare_rows(row("a", "policy", first.tolist()), row("b", "baseline", second.tolist()))
    expected = stats.ttest_rel(second, first).confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
    assert difference.mean == pytest.approx((second - first).mean())
    assert difference.margin == pytest.approx(0.02 * second.mean())


def test_the_best_baseline_is_found_among_as_many_and_among_more_steps() -> None:
    compared = compared_with([0.20, 0.21, 0.22], [0.30, 0.33, 0.31], [0.10, 0.12, 0.11])
    for options, name in (({}, "hand_made_t8"), ({"horizon": 4}, "static"), ({"beyond": 4}, "hand_made_t8")):
        found = best_baseline(compared, **options)
        assert found is not None
        assert found["name"] == name
    assert best_baseline(compared, beyond=8) is None


@pytest.mark.parametrize(("kind", "words"), [("static", "for every image"), ("per_class", "every image of a class")])
def test_policies_that_do_not_look_need_no_controls(tmp_path: Path, kind: str, words: str) -> None:
    run = read(tmp_path, [0.2, 0.3], None, overrides=(f"policy.kind={kind}",))
    assert words in adaptivity(run)


def test_the_verdict_is_repeated_word_by_word(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", compared=comparison([0.2, 0.3], None, verdict="The policy is a schedule."))
    assert adaptivity(read_run(folder)) == "The policy is a schedule."
    folder.evaluation_file.unlink()
    assert "at the end of the run" in adaptivity(read_run(folder))


def test_a_comparison_older_than_the_training_is_recognised(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", iterations=6, total=6, compared=comparison([0.2, 0.3]))
    assert read_run(folder).is_finished
    compared = json.loads(folder.evaluation_file.read_text())
    folder.evaluation_file.write_text(json.dumps({**compared, "iteration": 4}))
    run = read_run(folder)
    assert run.is_outdated
    assert not run.is_finished
    assert run.compared_at == 4


def test_numbers_are_written_for_people() -> None:
    assert [fixed(-0.1234), fixed(-0.0001), fixed(1797, 0)] == ["−0.123", "0.000", "1,797"]
    assert [trimmed(6.0), trimmed(5.43)] == ["6", "5.4"]
    assert [compact(0), compact(2500), compact(1_200_000)] == ["0", "2.5k", "1.2M"]
    assert [duration(59.2), duration(250), duration(7500)] == ["59 s", "4 min 10 s", "2 h 05 min"]
