"""What a sweep found, in plain sentences: who won, by how much, how sure, and whose reward was hacked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adanat_rl.evaluation.comparison import BASELINE
from adanat_rl.evaluation.judge import FD_A, FD_B, RECALL
from adanat_rl.plots.ablation.bootstrap import NUM_SAMPLES, SURE, Contest, contest
from adanat_rl.plots.ablation.data import Sweep, metric_title, setting_text
from adanat_rl.plots.numbers import fixed, plural

_SEED = 0  # of the bootstrap
_FEW_SEEDS = 5
_ENDED = {"finished", "stopped", "failed"}


def spread(values: np.ndarray, digits: int = 3) -> str:
    """Mean, with the standard deviation if there is more than one value."""
    mean = fixed(float(values.mean()), digits)
    return f"{mean} ± {fixed(float(values.std(ddof=1)), digits)}" if len(values) > 1 else mean


def arms_contest(sweep: Sweep) -> Contest | None:
    """The bootstrap over the arms, best first; None with fewer than two, or where one has a single seed."""
    values = [sweep.values(arm, sweep.metric) for arm in sweep.shown_arms]
    if len(values) < 2 or min(map(len, values)) < 2:
        return None
    return contest(values, np.random.default_rng(_SEED), minimises=sweep.minimises)


def headline(sweep: Sweep, found: Contest | None) -> str:
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


def details(sweep: Sweep, found: Contest | None) -> list[str]:
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


def _best_arm(sweep: Sweep, arms: Sequence[str], found: Contest | None) -> str:
    first = sweep.values(arms[0], sweep.metric)
    numbers = f"{sweep.metric_title} {spread(first)} over {plural(len(first), 'seed')}"
    if len(arms) == 1:
        return f"There is one arm to show, {arms[0]}: {numbers}."
    second = sweep.values(arms[1], sweep.metric)
    word = "below" if sweep.minimises else "above"
    margin = f"{fixed(abs(float(first.mean() - second.mean())))} {word} {arms[1]}"
    if found is None:
        return f"{arms[0]} has the best {numbers}, {margin}; how sure that is, a single seed of an arm cannot tell."
    share = float(found.best_share[0])
    often = f"in {_percent(share)} {NUM_SAMPLES:,} bootstrap samples over the seeds"
    if share >= SURE:
        return f"{arms[0]} wins: {numbers}, {margin}; {often} it is the best."
    return f"{arms[0]} is ahead, but it need not be better: {numbers}, {margin}; only {often} it is the best."


def _percent(share: float) -> str:
    return "all" if share == 1 else f"{100 * share:.1f} % of"


def _about_sureness(sweep: Sweep, found: Contest | None) -> list[str]:
    if found is None:
        return []
    arms = sweep.shown_arms
    fewest = min(len(sweep.values(arm, sweep.metric)) for arm in arms)
    sentence = (
        f"The difference to {arms[1]} is {fixed(found.margin)}; 95 % of the bootstrap samples lie between "
        f"{fixed(found.low)} and {fixed(found.high)}."
    )
    few = f" The bootstrap knows the spread among the seeds only; with {fewest} an arm it is rather too sure."
    return [sentence + (few if fewest <= _FEW_SEEDS else "")]


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
            sentences.append(f"By {title} {best} is the best ({theirs}); {sweep.shown_arms[0]} has {ours}.")
    return [*([f"{sweep.shown_arms[0]} is the best by {' and '.join(agreed)}, too."] if agreed else []), *sentences]


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
