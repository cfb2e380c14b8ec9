"""The reference numbers of the digits: searched and learned baselines, and the policy over five training seeds.

    python -m benchmarks.reference_numbers            # about 2 hours on two cores; goes on where it stopped

Writes `adanat_rl/assets/digits/reference.json`, which every report compares with, and `results/quality.json`. Every
search and training minimises or follows what it may; the numbers come from evaluation seeds that none of them has seen,
in five groups of ten: group k judges training seed k, and every schedule is judged by all five groups.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adanat_rl.config.files import write_atomically
from adanat_rl.config.loading import resolve
from adanat_rl.config.paths import assets_folder
from adanat_rl.evaluation.evaluator import NAT_PASSES, Evaluator
from adanat_rl.evaluation.judge import ACCURACY, FD_A, FD_B, PRECISION, RECALL
from adanat_rl.evaluation.reference import Baseline, References, dump_references
from adanat_rl.evaluation.searches import GridSearch, search_static_schedule
from adanat_rl.experiment.build import build_scene
from adanat_rl.generation.masked.schedules import hand_made_schedule
from adanat_rl.generation.pipeline import GenerationPipeline, load_pipeline
from benchmarks.common import print_rows, write_result

OUT = Path(__file__).parent / "out" / "reference"
TRAINING_SEEDS = range(5)
KINDS = ("adaptive", "per_class", "static")
EVALUATION_SEEDS_PER_GROUP = 10
SEARCH_SEEDS = range(1, 9)  # of grid and CMA-ES; never used for reporting
# Learning rate of tables; the networks' is too small for them. On the search seeds, with seed 0 and the base schedule
# decisions.base.guidance_scale=2 decisions.base.confidence_temperature=4.5, the rates 0.003, 0.01, 0.03 and 0.1 gave FD
# A .245, .230, .215, .219 (static) and .235, .204, .203, .208 (per class).
TABLE_RATE = 0.03
IN_PROCESS = (
    "resources.num_env_runners=0",
    "resources.num_reward_actors=0",
    "resources.driver_threads=1",
    "evaluation.reference=null",
    "evaluation.interval_iterations=1000",
    "evaluation.num_seeds=2",
    "tracking.enabled=false",
)
METRICS = (FD_A, FD_B, PRECISION, RECALL, ACCURACY, NAT_PASSES)


def group_seeds(group: int) -> list[int]:
    """Evaluation seeds of a group."""
    first = 10_000 + 100 * group
    return list(range(first, first + EVALUATION_SEEDS_PER_GROUP))


def evaluator(horizon: int = 4) -> Evaluator:
    """The digits' evaluator for a horizon, one thread: two of these processes share two cores."""
    return build_scene(resolve(overrides=[f"generator.horizon={horizon}", "resources.driver_threads=1"])).evaluator


# --- stages; each is a process of its own and leaves one JSON file


def grid(horizon: int) -> dict[str, Any]:
    """The best hand-made schedule of a horizon."""
    result = GridSearch(evaluator(horizon), SEARCH_SEEDS).run()
    return {
        "settings": result.settings,
        "schedule": result.schedule.tolist(),
        "distance": result.distance,
        "axes": {axis.name: axis.values for axis in result.axes},
        "num_evaluated": result.num_evaluated,
        "on_edge": result.on_edge,
    }


def static_search() -> dict[str, Any]:
    """The best static schedule by CMA-ES from the best hand-made one."""
    start = np.array(read("grid_4")["schedule"])
    result = search_static_schedule(evaluator(), start, SEARCH_SEEDS)
    return {
        "schedule": result.schedule.tolist(),
        "distance": result.distance,
        "num_evaluated": result.num_evaluated,
    }


def train(kind: str, seed: int) -> dict[str, Any]:
    """A training; returns the distance on the search seeds."""
    folder = OUT / "runs" / f"{kind}_{seed}"
    rate = [] if kind == "adaptive" else [f"ppo.lr={TABLE_RATE}"]
    arguments = [*IN_PROCESS, f"policy.kind={kind}", f"seed={seed}", *rate]
    command = [sys.executable, "-m", "adanat_rl.train", *arguments, "--run-dir", str(folder), "--quiet"]
    subprocess.run(command, check=True)
    pipeline = load_pipeline(folder)
    judged = evaluator()
    distances = [judged.distance(pipeline.policy, seed) for seed in SEARCH_SEEDS]
    return {"folder": str(folder), "distance": float(np.mean(distances))}


def judge(name: str) -> dict[str, Any]:
    """Mean and sd over the groups; of trained policies the k-th is judged by group k, a single one by all of them."""
    if name in KINDS:
        judged = evaluator()
        policies = [load_pipeline(read(f"{name}_{seed}")["folder"]).policy for seed in TRAINING_SEEDS]
    else:
        baseline = baselines()[name]
        judged = evaluator(baseline.horizon)
        policies = [baseline.policy] * len(TRAINING_SEEDS)
    groups = [judged.evaluate(policy, group_seeds(group)) for group, policy in enumerate(policies)]
    values = {metric: [group.mean(metric) for group in groups] for metric in METRICS}
    return {
        metric: {"mean": float(np.mean(numbers)), "sd": float(np.std(numbers, ddof=1)), "values": numbers}
        for metric, numbers in values.items()
    }


STAGES: dict[str, Callable[..., dict[str, Any]]] = {
    "grid": grid,
    "static_search": static_search,
    "train": train,
    "judge": judge,
}


# --- what is judged


