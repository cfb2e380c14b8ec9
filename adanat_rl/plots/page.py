"""The page: what its template shows, gathered from a run and its charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adanat_rl.config.metric_keys import EVAL, ITERATION, TRAIN_SECONDS_TOTAL, TRAJECTORIES_TOTAL
from adanat_rl.evaluation.comparison import BASELINE, panel_sentences
from adanat_rl.evaluation.evaluator import NAT_PASSES
from adanat_rl.evaluation.hacking import Hacking
from adanat_rl.evaluation.judge import FD_A, FD_B, RECALL
from adanat_rl.evaluation.rewarded import rewarded_judges
from adanat_rl.plots import headline, judges, pictures, tables
from adanat_rl.plots.charts import Chart, Charts, baseline_levels
from adanat_rl.plots.numbers import duration, fixed, listed, plural, trimmed
from adanat_rl.plots.run_data import RunData
from adanat_rl.plots.theme import DARK, LIGHT, svg

_TEMPLATES = Path(__file__).parent / "templates"
_CLUSTER = (
    ("cluster/lost_env_runners", "env runners lost"),
    ("cluster/redealt_shards", "shards dealt again"),
    ("cluster/replaced_reward_actors", "reward actors replaced"),
    ("cluster/replaced_learners", "learners replaced"),
)


@dataclass(frozen=True)
class Fact:
    """A number at the head of the page: what, how much, its spread or unit, and a remark."""

    name: str
    value: str
    spread: str
    remark: str
    kind: str = ""


@dataclass(frozen=True)
class Sample:
    """A sample grid with its caption."""

    title: str
    remark: str
    picture: pictures.Picture


def render_page(run: RunData, charts: Charts) -> str:
    """The report as HTML."""
    return render("report.html.j2", gather(run, charts))


def render(template: str, content: Mapping[str, Any]) -> str:
    """A template with its content; texts are escaped, charts become inline SVG."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def inline(chart: Chart) -> Markup:
        return Markup(svg(chart.figure, chart.name, chart.alt))  # made by matplotlib, which escapes its texts

    environment.filters["svg"] = inline
    environment.filters["keep"] = keep_together
    return environment.get_template(template).render(light=LIGHT, dark=DARK, **content) + "\n"


def keep_together(text: str) -> str:
    """A text whose numbers are not torn from their signs at the end of a line."""
    for sign in (" ± ", " = "):
        text = text.replace(sign, f"\N{NO-BREAK SPACE}{sign.strip()}\N{NO-BREAK SPACE}")
    return text.replace("FD 0", "FD\N{NO-BREAK SPACE}0")


def gather(run: RunData, charts: Charts) -> dict[str, Any]:
    """Everything that the template names."""
    found = judges.hacking_of(run)
    return {
        "run": run,
        "charts": charts,
        "sentence": headline.headline(run),
        "adaptivity": headline.adaptivity(run),
        "details": headline.details(run),
        "status": status(run),
        "facts": facts(run),
        "kind": kind(run),
        "has_levels": bool(baseline_levels(run, FD_A)),
        "distance_names": run.judge_names,
        "paid_note": _paid_note(run),
        "columns": _columns(run),
        "groups": tables.comparison_groups(run.comparison["rows"], _columns(run)) if run.comparison else [],
        "panel": tables.panel_lines(run.comparison) if run.comparison else [],
        "panel_sentences": panel_sentences(run.comparison) if run.comparison else [],
        "seeds_note": headline.seeds_note(run.comparison) if run.comparison else "",
        "trainings": _trainings(run),
        "hacking": judges.hacking_sentence(run, found),
        "is_hacked": found is not None,
        "moments": moment_samples(run, found) if found is not None else [],
        "samples": samples(run),
        "strips": pictures.strips(run.samples) if len(run.samples) > 1 else [],
        "evaluated": {row[ITERATION]: fixed(row[EVAL + FD_A]) for row in run.evaluations},
        "cards": pictures.cards(run.gallery, run.decisions) if run.gallery and run.decisions else [],
        "settings": tables.changed_settings(run.config),
        "config_text": tables.without_secrets(run.config_text),
        "command": tables.command_again(run.environment.get("command") or []),
        "revision": str(run.environment.get("git_revision") or "").partition("+")[0],
        "has_changes": "+" in str(run.environment.get("git_revision") or ""),
        "machine": machine(run),
        "incidents": incidents(run),
        "policy_folder": run.path / "policy",
    }


