"""One real iteration of the full-scale presets at full network size on this machine, with weights from a seed.

python -m benchmarks.full_scale --images FOLDER --class-names FILE.json --captions FILE.tsv [PRESET ...]

For each preset: inputs are prepared (statistics, captions), a run is trained for one iteration with few trajectories,
evaluated, exported and reported, and then gone on with for a second one. Numbers of presets that are not named stay
in the results as they are.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adanat_rl.config.loading import resolve
from adanat_rl.config.schema import ExperimentConfig
from benchmarks.common import RESULTS, print_rows, write_result
from benchmarks.trial_inputs import write_inputs

PRESETS = ("imagenet256", "imagenet512", "coco", "cc3m", "adagen_maskgit", "amused256", "amused512")
MEASURED = (
    "time/sample_s",
    "time/score_s",
    "time/learn_s",
    "time/reward_update_s",
    "time/evaluation_s",
    "rollout/nat_passes_per_image",
)
FEW = (  # of everything, but of the networks
    "training.num_iterations=1",
    "training.trajectories_per_iteration=4",
    "training.shard_size=2",
    "ppo.micro_batch_size=8",
    "reward.adversarial.batch_size=4",
    "reward.adversarial.num_updates=1",
    "evaluation.num_images=4",
    "evaluation.num_final_images=4",
    "evaluation.num_seeds=1",
    "evaluation.batch_size=2",
    "evaluation.num_grid_contexts=1",
    "evaluation.keep_pieces=false",
    "generator.block_rows=2",
    "generator.decode_rows=2",
    "checkpoints.keep=2",
    "resources.num_env_runners=1",
    "resources.num_reward_actors=1",
    "resources.num_learners=0",
    "resources.num_gpus_per_env_runner=0",
    "resources.num_gpus_per_reward_actor=0",
    "resources.num_gpus_per_learner=0",
    "resources.num_gpus_per_driver=0",
    "resources.num_cpus_per_env_runner=0.4",
    "resources.num_cpus_per_reward_actor=0.2",
    "resources.start_timeout_s=600",
    "resources.shard_timeout_s=3600",
    "resources.reward_timeout_s=3600",
    "generator.precision=float32",
    "ppo.precision=float32",
    "tracking.enabled=false",
)


def data_settings(preset: str, images: Path, class_names: Path, captions: Path) -> list[str]:
    """Where the real images and captions are."""
    if preset.startswith(("imagenet", "adagen")):
        return [f"data.path={images}", f"data.class_names={class_names}"]
    return ["data.name=cc3m_tsv", "data.captions=null", f"data.path={captions}", "data.index_folder=index"]


def trial(
    preset: str, settings: Sequence[str], root: Path, *, small: bool = False, resume: bool = True
) -> dict[str, Any]:
    """Runs one preset in a folder; returns its times.

    Args:
        small: networks of the same classes, but small: for tests.
        resume: whether the run is gone on with for a second iteration.
    """
    config: ExperimentConfig = resolve(preset, overrides=settings)
    times: dict[str, Any] = {"horizon": config.generator.horizon}
    times["weights_s"] = _timed(lambda: write_inputs(config, root, small=small))
    common = ["--preset", preset, *settings]
    prepared = root / f"{preset}-prepared"
    statistics = root / str(config.data.statistics)
    wanted = [] if statistics.exists() else ["--statistics"]
    captions = config.generator.captions
    wanted += ["--captions"] if captions is not None and not (root / captions).exists() else []
    if wanted:
        command = ["prepare", *common, *wanted, "--run-dir", str(prepared), "--batch-size", "8", "--quiet"]
        times["prepare_s"] = _timed(lambda: _run(root, *command))
    times["train_s"] = _timed(lambda: _run(root, "train", *common, "--run-dir", f"runs/{preset}", "--quiet"))
    if resume:
        resumed = [*common, "training.num_iterations=2"]
        times["resume_s"] = _timed(lambda: _run(root, "train", *resumed, "--run-dir", f"runs/{preset}", "--quiet"))
    run = root / "runs" / preset
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    _run(root, "audit", "--run-dir", str(run))
    times["iterations"] = [row["iteration"] for row in rows]
    for name in MEASURED:
        times[name] = next((row[name] for row in reversed(rows) if name in row), None)
    times["report_kb"] = round((run / "report.html").stat().st_size / 1024)
    times["policy_mb"] = round((run / "policy" / "policy.safetensors").stat().st_size / 2**20, 1)
    times["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, 1)
    return times


def _timed(call: Any) -> float:
    start = time.perf_counter()
    call()
    return round(time.perf_counter() - start, 1)


def _run(root: Path, command: str, *arguments: str) -> None:
    module = command.replace("-", "_")
    result = subprocess.run(
        [sys.executable, "-m", f"adanat_rl.{module}", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise SystemExit(f"{command} {' '.join(arguments)}\n{result.stdout[-2000:]}{result.stderr[-3000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=list(PRESETS), help="which presets (default: all)")
    parser.add_argument("--images", type=Path, required=True, help="folder of class folders")
    parser.add_argument("--class-names", type=Path, required=True, help="JSON {folder: name} of 1,000 classes")
    parser.add_argument("--captions", type=Path, required=True, help=".tsv of CC3M with images")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work here and leave everything, to look at it")
    parser.add_argument("--settings", nargs="*", default=[], metavar="KEY=VALUE", help="further settings")
    parser.add_argument("--no-resume", action="store_true", help="leave out the second iteration")
    arguments = parser.parse_args()
    for name in ("images", "class_names", "captions"):
        setattr(arguments, name, getattr(arguments, name).resolve())
    root = arguments.keep.resolve() if arguments.keep else Path(tempfile.mkdtemp(prefix="adanat-full-scale-"))
    results = earlier_results()
    try:
        for preset in arguments.presets:
            data = data_settings(preset, arguments.images, arguments.class_names, arguments.captions)
            settings = [*FEW, *data, *arguments.settings]
            numbers = trial(preset, settings, root, resume=not arguments.no_resume)
            about = {"measured_on": datetime.date.today().isoformat(), "settings": arguments.settings}
            about["load_average"] = round(os.getloadavg()[2], 1)  # of 15 minutes: who else was at work on this machine
            results = in_order({**results, preset: {**about, **numbers}})
            print(f"{preset}: {numbers}", flush=True)
            write_result("full_scale", {"settings": list(FEW), "presets": results})
    finally:
        if not arguments.keep:
            shutil.rmtree(root, ignore_errors=True)
    columns = ("train_s", *MEASURED)
    rows = [[preset, *(numbers.get(name) for name in columns)] for preset, numbers in results.items()]
    print_rows("one iteration at full size", ["preset", *columns], rows)


def earlier_results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Numbers by preset that were measured before; each says when, and with which further settings."""
    file = folder / "full_scale.json"
    if not file.is_file():
        return {}
    content = json.loads(file.read_text())
    about = {"measured_on": content["measured_on"], "settings": content["settings"][len(FEW) :]}
    return {preset: {**about, **numbers} for preset, numbers in content["presets"].items()}


def in_order(results: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Numbers by preset in the order of `PRESETS`."""
    return {preset: results[preset] for preset in (*PRESETS, *results) if preset in results}


if __name__ == "__main__":
    main()
