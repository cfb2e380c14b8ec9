"""The reference numbers of a small data set: searched and learned baselines, and policies over several training seeds.

    python -m benchmarks.reference_numbers                 # digits: about 2 hours on two cores
    python -m benchmarks.reference_numbers --data mnist    # both go on where they stopped
    python -m benchmarks.reference_numbers --trainings 1   # fewer trainings: what is there is reported

Writes `adanat_rl/assets/DATA/reference.json`, which every report compares with, and `results/quality.json` (mnist:
`quality_mnist.json`). Searches minimise FD A, which compares with validation images; the numbers are those of the
panel, which compares with test images, on evaluation seeds that no search and no training has seen. All policies are
judged on the same seeds, so that each verdict is over trainings × seeds, paired.
"""

from __future__ import annotations

import argparse
import itertools
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
from adanat_rl.evaluation.build import build_judge
from adanat_rl.evaluation.comparison import CONTROL_TITLES, Row, compare
from adanat_rl.evaluation.controls import Control, judge_adaptivity
from adanat_rl.evaluation.evaluator import NAT_PASSES, Evaluation, Evaluator
from adanat_rl.evaluation.fronts import Front
from adanat_rl.evaluation.judge import FD_A
from adanat_rl.evaluation.panel.verdict import PanelVerdict, panel_verdict
from adanat_rl.evaluation.reference import Baseline, References, dump_references
from adanat_rl.evaluation.searches import DEFAULT_AXES, Axis, GridSearch, search_static_schedule
from adanat_rl.experiment.build import build_scene
from adanat_rl.generation.masked.schedules import hand_made_schedule
from adanat_rl.generation.pipeline import GenerationPipeline, load_pipeline
from adanat_rl.generation.policies.base import SchedulePolicy
from benchmarks.common import print_rows, write_result

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
# The schedules of a front: factors on the best schedule's temperatures, and guidance scales
FRONT_CONFIDENCE = (0.25, 0.5, 1.0, 2.0)
FRONT_SAMPLING = (0.75, 0.85, 1.0, 1.15)
FRONT_GUIDANCE = (0.0, 0.25, 0.5, 1.0, 2.0)
FRONT_SEEDS = 2
FRONTS = (
    ("precision_pixels", "recall_pixels"),
    ("density_pixels", "coverage_pixels"),
    ("precision_gradients", "recall_gradients"),
    ("density_gradients", "coverage_gradients"),
)
# Of the panel, in tables
SHOWN = (
    ("fd_pixels", "FD pixels"),
    ("fd_gradients", "FD gradients"),
    ("precision_pixels", "precision"),
    ("recall_pixels", "recall"),
    ("coverage_pixels", "coverage"),
    ("class_accuracy", "class accuracy"),
)


@dataclass(frozen=True)
class Plan:
    """What is searched, trained and judged for a data set.

    Args:
        data: name of preset and data set. title: for people. result: name of the file in `results/`.
        kinds: of policies that are trained. num_trainings: of each kind. evaluation_seeds: of all reported numbers.
        search_seeds: of grid and CMA-ES; never used for reporting.
        axes: of the grid. static_horizon: of the searched static schedule. num_generations: of its search.
        quicker: settings while searching and training that save time; judging goes without them.
        controls: whether the controls of the adaptive policies are judged too.
    """

    data: str
    title: str
    result: str
    kinds: tuple[str, ...]
    evaluation_seeds: range
    search_seeds: range
    num_trainings: int = 5
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

    def evaluator(self, horizon: int = 4, *overrides: str) -> Evaluator:
        """The evaluator for a horizon, one thread: two of these processes share two cores."""
        settings = [f"generator.horizon={horizon}", "resources.driver_threads=1", *overrides]
        return build_scene(resolve(self.data, overrides=settings)).evaluator


