"""The reference numbers of a small data set: searched and learned baselines, and the policy over five training seeds.

    python -m benchmarks.reference_numbers                 # digits: about 2 hours on two cores
    python -m benchmarks.reference_numbers --data mnist    # both go on where they stopped

Writes `adanat_rl/assets/DATA/reference.json`, which every report compares with, and `results/quality.json` (mnist:
`quality_mnist.json`). Every search and training minimises or follows what it may; the numbers come from evaluation
seeds that none of them has seen, in five groups: group k judges training seed k, and every schedule is judged by all
five groups.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adanat_rl.config.files import write_atomically
from adanat_rl.config.loading import resolve
from adanat_rl.config.paths import assets_folder
from adanat_rl.evaluation.comparison import CONTROL_TITLES, Row, compare
from adanat_rl.evaluation.controls import Control, judge_adaptivity
from adanat_rl.evaluation.evaluator import NAT_PASSES, Evaluation, Evaluator
from adanat_rl.evaluation.judge import ACCURACY, FD_A, FD_B, PRECISION, RECALL
from adanat_rl.evaluation.reference import Baseline, References, dump_references
from adanat_rl.evaluation.searches import DEFAULT_AXES, Axis, GridSearch, search_static_schedule
from adanat_rl.experiment.build import build_scene
from adanat_rl.generation.masked.schedules import hand_made_schedule
from adanat_rl.generation.pipeline import GenerationPipeline, load_pipeline
from benchmarks.common import print_rows, write_result

TRAINING_SEEDS = range(5)
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


@dataclass(frozen=True)
class Plan:
    """What is searched, trained and judged for a data set.

    Args:
        data: name of preset and data set. title: for people. result: name of the file in `results/`.
        kinds: of policies that are trained. seeds_per_group: evaluation seeds of a group.
        search_seeds: of grid and CMA-ES; never used for reporting.
        axes: of the grid. static_horizon: of the searched static schedule. num_generations: of its search.
        quicker: settings while searching and training that save time; judging goes without them.
        controls: whether the controls of the adaptive policies are judged too.
    """

    data: str
    title: str
    result: str
    kinds: tuple[str, ...]
    seeds_per_group: int
    search_seeds: range
    axes: tuple[Axis, ...] = DEFAULT_AXES
    static_horizon: int = 4
    num_generations: int = 60
    quicker: tuple[str, ...] = ()
    controls: bool = False

    @property
    def out(self) -> Path:
        """Folder of finished stages."""
        name = "reference" if self.data == "digits" else f"reference_{self.data}"
        return Path(__file__).parent / "out" / name

    @property
    def command(self) -> str:
        """Makes everything again."""
        return "python -m benchmarks.reference_numbers" + ("" if self.data == "digits" else f" --data {self.data}")

    def group_seeds(self, group: int) -> list[int]:
        """Evaluation seeds of a group."""
        first = 10_000 + 100 * group
        return list(range(first, first + self.seeds_per_group))

    def evaluator(self, horizon: int = 4, *overrides: str) -> Evaluator:
        """The evaluator for a horizon, one thread: two of these processes share two cores."""
        settings = [f"generator.horizon={horizon}", "resources.driver_threads=1", *overrides]
        return build_scene(resolve(self.data, overrides=settings)).evaluator


PLANS = {
    "digits": Plan("digits", "Digits", "quality", ("adaptive", "per_class", "static"), 10, range(1, 9)),
    "mnist": Plan(
        "mnist",
        "MNIST",
        "quality_mnist",
        ("adaptive",),
        seeds_per_group=3,
        search_seeds=range(1, 4),
        axes=(
            Axis("curve_power", (0.75, 1.0, 1.33)),
            Axis("confidence_temperature", (10.0, 20.0, 40.0)),
            Axis("sampling_temperature", (1.0, 1.15, 1.3)),
            Axis("guidance_scale", (0.3, 0.6, 1.2), least=0.0),
        ),
        static_horizon=8,
        num_generations=20,
        quicker=("generator.precision=bfloat16", "evaluation.num_images=400"),
        controls=True,
    ),
}


# --- stages; each is a process of its own and leaves one JSON file


def grid(plan: Plan, horizon: int) -> dict[str, Any]:
    """The best hand-made schedule of a horizon."""
    result = GridSearch(plan.evaluator(horizon, *plan.quicker), plan.search_seeds).run(plan.axes)
    return {
        "settings": result.settings,
        "schedule": result.schedule.tolist(),
        "distance": result.distance,
        "axes": {axis.name: axis.values for axis in result.axes},
        "num_evaluated": result.num_evaluated,
        "on_edge": result.on_edge,
    }


def static_search(plan: Plan) -> dict[str, Any]:
    """The best static schedule by CMA-ES from the best hand-made one."""
    horizon = plan.static_horizon
    start = np.array(read(plan, f"grid_{horizon}")["schedule"])
    searched = plan.evaluator(horizon, *plan.quicker)
    result = search_static_schedule(searched, start, plan.search_seeds, num_generations=plan.num_generations)
    return {
        "schedule": result.schedule.tolist(),
        "distance": result.distance,
        "num_evaluated": result.num_evaluated,
    }


def train(plan: Plan, kind: str, seed: int) -> dict[str, Any]:
    """A training; returns the distance on the search seeds."""
    folder = plan.out / "runs" / f"{kind}_{seed}"
    rate = [] if kind == "adaptive" else [f"ppo.lr={TABLE_RATE}"]
    arguments = ["--preset", plan.data, *IN_PROCESS, *plan.quicker, f"policy.kind={kind}", f"seed={seed}", *rate]
    command = [sys.executable, "-m", "adanat_rl.train", *arguments, "--run-dir", str(folder), "--quiet"]
    subprocess.run(command, check=True)
    pipeline = load_pipeline(folder)
    judged = plan.evaluator(4, *plan.quicker)
    distances = [judged.distance(pipeline.policy, seed) for seed in plan.search_seeds]
    return {"folder": str(folder.relative_to(plan.out)), "distance": float(np.mean(distances))}


def trained_pipeline(plan: Plan, name: str) -> GenerationPipeline:
    """What a training has left."""
    return load_pipeline(plan.out / read(plan, name)["folder"])


def judge(plan: Plan, name: str) -> dict[str, Any]:
    """Mean and sd over the groups; of trained policies the k-th is judged by group k, a single one by all of them."""
    if name in plan.kinds:
        judged = plan.evaluator()
        policies = [trained_pipeline(plan, f"{name}_{seed}").policy for seed in TRAINING_SEEDS]
    else:
        baseline = makers(plan)[name]()
        judged = plan.evaluator(baseline.horizon)
        policies = [baseline.policy] * len(TRAINING_SEEDS)
    return over_groups([judged.evaluate(policy, plan.group_seeds(group)) for group, policy in enumerate(policies)])


def judge_controls(plan: Plan) -> dict[str, Any]:
    """The same of the adaptive policies' decisions, dealt to other images, and one verdict from all pairs."""
    judged = plan.evaluator()
    compared = [
        compare(judged, trained_pipeline(plan, f"adaptive_{seed}").policy, "", (), plan.group_seeds(seed))
        for seed in TRAINING_SEEDS
    ]
    rows = {name: [by_name(one.rows)[name].evaluation for one in compared] for name in ("policy", *Control)}
    paired = (
        [value for group in rows[name] for value in group.metrics[FD_A]]
        for name in ("policy", Control.SHUFFLED_WITHIN_CLASS, Control.SHUFFLED)
    )
    judged_rows = {str(name): over_groups(groups) for name, groups in rows.items()}
    return {**judged_rows, "verdict": asdict(judge_adaptivity(*paired))}


