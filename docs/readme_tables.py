"""Tables of README and pages out of benchmarks/results, between `<!-- NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from adanat_rl.evaluation.verdicts import contest
from adanat_rl.plots.ablation.sentences import about_others, told

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
_TRAINED = {
    "adaptive": "**adaptive policy, T = 4**, mean of 5 trainings",
    "per_class": "per-class table, T = 4, same PPO, mean of 5 trainings",
    "static": "static schedule, T = 4, same PPO, mean of 5 trainings",
}
_BASELINES = {
    "static_search": "static schedule, T = 4, CMA-ES over all its values",
    "hand_made_t4": "hand-made, T = 4, best of a grid",
    "hand_made_t8": "hand-made, T = 8, best of a grid",
}
_COLUMNS = ("fd_a", "fd_b", "precision", "recall")


def with_tables(text: str) -> str:
    """The text with every marked table made anew."""

    def replace(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", replace, text, flags=re.DOTALL)


def result(name: str) -> dict[str, Any]:
    """What a measurement wrote."""
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return content


def quality() -> str:
    """Policies and baselines on unseen evaluation seeds."""
    numbers = result("quality")
    lines = ["| policy | FD A ↓ | FD B ↓ | precision ↑ | recall ↑ | NAT passes |", "|---|---|---|---|---|---|"]
    rows = [(title, numbers["trained"][name]) for name, title in _TRAINED.items()]
    rows += [(title, numbers["baselines"][name]) for name, title in _BASELINES.items()]
    lines += [quality_row(title, row) for title, row in rows]
    return "\n".join(lines)


def quality_row(title: str, row: Mapping[str, Any]) -> str:
    """One line of the table."""
    cells = [f"{row[name]['mean']:.3f} ± {row[name]['sd']:.3f}" for name in _COLUMNS]
    return f"| {title} | {' | '.join(cells)} | {row['nat_passes_per_image']['mean']:.1f} |"


def measurements() -> str:
    """Speed and size."""
    startup, demo, resume = result("startup"), result("demo"), result("resume")
    overhead, scaling, traffic = result("overhead"), result("scaling"), result("traffic")
    rows = [
        ("`make demo` after the installation", f"{demo['seconds'] / 60:.1f} min", "6 min", "demo"),
        ("`import adanat_rl`", f"{startup['seconds']['import adanat_rl']:.2f} s", "0.5 s", "startup"),
        ("`adanat-rl --help`", f"{startup['seconds']['adanat-rl --help']:.2f} s", "1 s", "startup"),
    ]
    for count, row in overhead["iterations"].items():
        name = f"iteration on Ray in one process ÷ plain PyTorch loop, {int(count):,} trajectories"
        rows.append((name, f"{row['ratio']:.2f}", f"{overhead['limit']}", "overhead"))
    for count, row in scaling["sampling"].items():
        name = f"sampling speed, 2 env runners ÷ 1, {int(count):,} trajectories"
        rows.append((name, f"{row['ratio']:.2f}", f"≥ {scaling['limit']}", "scaling"))
    rows.append(
        ("bytes per trajectory between processes", f"{traffic['total']:,.0f}", f"{traffic['limit']:,}", "traffic")
    )
    kills = sum(entry.startswith("killed") for entry in resume["kills"])
    verdict = "equal bits" if all(resume["equal"].values()) else "NOT equal"
    rows.append(
        (
            f"killed {kills} × with `kill -9` and resumed, against never killed",
            verdict,
            "equal bits",
            "resume",
        )
    )
    sweeps = result("sweeps")
    ratio, limits = sweeps["trials_per_time"], sweeps["limits"]
    rows.append(
        (
            "two trials of a sweep at once ÷ in turn, trials per time",
            f"{ratio:.2f}",
            f"≥ {limits['trials_per_time']}",
            "sweeps",
        )
    )
    added = "time that Tune, MLflow and checkpoints add to a trial"
    rows.append((added, f"{sweeps['added']:.0%}", f"{limits['added']:.0%}", "sweeps"))
    kills = sum(entry.startswith("killed") for entry in sweeps["kills"])
    verdict = "equal bits" if all(sweeps["equal"].values()) else "NOT equal"
    rows.append((f"sweep killed {kills} × and resumed, against never killed", verdict, "equal bits", "sweeps"))
    lines = ["| what | measured | limit | `python -m benchmarks.…` |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(row[:3])} | `{row[3]}` |" for row in rows])


def full_scale() -> str:
    """Speed and memory at AdaNAT-L."""
    latency, memory = result("latency"), result("memory")
    rows = []
    for horizon, row in latency["horizons"].items():
        passes, limit = row["passes"], latency["limits"].get(horizon)
        rows.append((f"NAT passes of a guided image, T = {horizon}", str(passes["ours"]), "2T - 2", "latency"))
        name = f"CPU time of an image ÷ plain loop of {passes['plain']} passes, T = {horizon}"
        pairs = row["ratio_of_pairs"]
        spread = f"{row['ratio']:.2f} ({pairs['least']:.2f} to {pairs['largest']:.2f})"
        rows.append((name, spread, f"{limit:.2f}" if limit else "", "latency"))
    learner, worker = memory["learner"], memory["worker"]
    counts = list(learner["updates"])
    name = f"learner, {int(counts[1]):,} trajectories against {counts[0]}: more memory at the peak, beyond tokens"
    limit = f"{memory['limits']['learner_beyond_tokens_mb']:.0f} MiB"
    rows.append((name, f"{max(0.0, learner['beyond_tokens_mb']):.0f} MiB", limit, "memory"))
    read = f"{worker['second']['read_from_disk_mb']:.0f} of {worker['weights_mb']:,.0f} MiB"
    rows.append(("weights that a machine's second worker reads from the disk", read, "none", "memory"))
    lines = ["| what | measured | limit | `python -m benchmarks.…` |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(row[:3])} | `{row[3]}` |" for row in rows])


def mnist() -> str:
    """Trainings on MNIST, their controls and what they are compared with; the policy that ships."""
    numbers, shipped = result("quality_mnist"), result("mnist")
    trained, controls, baselines = (numbers[name] for name in ("trained", "controls", "baselines"))
    row_of = {row["name"]: row["summary"] for row in shipped["rows"]}
    rows = [
        ("**adaptive policy, T = 4**, mean of 5 trainings", trained["adaptive"]),
        ("their decisions, given to other images", controls["shuffled_over_all"]),
        ("their decisions, given to others of the class", controls["shuffled_within_class"]),
        ("their mean decisions as a schedule, T = 4", controls["mean_as_schedule"]),
        ("hand-made, T = 4, best of a grid", baselines["hand_made_t4"]),
        ("hand-made, T = 8, best of a grid", baselines["hand_made_t8"]),
        ("static schedule, T = 8, CMA-ES over all its values", baselines["static_search"]),
        (f"the policy that ships (± over {len(shipped['seeds'])} evaluation seeds)", row_of["policy"]),
        ("the schedule that training starts from, T = 4 (the same)", row_of["base_schedule"]),
        ("hand-made, T = 8, best of a grid (the same)", row_of["hand_made_t8"]),
    ]
    lines = ["| policy | FD A ↓ | FD B ↓ | precision ↑ | recall ↑ | NAT passes |", "|---|---|---|---|---|---|"]
    demo = result("demo_mnist")
    note = (
        f"`make demo-mnist`: {demo['iterations']} iterations in {demo['train_seconds'] / 60:.1f} minutes on two cores."
    )
    return "\n".join([*lines, *(quality_row(title, row) for title, row in rows), "", note])


def probes() -> str:
    """What the probe says of both small data sets."""
    parts = []
    for dataset, one in result("probe")["probes"].items():
        how = f"{one['num_images']} images, {one['num_repeats']} finishes, {one['seconds'] / 60:.1f} minutes"
        lines = [f"- {sentence}" for sentence in one["sentences"]]
        head = f"**{dataset}**, from {one['start']} ({how}); reward: {one['reward']}."
        parts.append("\n".join([head, "", *lines]))
    return "\n\n".join(parts)


def ablation() -> str:
    """Rewards on digits: what each came to, by its own account and by the judges."""
    numbers = result("reward_ablation")
    columns = ("own_reward", "fd_a", "fd_b", "precision", "recall", "shuffled_fd_a")
    lines = [
        "| reward | own reward ↑ | FD A ↓ | FD B ↓ | precision ↑ | recall ↑ | FD A, shuffled | hacked |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, row in numbers["arms"].items():
        cells = [f"{row[name]['mean']:.3f} ± {row[name]['sd']:.3f}" for name in columns]
        lines.append(f"| `{arm}` | {' | '.join(cells)} | {row['hacked']} of {row['seeds']} |")
    minutes = numbers["wall_s"] / 60
    note = f"Mean ± sd over the seeds; {minutes:.0f} minutes on two cores (`{numbers['command']}`)."
    values = {arm: row["fd_b"]["values"] for arm, row in numbers["arms"].items()}
    found = contest(values, minimises=True)
    return "\n".join([*lines, "", note, "", " ".join([told(found, "FD B", "below"), *about_others(found)])])


def verdicts() -> str:
    """How often simulated sweeps name a winner: among equal arms, and where there is one."""
    numbers = result("verdicts")
    seeds = [str(count) for count in numbers["seeds"]]
    lines = [
        f"| simulated | noise | {' | '.join(f'{count} seeds' for count in seeds)} |",
        f"|---|---|{'---|' * len(seeds)}",
    ]
    for row in numbers["wrong"]:
        if row["arms"] <= 3:
            spread = "equal spread" if row["sds"][0] == row["sds"][1] else "spread 0.009 and 0.025"
            cells = [f"{row[count]['winner']:.1%}" for count in seeds]
            lines.append(f"| {row['arms']} equal arms, {spread} | {row['noise']} | {' | '.join(cells)} |")
    names = {"fd_a": "FD A", "fd_b": "FD B"}
    for row in numbers["found"]:
        if row["noise"] == "normal":
            what = f"one of {row['arms']} arms better by {row['planted']:.4f} of {names[row['metric']]}"
            cells = [f"{row[count]:.0%}" for count in seeds]
            lines.append(f"| {what}, spread {row['sd']:.4f} ({row['spread']}) | normal | {' | '.join(cells)} |")
    return "\n".join(lines)


def trials() -> str:
    """One iteration of each preset at full network size; load: that of the machine meanwhile, where it was noted."""
    lines = [
        "| preset | steps | train, evaluate, report | rollout, 4 images | decode, score | learn | NAT passes | load |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for preset, row in result("full_scale")["presets"].items():
        numbers = (row["time/sample_s"], row["time/score_s"], row["time/learn_s"])
        cells = [f"{row['horizon']}", f"{row['train_s'] / 60:.1f} min", *(f"{value:.0f} s" for value in numbers)]
        load = f"{row['load_average']:.0f}" if "load_average" in row else ""
        lines.append(f"| `{preset}` | {' | '.join(cells)} | {row['rollout/nat_passes_per_image']:.0f} | {load} |")
    return "\n".join(lines)


def defects() -> str:
    """Who sees which planted defect."""
    measured = result("panel_defects")
    words = {"worse": "seen", "better": "likes it", "level": "·", "undecided": "?"}
    findings = {name: found for name, found in measured["findings"].items() if name != "none"}
    lines = [f"| value | {' | '.join(findings)} |", f"|---|{'---|' * len(findings)}"]
    for key, title in measured["titles"].items():
        lines.append(f"| {title} | {' | '.join(words[found[key]] for found in findings.values())} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "defects": defects,
    "quality": quality,
    "measurements": measurements,
    "full_scale": full_scale,
    "mnist": mnist,
    "probes": probes,
    "ablation": ablation,
    "trials": trials,
    "verdicts": verdicts,
}