def baselines() -> dict[str, Baseline]:
    """The schedules and tables that ship, without numbers."""
    rows = [hand_made(4), hand_made(8), searched()]
    rows += [learned(kind, title) for kind, title in (("static", "static"), ("per_class", "per class"))]
    return {row.name: row for row in rows}


def hand_made(horizon: int) -> Baseline:
    """The best of the grid."""
    found = read(f"grid_{horizon}")
    how = f"best of {found['num_evaluated']} cosine schedules: curve power, both temperatures, guidance"
    schedule = hand_made_schedule(horizon, **found["settings"])
    title = f"hand-made, T = {horizon}, best of grid"
    return Baseline(f"hand_made_t{horizon}", title, how, schedule, found["settings"])


def searched() -> Baseline:
    """The best static schedule of the search."""
    found = read("static_search")
    how = f"CMA-ES over all {4 * 4 - 2} values with an effect, {found['num_evaluated']} schedules tried"
    return Baseline("static_search", "static, T = 4, searched", how, np.array(found["schedule"]))


def learned(kind: str, title: str) -> Baseline:
    """The table of the best training seed."""
    runs = [read(f"{kind}_{seed}") for seed in TRAINING_SEEDS]
    best = min(runs, key=lambda run: run["distance"])
    how = f"the same PPO, learning rate {TABLE_RATE:g}, best of {len(runs)} training seeds"
    decisions = decisions_of(load_pipeline(best["folder"]), kind == "per_class")
    return Baseline(f"{kind}_ppo", f"{title}, T = 4, learned by PPO", how, decisions)


# --- orchestration


def path_of(name: str) -> Path:
    return OUT / f"{name}.json"


def read(name: str) -> dict[str, Any]:
    return json.loads(path_of(name).read_text())


def run_stage(name: str, stage: str, *arguments: Any) -> None:
    """Runs a stage in a process, unless its result is there."""
    if path_of(name).exists():
        return
    command = [
        sys.executable,
        "-m",
        "benchmarks.reference_numbers",
        "--stage",
        name,
        stage,
        *map(json.dumps, arguments),
    ]
    subprocess.run(command, check=True)
    print(f"done: {name}", flush=True)


def run_all(stages: Sequence[tuple[Any, ...]], num_processes: int) -> None:
    with ThreadPoolExecutor(num_processes) as pool:
        for future in [pool.submit(run_stage, *stage) for stage in stages]:
            future.result()


def compute(num_processes: int) -> None:
    """All stages, several at once."""
    first: list[tuple[Any, ...]] = [("grid_8", "grid", 8), ("grid_4", "grid", 4)]
    first += [(f"{kind}_{seed}", "train", kind, seed) for kind in KINDS for seed in TRAINING_SEEDS]
    run_all(first, num_processes)
    run_all([("static_search", "static_search")], num_processes)
    run_all([(f"judged_{name}", "judge", name) for name in (*KINDS, *baselines())], num_processes)


# --- reporting


def decisions_of(pipeline: GenerationPipeline, per_class: bool) -> np.ndarray:
    """What a table policy decides: `[T, K]`, or `[C, T, K]`."""
    labels = np.arange(pipeline.generator.context_spec.num_contexts)
    decisions = pipeline(labels).decisions
    return decisions if per_class else decisions[0]


def report() -> None:
    """Writes both files out of what was judged."""
    trained = {kind: {"training_seeds": len(TRAINING_SEEDS), **read(f"judged_{kind}")} for kind in KINDS}
    rows = [with_numbers(row, read(f"judged_{row.name}")) for row in baselines().values()]
    command = "python -m benchmarks.reference_numbers"
    references = References("digits", command, tuple(rows), trained)
    write_atomically(assets_folder() / "digits" / "reference.json", dump_references(references))
    write_result(
        "quality",
        {
            "command": command,
            "num_images": resolve().evaluation.num_images,
            "evaluation_seeds": [group_seeds(group) for group in TRAINING_SEEDS],
            "trained": trained,
            "baselines": {row.name: row.numbers for row in rows},
            "grids": {horizon: read(f"grid_{horizon}") for horizon in (4, 8)},
            "static_search": {key: read("static_search")[key] for key in ("distance", "num_evaluated")},
        },
    )
    shown = [(f"{kind}, {len(TRAINING_SEEDS)} training seeds", trained[kind]) for kind in KINDS]
    shown += [(row.title, row.numbers) for row in rows]
    print_rows(
        "Digits: mean ± sd over five groups of ten evaluation seeds",
        ["policy", "FD A", "FD B", "precision", "recall", "accuracy", "passes"],
        [[title, *cells(numbers)] for title, numbers in shown],
    )


def cells(numbers: Mapping[str, Any]) -> list[str]:
    """One row of the table."""
    spread = [f"{numbers[name]['mean']:.3f} ± {numbers[name]['sd']:.3f}" for name in METRICS[:-1]]
    return [*spread, f"{numbers[NAT_PASSES]['mean']:.1f}"]


def with_numbers(baseline: Baseline, numbers: dict[str, Any]) -> Baseline:
    """The baseline with its published numbers."""
    return Baseline(baseline.name, baseline.title, baseline.how, baseline.decisions, baseline.settings, numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2, help="stages at once")
    parser.add_argument("--stage", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.stage:
        name, stage, *values = arguments.stage
        write_atomically(path_of(name), json.dumps(STAGES[stage](*map(json.loads, values))))
        return
    compute(arguments.processes)
    report()


if __name__ == "__main__":
    main()