def by_name(rows: Sequence[Row]) -> dict[str, Row]:
    return {row.name: row for row in rows}


def over_groups(groups: Sequence[Evaluation]) -> dict[str, Any]:
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
    "judge_controls": judge_controls,
}


# --- what is judged


def makers(plan: Plan) -> dict[str, Callable[[], Baseline]]:
    """The schedules and tables that ship, by name, without numbers; each wants only the stages it is made of."""
    found: dict[str, Callable[[], Baseline]] = {
        "hand_made_t4": partial(hand_made, plan, 4),
        "hand_made_t8": partial(hand_made, plan, 8),
        "static_search": partial(searched, plan),
    }
    titles = {"static": "static", "per_class": "per class"}
    tables = {f"{kind}_ppo": partial(learned, plan, kind, titles[kind]) for kind in titles if kind in plan.kinds}
    return {**found, **tables}


def hand_made(plan: Plan, horizon: int) -> Baseline:
    """The best of the grid."""
    found = read(plan, f"grid_{horizon}")
    how = f"best of {found['num_evaluated']} cosine schedules: curve power, both temperatures, guidance"
    schedule = hand_made_schedule(horizon, **found["settings"])
    title = f"hand-made, T = {horizon}, best of grid"
    return Baseline(f"hand_made_t{horizon}", title, how, schedule, found["settings"])