def _paid_note(run: RunData) -> str:
    """Which distances are the reward of the run."""
    names = {FD_A: run.judge_names.short_a, FD_B: run.judge_names.short_b}
    rewarded = rewarded_judges(run.config)
    paid = [title for key, title in names.items() if key in rewarded]
    known = run.comparison["rows"][0]["summary"] if run.comparison else names
    left = [title for key, title in names.items() if key not in rewarded and key in known]
    if not paid:
        own = ":" in " ".join(run.config.reward.kinds)
        return "" if own else "None of their extractors is used as a reward."
    rest = f"the judge that remains is {listed(left)}" if left else "no other judge remains"
    also = ", with precision, recall and accuracy, which come from the same features" if FD_A in rewarded else ""
    return f"The run is paid in {listed(paid)}{also}: {rest}."


def kind(run: RunData) -> str:
    """What sort of run this is, in a few words."""
    config = run.config
    reward = config.reward.kind if config.reward.kind == "adversarial" else config.reward.kind.rpartition(":")[2]
    words = (
        f"{config.policy.kind.replace('_', ' ')} policy",
        f"{reward} reward",
        plural(config.generator.horizon, "step"),
    )
    return ", ".join((*words, f"seed {config.seed}"))


def _columns(run: RunData) -> list[tables.Column]:
    if run.comparison is not None:
        known = set(run.comparison["rows"][0]["summary"])
    else:
        known = {name for numbers in (run.references.trained.values() if run.references else ()) for name in numbers}
    return tables.comparison_columns(run.judge_names, known)


def _trainings(run: RunData) -> list[tables.Trainings]:
    if run.references is None:
        return []
    policy = run.comparison["rows"][0] if run.comparison is not None else None
    return tables.over_trainings(run.references.trained, run.config.policy.kind, policy, _columns(run))


def status(run: RunData) -> str:
    """What is to be known before reading on; empty for a finished run."""
    total = run.config.training.num_iterations
    if run.is_outdated:
        return (
            f"Training has gone on to iteration {run.iteration:,} of {total:,} since the comparison, the decisions and "
            f"the gallery below were made at iteration {run.compared_at:,}."
        )
    if run.is_of_best:
        return (
            f"The comparison, the decisions and the gallery are of iteration {run.compared_at:,}, the best evaluation "
            f"of {run.iteration:,} iterations (checkpoints.final is best)."
        )
    if run.comparison is None:
        done = f"{run.iteration:,} of {total:,} iterations are done"
        return f"This run is not finished: {done}. The report shows what there is."
    return ""


def facts(run: RunData) -> list[Fact]:
    """Numbers at the head of the page."""
    if run.comparison is not None:
        found = _compared_facts(run)
    else:
        found = []
        for name, row, kind in (("Now", run.evaluations[-1:], "policy"), ("Untrained", run.evaluations[:1], "")):
            if row and (kind == "" or row != run.evaluations[:1]):
                remark = f"{run.judge_names.short_a}, one seed, iteration {row[0][ITERATION]:,}"
                found.append(Fact(name, fixed(row[0][EVAL + FD_A]), "", remark, kind))
        if run.evaluations:
            passes = trimmed(run.evaluations[-1][EVAL + NAT_PASSES])
            found.append(
                Fact("Cost", passes, "NAT passes", f"per image, in {plural(run.config.generator.horizon, 'step')}")
            )
    total = run.config.training.num_iterations
    done = f"{run.iteration:,}" if run.iteration >= total else f"{run.iteration:,} of {total:,}"
    effort = [f"{run.total(TRAJECTORIES_TOTAL):,.0f} images"]
    if run.total(TRAIN_SECONDS_TOTAL):
        effort.append(duration(run.total(TRAIN_SECONDS_TOTAL)))
    found.append(Fact("Training", done, "iterations", ", ".join(effort)))
    return found


