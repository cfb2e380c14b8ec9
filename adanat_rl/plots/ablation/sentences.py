"""What a sweep found, in plain sentences: who won, by how much, how sure, and whose reward was hacked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adanat_rl.evaluation.comparison import BASELINE
from adanat_rl.evaluation.judge import FD_A, FD_B, RECALL
from adanat_rl.evaluation.verdicts import Contest, Difference, Finding
from adanat_rl.plots.ablation.contest import ArmsContest
from adanat_rl.plots.ablation.data import Sweep, metric_title, setting_text
from adanat_rl.plots.numbers import fixed, listed, plural

_ENDED = {"finished", "stopped", "failed"}


def spread(values: np.ndarray, digits: int = 3) -> str:
    """Mean, with the standard deviation if there is more than one value."""
    mean = fixed(float(values.mean()), digits)
    return f"{mean} ± {fixed(float(values.std(ddof=1)), digits)}" if len(values) > 1 else mean


def headline(sweep: Sweep, found: ArmsContest) -> str:
    """The one sentence."""
    arms = sweep.shown_arms
    if not arms:
        return "There is nothing to compare yet: no trial has its final evaluation."
    sentence = _best_trial(sweep) if sweep.continuous else _best_arm(sweep, arms, found)
    if is_over(sweep):
        return sentence
    return f"So far, {sentence[0].lower()}{sentence[1:]}" if sentence.startswith("The") else f"So far, {sentence}"


def is_over(sweep: Sweep) -> bool:
    """Whether no trial is left to do."""
    return all(trial.status in _ENDED for trial in sweep.trials)


def status(sweep: Sweep) -> str:
    """What is to be known before reading on; empty where every trial is finished or was stopped by design."""
    counts = Counter(trial.status for trial in sweep.trials)
    if not is_over(sweep):
        others = ", ".join(f"{count} {name}" for name, count in counts.items() if name != "finished")
        return (
            f"This sweep is not finished: {counts['finished']} of {plural(len(sweep.trials), 'trial')} are done "
            f"({others}). The report shows what there is."
        )
    if counts["failed"]:
        count = counts["failed"]
        return (
            f"{count} of {plural(len(sweep.trials), 'trial')} failed; what is said here is without "
            f"{'it' if count == 1 else 'them'}."
        )
    return ""


def details(sweep: Sweep, found: ArmsContest) -> list[str]:
    """What stands behind the sentence."""
    if not sweep.shown_arms:
        return []
    sentences = []
    if not sweep.continuous:
        sentences += _about_sureness(sweep, found) + _about_judges(sweep)
    sentences += _about_baselines(sweep)
    return sentences


def hacking_sentences(sweep: Sweep) -> list[str]:
    """In how many trials of each arm hacking was seen, and when."""
    sentences = []
    for arm in sweep.arms:
        trials = [trial for trial in sweep.trials if trial.arm == arm and trial.run is not None and trial.run.rows]
        seen = sorted(trial.hacking.iteration for trial in trials if trial.hacking is not None)
        if not trials:
            continue
        if not seen:
            sentences.append(f"{arm}: in none of {plural(len(trials), 'trial')}.")
            continue
        when = f"at iteration {seen[0]:,}" if len(set(seen)) == 1 else f"at iterations {seen[0]:,} to {seen[-1]:,}"
        sentences.append(f"{arm}: in {len(seen)} of {plural(len(trials), 'trial')}, first seen {when}.")
    return sentences


def best_reference(
    references: Sequence[Mapping[str, Any]], metric: str, *, minimises: bool
) -> Mapping[str, Any] | None:
    """The best baseline by a metric."""
    known = [row for row in references if row["kind"] == BASELINE and metric in row["summary"]]
    sign = 1 if minimises else -1
    return min(known, key=lambda row: sign * float(row["summary"][metric]["mean"]), default=None)


def _best_trial(sweep: Sweep) -> str:
    best = sweep.ranked[0]
    values = np.array([trial.final[sweep.metric] for trial in sweep.ranked])
    return (
        f"The best of {plural(len(values), 'finished trial')} is {best.name} with {sweep.metric_title} "
        f"{fixed(best.final[sweep.metric])} ({setting_text(best, sweep.varied)}); "
        f"the median is {fixed(float(np.median(values)))}. "
        "The best of many is better by luck, too: how much of it stays, only new seeds can tell."
    )


def _best_arm(sweep: Sweep, arms: Sequence[str], found: ArmsContest) -> str:
    if len(arms) == 1:
        return f"There is one arm to show, {arms[0]}: {_mean_of(sweep, arms[0])}."
    if found.num_stopped:
        return (
            f"No arm is named the winner: the scheduler stopped {plural(found.num_stopped, 'trial')} for "
            f"{'its' if found.num_stopped == 1 else 'their'} numbers, and what is left of an arm is no fair sample of "
            f"it; {arms[0]} has the best mean of what finished, {_mean_of(sweep, arms[0])}."
        )
    if found.found is None:
        return _cannot_tell(sweep, [arm for arm in arms if arm not in found.paid] or arms, found)
    return told(found.found, sweep.metric_title, _side(sweep))


def _mean_of(sweep: Sweep, arm: str) -> str:
    values = sweep.values(arm, sweep.metric)
    return f"{sweep.metric_title} {spread(values)} over {plural(len(values), 'seed')}"


def _cannot_tell(sweep: Sweep, arms: Sequence[str], found: ArmsContest) -> str:
    start = f"{arms[0]} has the best {_mean_of(sweep, arms[0])}"
    if len(arms) < 2:
        return f"{start}; every other arm is paid in {sweep.metric_title}, which is then no judge of it."
    first, second = (float(sweep.values(arm, sweep.metric).mean()) for arm in arms[:2])
    lead = f"{fixed(abs(first - second))} {_side(sweep)} {arms[1]}"
    what = "a single seed" if len(found.seeds) == 1 else "no seed"
    return f"{start}, {lead}; how sure that is cannot be told from {what} that all arms finished."


def told(found: Contest, title: str, side: str) -> str:
    """What a contest comes to, in a sentence.

    Args:
        title: of the metric. side: where the better is: below, or above.
    """
    first, second = found.order[:2]
    numbers = f"{title} {fixed(found.means[first])} over {plural(found.count, 'seed')}"
    lead = found.ahead[second]
    margin = f"margin {fixed(found.margin)}"
    if found.winner is not None:
        return (
            f"{first} wins: {numbers}, {fixed(lead.mean)} {side} {second} "
            f"(95 % interval {_interval(lead)}, paired by seed; {margin})."
        )
    if len(found.level) == len(found.ahead):
        everyone = f"{second} is" if len(found.ahead) == 1 else "all other arms are"
        return f"No arm stands out: {first} has the best {numbers}, and {everyone} level with it ({margin})."
    return (
        f"{first} is ahead, but no arm wins: {numbers}, {fixed(lead.mean)} {side} {second}, and the 95 % "
        f"interval of that, {_interval(lead)}, does not lie beyond the margin of {fixed(found.margin)}."
    )


def about_others(found: Contest) -> list[str]:
    """What is known of each arm that the first one is not simply better than; nothing where there is a winner."""
    if found.winner is not None:
        return []
    sentences, first = [], found.order[0]
    if found.beaten:
        sentences.append(f"It is better than {listed(found.beaten)}, by Holm's correction over all pairs.")
    if found.level:
        sentences.append(f"Level with {first}, within the margin of {fixed(found.margin)}: {listed(found.level)}.")
    undecided = [
        f"{arm} ({_interval(lead)})"
        for arm, lead in found.ahead.items()
        if arm not in found.beaten and lead.finding is not Finding.LEVEL
    ]
    if undecided:
        sentences.append(
            f"Undecided: {listed(undecided)}, in brackets the 95 % interval of the lead of {first}; more seeds may "
            "decide."
        )
    return sentences


def _side(sweep: Sweep) -> str:
    return "below" if sweep.minimises else "above"


def _interval(difference: Difference) -> str:
    return f"{fixed(difference.low)} to {fixed(difference.high)}"


def _about_sureness(sweep: Sweep, contest: ArmsContest) -> list[str]:
    """What is known of each other arm, and which seeds and arms are left out."""
    sentences = [] if contest.found is None else about_others(contest.found)
    if contest.missing and not contest.num_stopped:
        gone = [f"{arm} lacks {listed([str(seed) for seed in seeds])}" for arm, seeds in contest.missing.items()]
        sentences.append(
            f"Arms are compared over {plural(len(contest.seeds), 'seed')} that all of them finished: {listed(gone)}."
        )
    if contest.paid and len(sweep.arms) > 1:
        one = len(contest.paid) == 1
        sentences.append(
            f"{listed(contest.paid)} {'is' if one else 'are'} paid in {sweep.metric_title}, which is then no judge of "
            f"{'it' if one else 'them'}: {'it takes' if one else 'they take'} no part in the comparison."
        )
    return sentences


def _about_judges(sweep: Sweep) -> list[str]:
    """Whether the other judges agree."""
    agreed, sentences = [], []
    for metric, sign in ((FD_A, 1), (FD_B, 1), (RECALL, -1)):
        means = {arm: float(values.mean()) for arm in sweep.shown_arms if len(values := sweep.values(arm, metric))}
        if metric == sweep.metric or len(means) < 2:
            continue
        best = min(means, key=lambda arm: sign * means[arm])
        title = metric_title(metric, sweep.judge_names)
        if best == sweep.shown_arms[0]:
            agreed.append(f"{title} ({spread(sweep.values(best, metric))})")
        else:
            ours, theirs = (spread(sweep.values(arm, metric)) for arm in (sweep.shown_arms[0], best))
            sentences.append(f"By {title} {best} has the best mean ({theirs}); {sweep.shown_arms[0]} has {ours}.")
    first = sweep.shown_arms[0]
    return [*([f"{first} has the best mean by {' and '.join(agreed)}, too."] if agreed else []), *sentences]


def _about_baselines(sweep: Sweep) -> list[str]:
    best = best_reference(sweep.references, sweep.metric, minimises=sweep.minimises)
    if best is None:
        return []
    value = best["summary"][sweep.metric]
    if sweep.continuous:
        ours, who = np.array([sweep.ranked[0].final[sweep.metric]]), "the best trial"
    else:
        ours, who = sweep.values(sweep.shown_arms[0], sweep.metric), sweep.shown_arms[0]
    difference = float(ours.mean()) - value["mean"]
    word = "below" if difference < 0 else "above"
    return [
        f"The best baseline ({best['title']}) has {sweep.metric_title} {fixed(value['mean'])} ± {fixed(value['sd'])} "
        f"over evaluation seeds; {who} is {fixed(abs(difference))} {word}."
    ]