def searched(plan: Plan) -> Baseline:
    """The best static schedule of the search."""
    found, horizon = read(plan, "static_search"), plan.static_horizon
    how = f"CMA-ES over all {4 * horizon - 2} values with an effect, {found['num_evaluated']} schedules tried"
    return Baseline("static_search", f"static, T = {horizon}, searched", how, np.array(found["schedule"]))


def learned(plan: Plan, kind: str, title: str) -> Baseline:
    """The table of the best training seed."""
    runs = [read(plan, f"{kind}_{seed}") for seed in TRAINING_SEEDS]
    best = min(TRAINING_SEEDS, key=lambda seed: runs[seed]["distance"])
    how = f"the same PPO, learning rate {TABLE_RATE:g}, best of {len(runs)} training seeds"
    decisions = decisions_of(trained_pipeline(plan, f"{kind}_{best}"), kind == "per_class")
    return Baseline(f"{kind}_ppo", f"{title}, T = 4, learned by PPO", how, decisions)


# --- orchestration


def path_of(plan: Plan, name: str) -> Path:
    return plan.out / f"{name}.json"


def read(plan: Plan, name: str) -> dict[str, Any]:
    return json.loads(path_of(plan, name).read_text())


def run_stage(plan: Plan, name: str, stage: str, *arguments: Any) -> None:
    """Runs a stage in a process, unless its result is there."""
    if path_of(plan, name).exists():
        return
    command = [
        sys.executable,
        "-m",
        "benchmarks.reference_numbers",
        "--data",
        plan.data,
        "--stage",
        name,
        stage,
        *map(json.dumps, arguments),
    ]
    subprocess.run(command, check=True)
    print(f"done: {name}", flush=True)


Stage = tuple[Any, ...]  # its name, its kind, its arguments


def run_chain(plan: Plan, chain: Sequence[Stage]) -> None:
    """One stage after the other: each may read what those before it have left."""
    for stage in chain:
        run_stage(plan, *stage)


def run_chains(plan: Plan, chains: Sequence[Sequence[Stage]], num_processes: int) -> None:
    """Several chains at once, the first ones first."""
    with ThreadPoolExecutor(num_processes) as pool:
        for future in [pool.submit(run_chain, plan, chain) for chain in chains]:
            future.result()


