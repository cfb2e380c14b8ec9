"""Sweep folders made of invented numbers: arms that win, lose or are hacked, as far as a sweep has come."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.plots.runs import comparison, make_run, row

_INTERVAL, _TOTAL = 10, 60


@dataclass(frozen=True)
class Arm:
    """What the trials of an arm come to.

    Args:
        fd_a: final, of each seed. recall, precision: final mean. hacked: whether recall collapses while the reward
            rises. settings: what sets the arm apart.
    """

    fd_a: tuple[float, ...]
    recall: float = 0.85
    precision: float = 0.8
    hacked: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


REWARDS = {
    "adversarial": Arm((0.17, 0.19, 0.18, 0.175, 0.185), settings={"reward.kind": "adversarial"}),
    "fid_group": Arm((0.26, 0.28, 0.27, 0.29, 0.25), recall=0.82, settings={"reward.kind": "fid"}),
    "classifier": Arm((0.55, 0.60, 0.52, 0.58, 0.57), recall=0.41, precision=0.93, hacked=True),
    "fid_leave_one_out": Arm((0.22, 0.21, 0.23, 0.20, 0.24), precision=0.71),
}


def make_sweep(
    path: Path,
    arms: dict[str, Arm] | None = None,
    *,
    states: dict[str, tuple[str, str | None]] | None = None,
    side: int = 8,
    title: str = "Which reward?",
) -> Path:
    """A sweep folder with a trial for each arm and seed.

    Args:
        states: status and reason of trials that are not finished, by name.
    """
    arms = REWARDS if arms is None else arms
    trials = []
    for name, arm in arms.items():
        for seed, distance in enumerate(arm.fd_a):
            trials.append((f"{len(trials):03d}_{name}_seed{seed}", name, seed, arm, distance, arm.settings))
    write_sweep(path, title, list(arms), [], trials, states or {}, side)
    return path


def make_search(path: Path, count: int = 24) -> Path:
    """A sweep over two continuous parameters and a word: FD A depends on the first, a little on the word."""
    generator = np.random.default_rng(0)
    trials = []
    for number in range(count):
        rate, smoothing = float(10 ** generator.uniform(-5, -3)), float(generator.uniform(0, 0.9))
        kind = ("critic", "group_relative")[number % 2]
        distance = 0.2 + 0.05 * (np.log10(rate) + 3.5) ** 2 + 0.01 * (number % 2) + 0.002 * generator.normal()
        settings = {"ppo.lr": rate, "decisions.smoothing": smoothing, "ppo.advantage": kind}
        arm = Arm((float(distance),))
        trials.append((f"{number:03d}_all_seed0", "all", 0, arm, float(distance), settings))
    keys = ["ppo.lr", "decisions.smoothing", "ppo.advantage"]
    write_sweep(path, "", ["all"], keys, trials, {"003_all_seed0": ("stopped", None)}, 8)
    return path


def write_sweep(
    path: Path,
    title: str,
    arms: list[str],
    parameters: list[str],
    trials: list[tuple[str, str, int, Arm, float, dict[str, Any]]],
    states: dict[str, tuple[str, str | None]],
    side: int,
) -> None:
    """Writes trials.json, sweep.yaml and the run folders."""
    entries = []
    for number, (name, arm_name, seed, arm, distance, settings) in enumerate(trials):
        status, reason = states.get(name, ("finished", None))
        if status != "pending":
            make_trial(path / "trials" / name, arm, seed, distance, status, side)
        entries.append(
            {
                "name": name, "number": number, "arm": arm_name, "seed": seed, "settings": settings,
                "status": status, "reason": reason, "folder": f"trials/{name}",
            }
        )  # fmt: skip
    path.mkdir(parents=True, exist_ok=True)
    content = {
        "name": path.name, "title": title, "arms": arms, "parameters": parameters, "metric": "fd_a",
        "direction": "min", "trials": entries,
    }  # fmt: skip
    (path / "trials.json").write_text(json.dumps(content))
    (path / "sweep.yaml").write_text(f"name: {path.name}\npreset: digits\n")


def make_trial(path: Path, arm: Arm, seed: int, distance: float, status: str, side: int) -> None:
    """A run folder whose metrics end where its final numbers are; one that is not finished is half-way."""
    is_finished = status == "finished"
    done = _TOTAL if is_finished else _TOTAL // 2
    folder = make_run(
        path,
        iterations=done,
        total=_TOTAL,
        interval=_INTERVAL,
        compared=final_comparison(arm, seed, distance) if is_finished else None,
        finished=is_finished,
        side=side,
        overrides=(f"seed={seed}",),
    )
    generator = np.random.default_rng([seed, round(1e6 * distance)])
    rows = [json.loads(line) for line in folder.metrics_file.read_text().splitlines()]
    for item in rows:
        share = item["iteration"] / _TOTAL
        if "reward/mean" in item:
            item["reward/mean"] = (0.3 + 0.6 * share if arm.hacked else 0.45 - 0.05 * share) + generator.normal(0, 0.01)
        if "eval/fd_a" in item:
            course = share**2 if arm.hacked else 1 - (1 - share) ** 2
            item["eval/fd_a"] = 0.3 + (distance - 0.3) * course
            item["eval/fd_b"] = 0.9 * item["eval/fd_a"]
            item["eval/precision"] = 0.78 + (arm.precision - 0.78) * share
            item["eval/recall"] = 0.86 + (arm.recall - 0.86) * course
    folder.metrics_file.write_text("".join(json.dumps(item) + "\n" for item in rows))


def final_comparison(arm: Arm, seed: int, distance: float) -> dict[str, Any]:
    """A comparison of two evaluation seeds whose means are the arm's numbers, by seed a little apart."""
    compared = comparison([distance - 0.01, distance + 0.01], [0.23, 0.25], verdict="The policy is adaptive.")
    compared["rows"].append(
        row("hand_made_t4", "baseline", [0.33, 0.35], title="hand-made, T = 4", how="best of a grid")
    )
    numbers = {"recall": arm.recall + 0.002 * seed, "precision": arm.precision - 0.001 * seed, "fd_b": 0.9 * distance}
    for name, value in numbers.items():
        compared["rows"][0]["summary"][name] = {"mean": value, "sd": 0.0}
    for index, item in enumerate(compared["rows"][2:]):
        item["summary"]["recall"]["mean"] = 0.83 + 0.01 * index
        item["summary"]["precision"]["mean"] = 0.79 - 0.01 * index
        item["summary"]["fd_b"]["mean"] = 0.3 + 0.02 * index
    return compared
