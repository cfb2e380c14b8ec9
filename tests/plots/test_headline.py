"""The sentence of a report: right where the policy is better, worse, equal or unfinished."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from adanat_rl.plots.headline import adaptivity, best_baseline, compare_rows, details, headline
from adanat_rl.plots.numbers import compact, duration, fixed, trimmed
from adanat_rl.plots.run_data import RunData, read_run
from tests.plots.runs import comparison, make_run, row


def read(path: Path, policy: list[float], baseline: list[float] | None, **options: object) -> RunData:
    return read_run(make_run(path / "run", compared=comparison(policy, baseline), **options))  # type: ignore[arg-type]


def test_a_better_policy_is_called_better_with_numbers_and_spread(tmp_path: Path) -> None:
    run = read(tmp_path, [0.17, 0.19, 0.18, 0.20], [0.23, 0.26, 0.24, 0.25])
    assert headline(run) == (
        "In 4 steps and 6 NAT passes per image the learned policy reaches FD 0.185 ± 0.013 "
        "(features of digit classifier A), better than the baseline (hand-made, T = 8: 0.245 ± 0.013 in 8 steps and 14 "
        "passes) by 0.060 ± 0.008."
    )


def test_a_worse_policy_is_called_worse(tmp_path: Path) -> None:
    run = read(tmp_path, [0.33, 0.36, 0.34], [0.23, 0.25, 0.24])
    assert ", worse than the baseline (hand-made, T = 8: 0.240 ± 0.010" in headline(run)
    assert headline(run).endswith("by 0.103 ± 0.006.")


def test_a_difference_within_the_spread_is_not_claimed(tmp_path: Path) -> None:
    run = read(tmp_path, [0.20, 0.30, 0.25], [0.30, 0.20, 0.26])
    assert "no better and no worse, as far as 3 seeds can show, than the baseline" in headline(run)
    assert "better than" not in headline(run)


def test_without_baselines_the_policy_is_set_against_its_base_schedule(tmp_path: Path) -> None:
    assert "better than the base schedule it started from (0.460 ± 0.010) by" in headline(
        read(tmp_path, [0.30, 0.32, 0.31], None)
    )


def test_one_seed_claims_nothing(tmp_path: Path) -> None:
    run = read(tmp_path, [0.2], [0.3])
    assert headline(run).endswith("by 0.100, which one seed cannot show to be more than chance.")


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
    assert difference.p == pytest.approx(stats.ttest_rel(first, second).pvalue)
    assert difference.mean == pytest.approx((first - second).mean())
    assert difference.sd == pytest.approx((first - second).std(ddof=1))


def test_the_best_baseline_of_equal_cost_is_named_when_another_is_better(tmp_path: Path) -> None:
    compared = comparison([0.20, 0.21, 0.22], [0.10, 0.12, 0.11])
    compared["rows"].append(row("static", "baseline", [0.30, 0.33, 0.31], title="static, T = 4"))
    best, equal = best_baseline(compared), best_baseline(compared, 6.0)
    assert best is not None
    assert best["name"] == "hand_made_t8"
    assert equal is not None
    assert equal["name"] == "static"
    sentences = details(read_run(make_run(tmp_path / "run", compared=compared)))
    assert sentences[0].startswith(
        "The policy is better than the best baseline with at most 6 passes (static, T = 4: 0.313 ± 0.015) by"
    )


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
