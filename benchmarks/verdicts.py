"""How often the verdict of a sweep is wrong, and how often it finds what is there: simulated sweeps.

    python -m benchmarks.verdicts            # 2,000 sweeps of each kind, half a minute

Two equal arms must not get a winner in more than 5 % of the sweeps. The planted difference is half of what the
hand-made schedule of 8 steps is better than that of 4 steps on digits; the spread over seeds is that of trained
policies.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from adanat_rl.evaluation.verdicts import ALPHA, MARGIN, contest
from benchmarks.common import print_rows, write_result

RESULTS = Path(__file__).parent / "results"
SEEDS = (2, 3, 5, 8, 10)
NUM_SWEEPS = 2000
# Hand-made schedules of 4 and of 8 steps, digits (README)
HAND_MADE = {"fd_a": (0.266, 0.213), "fd_b": (0.220, 0.184)}
NOISES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "heavy tails": lambda random, shape: random.standard_t(3, shape) / 3**0.5,
    "skewed": lambda random, shape: (random.lognormal(0, 0.6, shape) - np.exp(0.18)) / 0.79,
}


def sweeps(
    means: list[float], sds: list[float], seeds: int, noise: str, count: int, margin: float, random: np.random.Generator
) -> list[Any]:
    """Verdicts of simulated sweeps, arms numbered in the order of `means`."""
    draws = NOISES[noise](random, (count, len(means), seeds))
    values = np.array(means)[:, None] + np.array(sds)[:, None] * draws
    names = [str(arm) for arm in range(len(means))]
    return [contest(dict(zip(names, sweep, strict=True)), minimises=True, margin=margin) for sweep in values]


def measured_spread(metric: str) -> dict[str, float]:
    """Standard deviation over training seeds: of long trainings, and of an arm of the shipped ablation."""
    long = json.loads((RESULTS / "quality.json").read_text())["trained"]["adaptive"][metric]["sd"]
    arm = json.loads((RESULTS / "reward_ablation.json").read_text())["arms"]["adversarial"][metric]["sd"]
    return {"trainings of README": long, "arm of reward_ablation.yaml": arm}


def simulate(count: int, seeds: tuple[int, ...] = SEEDS, margin: float = MARGIN) -> dict[str, Any]:
    """Shares of the sweeps: wrong winners among equal arms, planted differences found, level said of equal arms."""
    random = np.random.default_rng(12)
    wrong, found = [], []
    for noise in NOISES:
        for sds, arms in (([0.015] * 2, 2), ([0.009, 0.025], 2), ([0.015] * 3, 3), ([0.015] * 5, 5)):
            row: dict[str, Any] = {"noise": noise, "arms": arms, "sds": sds[:2]}
            for size in seeds:
                verdicts = sweeps([0.2] * arms, sds, size, noise, count, margin, random)
                row[str(size)] = {
                    "winner": float(np.mean([verdict.winner is not None for verdict in verdicts])),
                    "any_pair": float(np.mean([bool(verdict.surely_better) for verdict in verdicts])),
                    "level": float(np.mean([bool(verdict.level) for verdict in verdicts])),
                }
            wrong.append(row)
    for metric, (worse, better) in HAND_MADE.items():
        gap = (worse - better) / 2
        for source, sd in measured_spread(metric).items():
            for noise in NOISES:
                for arms in (2, 4):
                    means = [worse - gap] + [worse] * (arms - 1)
                    row = {"metric": metric, "spread": source, "sd": sd, "planted": gap, "noise": noise, "arms": arms}
                    for size in seeds:
                        verdicts = sweeps(means, [sd] * arms, size, noise, count, margin, random)
                        row[str(size)] = float(np.mean([verdict.winner == "0" for verdict in verdicts]))
                    found.append(row)
    return {"margin": margin, "alpha": ALPHA, "sweeps": count, "seeds": list(seeds), "wrong": wrong, "found": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=NUM_SWEEPS)
    parser.add_argument("--margin", type=float, default=MARGIN)
    arguments = parser.parse_args()
    content = simulate(arguments.sweeps, margin=arguments.margin)
    if (arguments.sweeps, arguments.margin) == (NUM_SWEEPS, MARGIN):
        write_result("verdicts", {"command": "python -m benchmarks.verdicts", **content})
    seeds = [str(size) for size in content["seeds"]]
    rows = [
        [row["noise"], str(row["arms"]), "/".join(map(str, row["sds"])), *(f"{row[s]['winner']:.1%}" for s in seeds)]
        for row in content["wrong"]
    ]
    print_rows("Equal arms: a winner is named in", ["noise", "arms", "sd", *(f"{s} seeds" for s in seeds)], rows)
    rows = [
        [
            row["metric"],
            row["spread"],
            f"{row['sd']:.4f}",
            row["noise"],
            str(row["arms"]),
            *(f"{row[s]:.0%}" for s in seeds),
        ]
        for row in content["found"]
    ]
    print_rows(
        "A planted difference is found in", ["judge", "spread over seeds of", "sd", "noise", "arms", *seeds], rows
    )


if __name__ == "__main__":
    main()