PLANS = {
    "digits": Plan(
        "digits",
        "Digits",
        "quality",
        ("adaptive", "per_class", "static"),
        evaluation_seeds=range(10_000, 10_005),
        search_seeds=range(1, 9),
        axes=(
            Axis("curve_power", (1.0, 1.33, 1.78)),
            # Beyond 67 nothing is left to find: the order is as good as random.
            Axis("confidence_temperature", (4.5, 11.0, 27.0, 67.0), num_widenings=0),
            Axis("sampling_temperature", (0.8, 0.9, 1.0)),
            Axis("guidance_scale", (0.25, 0.5, 1.0), least=0.0),
        ),
    ),
    "mnist": Plan(
        "mnist",
        "MNIST",
        "quality_mnist",
        ("adaptive",),
        evaluation_seeds=range(10_000, 10_005),
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


def front(plan: Plan, horizon: int) -> dict[str, Any]:
    """Hand-made schedules around the best one, from bold to timid: what each comes to by the panel."""
    best = read(plan, f"grid_{horizon}")["settings"]
    judged, rows = plan.evaluator(horizon), []
    for confidence, sampling, guidance in itertools.product(FRONT_CONFIDENCE, FRONT_SAMPLING, FRONT_GUIDANCE):
        settings = {
            "curve_power": best["curve_power"],
            "confidence_temperature": best["confidence_temperature"] * confidence,
            "sampling_temperature": best["sampling_temperature"] * sampling,
            "guidance_scale": guidance,
        }
        policy = SchedulePolicy(torch.from_numpy(hand_made_schedule(horizon, **settings)).float())
        found = judged.evaluate(policy, plan.evaluation_seeds[:FRONT_SEEDS])
        rows.append({"settings": settings, **{key: found.mean(key) for pair in FRONTS for key in pair}})
    return {"points": rows}


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
    """Numbers of a baseline on the evaluation seeds."""
    baseline = makers(plan)[name]()
    return numbers_of(plan.evaluator(baseline.horizon).evaluate(baseline.policy, plan.evaluation_seeds))


def judge_trained(plan: Plan, kind: str, seed: int) -> dict[str, Any]:
    """Numbers of what a training has left, on the same seeds."""
    policy = trained_pipeline(plan, f"{kind}_{seed}").policy
    return numbers_of(plan.evaluator().evaluate(policy, plan.evaluation_seeds))


def numbers_of(evaluation: Evaluation) -> dict[str, Any]:
    """For a file: a number a seed by metric, and those of parts of the images by value of the panel."""
    return {"metrics": evaluation.metrics, "replicates": evaluation.replicates}


def judge_controls(plan: Plan) -> dict[str, Any]:
    """The decisions of the adaptive policies dealt to other images, and one verdict from all pairs."""
    judged = plan.evaluator()
    compared = [
        compare(judged, trained_pipeline(plan, f"adaptive_{seed}").policy, "", (), plan.evaluation_seeds)
        for seed in finished_trainings(plan, "adaptive")
    ]
    rows = {name: [by_name(one.rows)[name].evaluation for one in compared] for name in ("policy", *Control)}
    paired = (
        [value for one in rows[name] for value in one.metrics[FD_A]]
        for name in ("policy", Control.SHUFFLED_WITHIN_CLASS, Control.SHUFFLED)
    )
    summaries = {str(name): summary([numbers_of(one) for one in found]) for name, found in rows.items()}
    return {**summaries, "verdict": asdict(judge_adaptivity(*paired))}


def by_name(rows: Sequence[Row]) -> dict[str, Row]:
    return {row.name: row for row in rows}


def summary(judged: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean, spread and values by metric: over the trainings, or over the evaluation seeds of a single policy."""
    found = {}
    for name in judged[0]["metrics"]:
        numbers = [one["metrics"][name] for one in judged]
        values = [float(np.mean(row)) for row in numbers] if len(numbers) > 1 else numbers[0]
        found[name] = {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)), "values": values}
    return found


STAGES: dict[str, Callable[..., dict[str, Any]]] = {
    "grid": grid,
    "static_search": static_search,
    "front": front,
    "train": train,
    "judge": judge,
    "judge_trained": judge_trained,
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
    tables = {
        f"{kind}_ppo": partial(learned, plan, kind, titles[kind]) for kind in titles if finished_trainings(plan, kind)
    }
    return {**found, **tables}


def finished_trainings(plan: Plan, kind: str) -> list[int]:
    """Seeds of the trainings of a kind that were judged."""
    return [seed for seed in range(plan.num_trainings) if path_of(plan, f"judged_{kind}_{seed}").exists()]


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
    runs = {seed: read(plan, f"{kind}_{seed}") for seed in finished_trainings(plan, kind)}
    best = min(runs, key=lambda seed: runs[seed]["distance"])
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


def compute(plan: Plan, num_processes: int, num_trainings: int) -> None:
    """All stages, several at once; the horizon of the static search first, as its chain is the longest."""
    horizons = sorted((4, 8), key=lambda horizon: horizon != plan.static_horizon)
    chains: list[list[Stage]] = [[(f"grid_{horizon}", "grid", horizon)] for horizon in horizons]
    chains[0] += [("static_search", "static_search"), judging("static_search")]
    for chain, horizon in zip(chains, horizons, strict=True):
        chain.append(judging(f"hand_made_t{horizon}"))
    for seed in range(num_trainings):
        for kind in plan.kinds:
            name = f"{kind}_{seed}"
            chains.append([(name, "train", kind, seed), (f"judged_{name}", "judge_trained", kind, seed)])
    chains += [[(f"front_{horizon}", "front", horizon)] for horizon in (4, 8)]
    run_chains(plan, chains, num_processes)
    judged: list[list[Stage]] = [[judging(name)] for name in makers(plan)]
    judged += (
        [[("judged_controls", "judge_controls")]] if plan.controls and finished_trainings(plan, "adaptive") else []
    )
    run_chains(plan, judged, num_processes)


def judging(name: str) -> Stage:
    """The stage that judges a baseline."""
    return (f"judged_{name}", "judge", name)


# --- reporting


def decisions_of(pipeline: GenerationPipeline, per_class: bool) -> np.ndarray:
    """What a table policy decides: `[T, K]`, or `[C, T, K]`."""
    labels = np.arange(pipeline.generator.context_spec.num_contexts)
    decisions = pipeline(labels).decisions
    return decisions if per_class else decisions[0]


def report(plan: Plan) -> None:
    """Writes both files out of what was judged."""
    judged = {
        kind: [read(plan, f"judged_{kind}_{seed}") for seed in finished_trainings(plan, kind)] for kind in plan.kinds
    }
    judged = {kind: found for kind, found in judged.items() if found}
    trained = {kind: {"training_seeds": len(found), **summary(found)} for kind, found in judged.items()}
    rivals = {name: read(plan, f"judged_{name}") for name in makers(plan)}
    rows = [with_numbers(make(), summary([rivals[name]])) for name, make in makers(plan).items()]
    references = References(plan.data, plan.command, tuple(rows), trained)
    write_atomically(assets_folder() / plan.data / "reference.json", dump_references(references))
    controls = read(plan, "judged_controls") if path_of(plan, "judged_controls").exists() else {}
    values = build_judge(resolve(plan.data)).values
    verdicts = {
        kind: {name: told(panel_verdict(values, *paired(found, rival))) for name, rival in rivals.items()}
        for kind, found in judged.items()
    }
    write_result(
        plan.result,
        {
            "command": plan.command,
            "num_images": resolve(plan.data).evaluation.num_images,
            "evaluation_seeds": list(plan.evaluation_seeds),
            "titles": {value.key: value.title for value in values},
            "trained": trained,
            "verdicts": verdicts,
            "leads": {kind: leads(plan, found) for kind, found in judged.items()},
            **({"controls": controls} if controls else {}),
            "baselines": {row.name: row.numbers for row in rows},
            "grids": {horizon: read(plan, f"grid_{horizon}") for horizon in (4, 8)},
            "static_search": {key: read(plan, "static_search")[key] for key in ("distance", "num_evaluated")},
        },
    )
    shown: list[tuple[str, Mapping[str, Any]]]
    shown = [(f"{kind}, {len(judged[kind])} training seeds", trained[kind]) for kind in judged]
    shown += [(CONTROL_TITLES[control], controls[control.value]) for control in Control if controls]
    shown += [(row.title, row.numbers) for row in rows]
    print_rows(
        f"{plan.title}: mean ± sd over trainings, or over {len(plan.evaluation_seeds)} evaluation seeds of one policy",
        ["policy", *(title for _, title in SHOWN), "passes"],
        [[title, *cells(numbers)] for title, numbers in shown],
    )
    for kind, found in verdicts.items():
        for name, verdict in found.items():
            print(f"{kind} against {name}: {verdict['sentence']}")
    if controls:
        print(controls["verdict"]["sentence"])


def paired(
    ours: Sequence[Mapping[str, Any]], theirs: Mapping[str, Any]
) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]:
    """Numbers `[R, S]` of the trainings and `[1, S]` of a rival by value of the panel, on the same images."""
    keys = theirs["replicates"]
    return (
        {key: np.array([one["replicates"][key] for one in ours]) for key in keys},
        {key: np.array([theirs["replicates"][key]]) for key in keys},
    )


def told(verdict: PanelVerdict) -> dict[str, Any]:
    """The sentence, and how many values come to which finding."""
    found = {row.value.key: row.finding.value for row in verdict.rows}
    return {"sentence": verdict.sentence, "findings": found}


def leads(plan: Plan, judged: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """How far the policies lie outside the fronts of hand-made schedules, by horizon of those and by pair of values."""
    found: dict[str, dict[str, Any]] = {}
    for horizon in (4, 8):
        if not path_of(plan, f"front_{horizon}").exists():
            continue
        points = read(plan, f"front_{horizon}")["points"]
        for pair in FRONTS:
            hand_made_front = Front.of([[point[key] for key in pair] for point in points])
            values = [
                hand_made_front.lead([float(np.mean(one["metrics"][key][:FRONT_SEEDS])) for key in pair])
                for one in judged
            ]
            sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            found.setdefault(str(horizon), {})[" and ".join(pair)] = {
                "mean": float(np.mean(values)),
                "sd": sd,
                "values": values,
            }
    return found


def cells(numbers: Mapping[str, Any]) -> list[str]:
    """One row of the table."""
    spread = [f"{numbers[name]['mean']:.3f} ± {numbers[name]['sd']:.3f}" for name, _ in SHOWN]
    return [*spread, f"{numbers[NAT_PASSES]['mean']:.1f}"]


def with_numbers(baseline: Baseline, numbers: dict[str, Any]) -> Baseline:
    """The baseline with its published numbers."""
    return Baseline(baseline.name, baseline.title, baseline.how, baseline.decisions, baseline.settings, numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=PLANS, default="digits", help="data set and preset")
    parser.add_argument("--processes", type=int, default=2, help="stages at once")
    parser.add_argument("--trainings", type=int, help="training seeds of each kind; without it all of the plan")
    parser.add_argument("--stage", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    plan = PLANS[arguments.data]
    torch.set_num_threads(1)
    if arguments.stage:
        name, stage, *values = arguments.stage
        write_atomically(path_of(plan, name), json.dumps(STAGES[stage](plan, *map(json.loads, values))))
        return
    compute(plan, arguments.processes, plan.num_trainings if arguments.trainings is None else arguments.trainings)
    report(plan)


if __name__ == "__main__":
    main()
