"""What was learned, in plain sentences with numbers and their spread; nothing is claimed that the seeds cannot show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adanat_rl.config.metric_keys import EVAL, ITERATION, NAT_PASSES_TOTAL, TRAIN_SECONDS_TOTAL, TRAJECTORIES_TOTAL
from adanat_rl.evaluation.comparison import BASE_SCHEDULE, BASELINE
from adanat_rl.evaluation.evaluator import NAT_PASSES
from adanat_rl.evaluation.judge import FD_A, FD_B
from adanat_rl.evaluation.rewarded import remaining_judges
from adanat_rl.evaluation.verdicts import MARGIN, Difference, Finding, paired_difference
from adanat_rl.plots.numbers import duration, fixed, listed, plural, trimmed, with_spread
from adanat_rl.plots.run_data import RunData

Line = Mapping[str, Any]  # a row of a comparison
_TRAININGS = re.compile(r"best of (\d+) training seeds")  # in how a baseline came about


def compare_rows(first: Line, second: Line, metric: str = FD_A, *, minimises: bool = True) -> Difference:
    """Two rows, paired by evaluation seed; the margin is `MARGIN` of the second."""
    ours, theirs = first["values"][metric], second["values"][metric]
    return paired_difference(ours, theirs, MARGIN * abs(float(np.mean(theirs))), minimises=minimises)


def best_baseline(
    comparison: Mapping[str, Any], judge: str = FD_A, *, horizon: int | None = None, beyond: int | None = None
) -> Line | None:
    """The baseline with the least distance by a judge.

    Args:
        horizon: only those of so many steps. beyond: only those of more steps than this.
    """
    rows = [row for row in comparison["rows"] if row["kind"] == BASELINE and judge in row["summary"]]
    if horizon is not None:
        rows = [row for row in rows if row["horizon"] == horizon]
    if beyond is not None:
        rows = [row for row in rows if row["horizon"] > beyond]
    return min(rows, key=lambda row: float(row["summary"][judge]["mean"]), default=None)


def base_row(comparison: Mapping[str, Any]) -> Line | None:
    """The row of the base schedule."""
    return next((row for row in comparison["rows"] if row["kind"] == BASE_SCHEDULE), None)


def headline(run: RunData) -> str:
    """The one sentence."""
    if run.comparison is not None:
        return _compared(run)
    total = run.config.training.num_iterations
    if not run.evaluations:
        return "Nothing has been evaluated yet: the run has only begun."
    known = [key for key in (FD_A, FD_B) if EVAL + key in run.evaluations[0]]
    judge = next(iter(remaining_judges(run.config, known)), FD_A)
    judged = [row for row in run.evaluations if EVAL + judge in row]
    first, last = judged[0], judged[-1]
    title = run.judge_names.fd_b if judge == FD_B else run.judge_names.fd_a
    before = fixed(first[EVAL + judge])
    if last[ITERATION] == first[ITERATION]:
        return (
            f"Nothing is learned yet: the untrained policy stands at {title} {before} "
            f"on one evaluation seed, with {total:,} iterations to come."
        )
    now = f"{fixed(last[EVAL + judge])} (iteration {last[ITERATION]:,})"
    return (
        f"After {run.iteration:,} of {total:,} iterations the policy's {title} went from {before} "
        f"untrained to {now}, on one evaluation seed; spread and baselines come with the comparison at the end."
    )


def details(run: RunData) -> list[str]:
    """What stands behind the sentence: baselines of more steps, judges that are paid in, the start, the effort."""
    sentences = []
    if run.comparison is not None:
        sentences += _about_as_many_steps(run) + _about_more_steps(run) + _about_paid_judges(run) + _about_effort(run)
    elif run.total(NAT_PASSES_TOTAL):
        sentences.append(f"So far training took {_effort(run)}.")
    return sentences


def adaptivity(run: RunData) -> str:
    """Whether the policy is adaptive, as the controls say, or why they were not asked."""
    kind = run.config.policy.kind
    if run.comparison is None:
        return "Whether the policy is adaptive is tested at the end of the run."
    if run.comparison["verdict"] is not None:
        return str(run.comparison["verdict"]["sentence"])
    if kind == "static":
        return "A static policy makes the same decisions for every image; there is no adaptivity to test."
    if kind == "per_class":
        return (
            "A per-class policy makes the same decisions for every image of a class; it is adaptive per class at most."
        )
    return "The shuffle controls were not run, or with one seed only, so whether the policy is adaptive is not known."


def judges_of(run: RunData) -> list[str]:
    """Distances of the comparison that the run was not paid in, in their order."""
    known = [] if run.comparison is None else run.comparison["rows"][0]["summary"]
    return [key for key in remaining_judges(run.config) if key in known]


def _compared(run: RunData) -> str:
    """What was gained at equal cost, by the judges that are left."""
    comparison, judges = run.comparison, judges_of(run)
    assert comparison is not None  # asked by the caller
    policy = comparison["rows"][0]
    cost = f"{plural(policy['horizon'], 'step')} and {trimmed(policy['summary'][NAT_PASSES]['mean'])} NAT passes"
    if not judges and not _panel_counts(run):
        numbers = [
            f"{_title(run, key)} {with_spread(policy['summary'][key])}"
            for key in (FD_A, FD_B)
            if key in policy["summary"]
        ]
        return (
            f"In {cost} per image the learned policy reaches {listed(numbers)}, but it was paid in just that: "
            "no judge remains that could say what it is worth."
        )
    base = base_row(comparison)
    if base is not None:
        found = _finding(run, policy, base, judges, "the base schedule of as many steps that it started from")
        return f"In {cost} per image the learned policy is {found}."
    rival = best_baseline(comparison, next(iter(judges), FD_A), horizon=policy["horizon"])
    if rival is not None:
        found = _finding(run, policy, rival, judges, _among_equals(run, rival))
        return f"In {cost} per image the learned policy is {found}."
    numbers = [f"{_title(run, key)} {with_spread(policy['summary'][key])}" for key in judges]
    return f"In {cost} per image the learned policy reaches {listed(numbers)}; there is nothing to compare it with."


def _among_equals(run: RunData, rival: Line) -> str:
    """The best baseline of as many steps by name, and how it was chosen where that favours it."""
    rows = run.comparison["rows"] if run.comparison is not None else ()
    count = sum(row["kind"] == BASELINE and row["horizon"] == rival["horizon"] for row in rows)
    among = f"the best of {count} baselines" if count > 1 else "the only baseline"
    trainings = _TRAININGS.search(rival.get("how") or "")
    chosen = f"; of {trainings[1]} trainings of it the best was kept, of this policy there is one" if trainings else ""
    return f"{rival['title']} ({among} with as many steps{chosen})"


def _finding(run: RunData, policy: Line, rival: Line, judges: Sequence[str], name: str) -> str:
    """What the panel says, beside a rival of some name. Comparisons of a time before there was a panel go by distances:
    `better than NAME, by both judges: FD A 0.18 ± 0.01 against 0.25 ± 0.01, …`.
    """
    of_panel = _by_panel(run, rival)
    if of_panel is not None:
        return f"{of_panel}, beside {name}"
    shared = [key for key in judges if key in rival["summary"]]
    found = {key: compare_rows(policy, rival, key) for key in shared}
    numbers = ", ".join(
        f"{_title(run, key)} {with_spread(policy['summary'][key])} against {with_spread(rival['summary'][key])}"
        for key in shared
    )
    of_kind = {kind: [_title(run, key) for key in shared if found[key].finding is kind] for kind in Finding}
    everyone = {1: f"by {_title(run, shared[0])}", 2: "by both judges"}.get(len(shared), "by all judges")
    words = {
        Finding.BETTER: f"better than {name}",
        Finding.WORSE: f"worse than {name}",
        Finding.LEVEL: f"level with {name}",
        Finding.UNDECIDED: f"not shown to be better or worse than {name}",
    }
    for kind, text in words.items():
        if len(of_kind[kind]) == len(shared):
            few = "; one seed cannot decide it" if len(policy["values"][shared[0]]) == 1 else ""
            return f"{text}, {everyone}: {numbers}{few}"
    short = {
        Finding.BETTER: "better",
        Finding.WORSE: "worse",
        Finding.LEVEL: "level",
        Finding.UNDECIDED: "undecided",
    }
    parts = [f"{short[kind]} by {listed(titles)}" for kind, titles in of_kind.items() if titles]
    is_mixed = bool(of_kind[Finding.BETTER] and of_kind[Finding.WORSE])
    return f"{'of mixed merit' if is_mixed else listed(parts)} beside {name}" + (
        f", {listed(parts)}: {numbers}" if is_mixed else f": {numbers}"
    )


def _by_panel(run: RunData, rival: Line) -> str | None:
    """What the panel says beside a rival; None where there is none, or the reward has used all that it counts."""
    if run.comparison is None or not _panel_counts(run) or rival["name"] not in run.comparison["panel"]["against"]:
        return None
    policy = run.comparison["rows"][0]
    has_one = max(map(len, {**policy["values"], **policy.get("replicates", {})}.values())) == 1
    return f"{run.comparison['panel']['against'][rival['name']]['sentence']}" + (
        "; one seed cannot decide it" if has_one else ""
    )


def _panel_counts(run: RunData) -> bool:
    """Whether there is a panel with a value that the reward has not used."""
    panel = run.comparison.get("panel") if run.comparison is not None else None
    found = next(iter(panel["against"].values()), None) if panel else None
    return found is not None and len(found["not_counted"]) < len(found["findings"])


def _title(run: RunData, key: str) -> str:
    return {FD_A: run.judge_names.short_a, FD_B: run.judge_names.short_b}.get(key, key)


def _about_effort(run: RunData) -> list[str]:
    return [f"Training took {_effort(run)}."] if run.total(NAT_PASSES_TOTAL) else []


def _about_as_many_steps(run: RunData) -> list[str]:
    """The best baseline of as many steps, where the sentence above was about the base schedule."""
    comparison, judges = run.comparison, judges_of(run)
    if comparison is None or not (judges or _panel_counts(run)) or base_row(comparison) is None:
        return []
    policy = comparison["rows"][0]
    rival = best_baseline(comparison, next(iter(judges), FD_A), horizon=policy["horizon"])
    return [] if rival is None else [f"It is {_finding(run, policy, rival, judges, _among_equals(run, rival))}."]


def _about_more_steps(run: RunData) -> list[str]:
    """The best baseline of more steps, which costs more."""
    comparison, judges = run.comparison, judges_of(run)
    if comparison is None or not (judges or _panel_counts(run)):
        return []
    policy = comparison["rows"][0]
    rival = best_baseline(comparison, next(iter(judges), FD_A), beyond=policy["horizon"])
    if rival is None:
        return []
    cost = f"{plural(rival['horizon'], 'step')} and {trimmed(rival['summary'][NAT_PASSES]['mean'])} passes"
    name = f"{rival['title']} (the best baseline with more steps: {cost})"
    return [f"It is {_finding(run, policy, rival, judges, name)}."]


def _about_paid_judges(run: RunData) -> list[str]:
    """Which distance is the reward itself, and which one is left."""
    known = [key for key in (FD_A, FD_B) if run.comparison and key in run.comparison["rows"][0]["summary"]]
    left = judges_of(run)
    paid = [_title(run, key) for key in known if key not in left]
    if not paid or not left or _panel_counts(run):
        return []
    rest = listed([_title(run, key) for key in left])
    return [f"The run is paid in {listed(paid)}, which is then no judge of it; what is said here is by {rest}."]


def _effort(run: RunData) -> str:
    parts = [f"{run.total(NAT_PASSES_TOTAL):,.0f} NAT passes for {run.total(TRAJECTORIES_TOTAL):,.0f} images"]
    if run.total(TRAIN_SECONDS_TOTAL):
        parts.append(duration(run.total(TRAIN_SECONDS_TOTAL)))
    return ", ".join(parts)


def seeds_note(comparison: Mapping[str, Any]) -> str:
    """How many images and seeds stand behind the numbers."""
    seeds: Sequence[int] = comparison["seeds"]
    listed = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 2 else " and ".join(map(str, seeds))
    return f"{comparison['num_images']:,} images for each of {plural(len(seeds), 'evaluation seed')} ({listed})"