def compute(plan: Plan, num_processes: int) -> None:
    """All stages, several at once; the horizon of the static search first, as its chain is the longest."""
    horizons = sorted((4, 8), key=lambda horizon: horizon != plan.static_horizon)
    chains: list[list[Stage]] = [[(f"grid_{horizon}", "grid", horizon)] for horizon in horizons]
    chains[0] += [("static_search", "static_search"), judging("static_search")]
    for chain, horizon in zip(chains, horizons, strict=True):
        chain.append(judging(f"hand_made_t{horizon}"))
    trainings: list[list[Stage]] = [
        [(f"{kind}_{seed}", "train", kind, seed)] for kind in plan.kinds for seed in TRAINING_SEEDS
    ]
    run_chains(plan, chains + trainings, num_processes)
    judged: list[list[Stage]] = [[judging(name)] for name in (*plan.kinds, *makers(plan))]
    judged += [[("judged_controls", "judge_controls")]] if plan.controls else []
    run_chains(plan, judged, num_processes)


def judging(name: str) -> Stage:
    """The stage that judges a kind of trained policy or a baseline."""
    return (f"judged_{name}", "judge", name)


# --- reporting


def decisions_of(pipeline: GenerationPipeline, per_class: bool) -> np.ndarray:
    """What a table policy decides: `[T, K]`, or `[C, T, K]`."""
    labels = np.arange(pipeline.generator.context_spec.num_contexts)
    decisions = pipeline(labels).decisions
    return decisions if per_class else decisions[0]


def report(plan: Plan) -> None:
    """Writes both files out of what was judged."""
    trained = {kind: {"training_seeds": len(TRAINING_SEEDS), **read(plan, f"judged_{kind}")} for kind in plan.kinds}
    rows = [with_numbers(make(), read(plan, f"judged_{name}")) for name, make in makers(plan).items()]
    references = References(plan.data, plan.command, tuple(rows), trained)
    write_atomically(assets_folder() / plan.data / "reference.json", dump_references(references))
    controls = read(plan, "judged_controls") if plan.controls else {}
    write_result(
        plan.result,
        {
            "command": plan.command,
            "num_images": resolve(plan.data).evaluation.num_images,
            "evaluation_seeds": [plan.group_seeds(group) for group in TRAINING_SEEDS],
            "trained": trained,
            **({"controls": controls} if controls else {}),
            "baselines": {row.name: row.numbers for row in rows},
            "grids": {horizon: read(plan, f"grid_{horizon}") for horizon in (4, 8)},
            "static_search": {key: read(plan, "static_search")[key] for key in ("distance", "num_evaluated")},
        },
    )
    shown = [(f"{kind}, {len(TRAINING_SEEDS)} training seeds", trained[kind]) for kind in plan.kinds]
    shown += [(CONTROL_TITLES[control], controls[control.value]) for control in Control if controls]
    shown += [(row.title, row.numbers) for row in rows]
    print_rows(
        f"{plan.title}: mean ± sd over five groups of {plan.seeds_per_group} evaluation seeds",
        ["policy", "FD A", "FD B", "precision", "recall", "accuracy", "passes"],
        [[title, *cells(numbers)] for title, numbers in shown],
    )
    if controls:
        print(controls["verdict"]["sentence"])


def cells(numbers: Mapping[str, Any]) -> list[str]:
    """One row of the table."""
    spread = [f"{numbers[name]['mean']:.3f} ± {numbers[name]['sd']:.3f}" for name in METRICS[:-1]]
    return [*spread, f"{numbers[NAT_PASSES]['mean']:.1f}"]


def with_numbers(baseline: Baseline, numbers: dict[str, Any]) -> Baseline:
    """The baseline with its published numbers."""
    return Baseline(baseline.name, baseline.title, baseline.how, baseline.decisions, baseline.settings, numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=PLANS, default="digits", help="data set and preset")
    parser.add_argument("--processes", type=int, default=2, help="stages at once")
    parser.add_argument("--stage", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    plan = PLANS[arguments.data]
    torch.set_num_threads(1)
    if arguments.stage:
        name, stage, *values = arguments.stage
        write_atomically(path_of(plan, name), json.dumps(STAGES[stage](plan, *map(json.loads, values))))
        return
    compute(plan, arguments.processes)
    report(plan)


if __name__ == "__main__":
    main()