def _compared_facts(run: RunData) -> list[Fact]:
    assert run.comparison is not None  # the caller has looked
    policy = run.comparison["rows"][0]
    judge = next(iter(headline.judges_of(run)), FD_A)
    title = run.judge_names.short_b if judge == FD_B else run.judge_names.short_a
    best, base = headline.best_baseline(run.comparison, judge), headline.base_row(run.comparison)
    found = [_distance_fact("Learned policy", policy, judge, f"{title}, lower is better", "policy")]
    cost = f"per image, in {plural(policy['horizon'], 'step')}"
    if best is not None:
        count = sum(row["kind"] == BASELINE for row in run.comparison["rows"])
        found.append(
            _distance_fact(
                f"Best of {count} baselines" if count > 1 else "Baseline", best, judge, best["title"], "rival"
            )
        )
        cost += f"; best baseline: {trimmed(best['summary'][NAT_PASSES]['mean'])}"
    if base is not None and judge in base["summary"]:
        found.append(_distance_fact("Before training", base, judge, "the base schedule"))
    found.append(Fact("Cost", trimmed(policy["summary"][NAT_PASSES]["mean"]), "NAT passes", cost))
    return found


def _distance_fact(name: str, row: headline.Line, judge: str, remark: str, kind: str = "") -> Fact:
    value = row["summary"][judge]
    return Fact(name, fixed(value["mean"]), f"± {fixed(value['sd'])}", remark, kind)


def samples(run: RunData) -> list[Sample]:
    """The first and the last grid, from the same seeds."""
    if not run.samples:
        return []
    result = []
    for iteration in dict.fromkeys((min(run.samples), max(run.samples))):
        title = "Before training" if iteration == 0 else f"After {plural(iteration, 'iteration')}"
        result.append(_sample(run, iteration, title, [FD_A]))
    return result


def moment_samples(run: RunData, found: Hacking) -> list[Sample]:
    """The grid of the best evaluation beside that of the moment when hacking was seen, as far as they are there."""
    return [
        _sample(run, iteration, f"{title}, iteration {iteration:,}", [FD_A, RECALL])
        for title, iteration in judges.moments(run, found)
        if iteration in run.samples
    ]


def _sample(run: RunData, iteration: int, title: str, metrics: Sequence[str]) -> Sample:
    row = next((row for row in run.evaluations if row[ITERATION] == iteration), {})
    titles = {FD_A: run.judge_names.short_a, RECALL: "recall"}
    known = [f"{titles[metric]} {fixed(row[EVAL + metric])}" for metric in metrics if EVAL + metric in row]
    remark = f"{', '.join(known)}, one evaluation seed" if known else ""
    alt = f"Samples {title[0].lower()}{title[1:]}, one class a row"
    return Sample(title, remark, pictures.sample_picture(run.samples[iteration], alt))


def machine(run: RunData) -> list[tuple[str, str]]:
    """Where it ran: hardware, system, packages."""
    environment = run.environment
    rows = []
    if environment.get("processor"):
        parts = [str(environment["processor"])]
        if environment.get("num_cpus"):
            parts.append(f"{environment['num_cpus']} CPUs")
        if environment.get("memory_gb"):
            parts.append(f"{environment['memory_gb']} GB of memory")
        rows.append(("Hardware", ", ".join(parts)))
    if environment.get("platform"):
        rows.append(("System", str(environment["platform"])))
    packages = {"python": environment.get("python"), **environment.get("packages", {})}
    known = [f"{name} {version}" for name, version in packages.items() if version]
    if known:
        rows.append(("Packages", ", ".join(known)))
    return rows


def incidents(run: RunData) -> str:
    """What failed on the way and was made good, in one line; empty if nothing is known."""
    counts = [(run.total(key), text) for key, text in _CLUSTER if any(key in row for row in run.rows)]
    if not counts:
        return ""
    if not any(count for count, _ in counts):
        return "none; no worker was lost"
    return ", ".join(f"{count:.0f} {text}" for count, text in counts)
