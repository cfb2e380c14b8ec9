"""The page of a sweep: what its template shows, gathered from the sweep and its charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adanat_rl.evaluation.judge import FD_A
from adanat_rl.plots import pictures
from adanat_rl.plots.ablation import sentences, tables
from adanat_rl.plots.ablation.charts import MOST_ARMS, AblationCharts, Watched
from adanat_rl.plots.ablation.contest import ArmsContest
from adanat_rl.plots.ablation.data import Sweep, Trial, metric_title, middle_trial
from adanat_rl.plots.numbers import duration, fixed, plural
from adanat_rl.plots.page import Fact, Sample, moment_samples, render
from adanat_rl.plots.tables import without_secrets

_MOST_GALLERIES = 8


@dataclass(frozen=True)
class WatchedBlock:
    """Reward against judges of a trial, with the sentence and the samples where hacking was seen."""

    watched: Watched
    sentence: str
    moments: list[Sample]


def render_page(sweep: Sweep, charts: AblationCharts, found: ArmsContest) -> str:
    """The report of a sweep as HTML."""
    return render("ablation.html.j2", gather(sweep, charts, found))


def gather(sweep: Sweep, charts: AblationCharts, found: ArmsContest) -> dict[str, Any]:
    """Everything that the template names."""
    columns = tables.arm_columns(sweep) if sweep.finished else []
    blocks = [_block(item) for item in charts.watched]
    return {
        "sweep": sweep,
        "charts": charts,
        "sentence": sentences.headline(sweep, found),
        "details": sentences.details(sweep, found),
        "status": sentences.status(sweep),
        "kind": kind(sweep),
        "facts": facts(sweep),
        "columns": columns,
        "arms": tables.arm_lines(sweep, columns),
        "references": tables.reference_lines(sweep, columns),
        "trials": tables.trial_lines(sweep, columns),
        "missing": [(trial.name, trial.status, tables.why(trial)) for trial in sweep.trials if not trial.is_finished],
        "distance_names": sweep.judge_names,
        "has_baselines": sentences.best_reference(sweep.references, FD_A, minimises=True) is not None,
        "samples": samples(sweep),
        "hacking": sentences.hacking_sentences(sweep),
        "hacked": [block for block in blocks if block.moments or block.watched.trial.hacking is not None],
        "clean": [block for block in blocks if block.watched.trial.hacking is None],
        "left_out": max(0, len(sweep.arms) - MOST_ARMS),
        "sweep_text": without_secrets(sweep.sweep_text),
    }


def kind(sweep: Sweep) -> str:
    """What was swept, in a few words."""
    seeds = len({trial.seed for trial in sweep.trials})
    words = [plural(len(sweep.arms), "arm"), plural(seeds, "seed"), plural(len(sweep.trials), "trial")]
    if sweep.varied:
        words.append(f"over {', '.join(sweep.varied)}")
    return ", ".join(words)


def facts(sweep: Sweep) -> list[Fact]:
    """Numbers at the head of the page."""
    found = []
    better = f"{sweep.metric_title}, {'lower' if sweep.minimises else 'higher'} is better"
    if sweep.continuous and sweep.ranked:
        best = sweep.ranked[0]
        found.append(Fact("Best trial", fixed(best.final[sweep.metric]), "", f"{best.name}; {better}", "policy"))
    else:
        for name, arm in zip(("Best arm", "Next"), sweep.shown_arms[:2], strict=False):
            values = sweep.values(arm, sweep.metric)
            spread = f"± {fixed(float(values.std(ddof=1)))}" if len(values) > 1 else ""
            remark = f"{arm}; {better}" if name == "Best arm" else arm
            mean = fixed(float(values.mean()))
            found.append(Fact(name, mean, spread, remark, "policy" if name == "Best arm" else ""))
    rival = sentences.best_reference(sweep.references, sweep.metric, minimises=sweep.minimises)
    if rival is not None:
        value = rival["summary"][sweep.metric]
        found.append(Fact("Best baseline", fixed(value["mean"]), f"± {fixed(value['sd'])}", rival["title"], "rival"))
    done, count = len(sweep.finished), len(sweep.trials)
    seconds = sum(trial.train_seconds or 0.0 for trial in sweep.trials)
    remark = f"{duration(seconds)} of training, one after the other" if seconds else ""
    found.append(Fact("Trials", str(done) if done == count else f"{done} of {count}", "finished", remark))
    hacked = [trial for trial in sweep.trials if trial.hacking is not None]
    of_arms = ", ".join(dict.fromkeys(trial.arm for trial in hacked))
    found.append(Fact("Reward hacking", str(len(hacked)), plural(len(hacked), "trial").split()[1], of_arms))
    return found


def samples(sweep: Sweep) -> list[Sample]:
    """Galleries of the same contexts and seeds: one an arm, or the best, the middle and the worst of many settings."""
    chosen: Sequence[tuple[str, Trial]]
    if sweep.continuous:
        order = [trial for trial in sweep.ranked if _has_gallery(trial)]
        places = {"Best": 0, "In the middle": (len(order) - 1) // 2, "Worst": len(order) - 1} if order else {}
        chosen = [(title, order[place]) for title, place in places.items()]
    else:
        chosen = []
        for arm in sweep.shown_arms[:_MOST_GALLERIES]:
            trials = [trial for trial in sweep.of(arm) if _has_gallery(trial)]
            if trials:
                chosen.append((arm, middle_trial(trials, lambda trial: trial.final.get(sweep.metric, 0.0))))
    return [_gallery_sample(title, trial, chosen[0][1]) for title, trial in chosen]


def _gallery_sample(title: str, trial: Trial, first: Trial) -> Sample:
    assert trial.run is not None  # looked for by the caller
    assert trial.run.gallery is not None
    names = trial.run.judge_names
    numbers = [
        f"{metric_title(key, names)} {fixed(trial.final[key])}" for key in (FD_A, "recall") if key in trial.final
    ]
    words = ", ".join([f"{trial.name}: {numbers[0]}", *numbers[1:]]) if numbers else trial.name
    if not _same_draws(trial, first):
        words += "; drawn for other contexts or seeds than the first"
    return Sample(title, words, pictures.gallery_picture(trial.run.gallery, f"samples of {title}, a class a column"))


def _has_gallery(trial: Trial) -> bool:
    return trial.run is not None and trial.run.gallery is not None


def _same_draws(trial: Trial, other: Trial) -> bool:
    ours, theirs = (item.run.gallery if item.run is not None else None for item in (trial, other))
    if ours is None or theirs is None:
        return False
    return np.array_equal(ours.context, theirs.context) and np.array_equal(ours.seeds, theirs.seeds)


def _block(item: Watched) -> WatchedBlock:
    run, hacking = item.trial.run, item.trial.hacking
    if run is None or hacking is None:
        return WatchedBlock(item, "", [])
    return WatchedBlock(item, hacking.describe(run.judge_names), moment_samples(run, hacking))
