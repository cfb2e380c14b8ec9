"""The reward ablation of the README: the sweep that ships, its table and two of its pictures.

python -m benchmarks.reward_ablation             # about an hour on two cores; goes on where it stopped
python -m benchmarks.reward_ablation --run-dir DIR    # of a sweep that is there, without running it
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from adanat_rl.config.files import read_json_lines
from adanat_rl.config.metric_keys import UNIX_TIME
from adanat_rl.generation.pipeline import load_pipeline
from adanat_rl.plots.ablation.report import write_ablation_report
from benchmarks.common import print_rows, write_result

ROOT = Path(__file__).parents[1]
SWEEP = ROOT / "tune_configs" / "reward_ablation.yaml"
PER_CLASS = 8
FIGURES = ROOT / "docs" / "figures"
METRICS = ("own_reward", "fd_a", "fd_b", "precision", "recall", "accuracy", "shuffled_fd_a")


def numbers_of(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Mean and sd of every metric over the seeds of an arm."""
    found: dict[str, dict[str, Any]] = {}
    for arm, rows in table.groupby("arm", sort=False):
        found[str(arm)] = {"seeds": len(rows), "hacked": int(rows["hacking_iteration"].notna().sum())}
        for name in METRICS:
            if name in rows:
                values = rows[name].tolist()
                found[str(arm)][name] = {"mean": rows[name].mean(), "sd": rows[name].std(ddof=1), "values": values}
    return found


def draw_samples(folder: Path, arms: Sequence[str]) -> None:
    """The same classes and random numbers under the first seed of every arm, side by side."""
    labels = np.repeat(np.arange(10), PER_CLASS)
    figure = Figure(figsize=(2.5 * len(arms), 3.1), facecolor="white", layout="constrained")
    for axes, arm in zip(figure.subplots(1, len(arms)), arms, strict=True):
        policy = next(folder.glob(f"trials/*-{arm}-seed0/policy"))
        images = load_pipeline(policy)(labels, np.arange(len(labels))).images[..., 0]
        rows = images.reshape(10, PER_CLASS, *images.shape[1:])
        framed = np.pad(rows, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=255)
        axes.imshow(framed.swapaxes(1, 2).reshape(10 * framed.shape[2], -1), cmap="gray")
        axes.set_axis_off()
        axes.set_title(arm.replace("_", " "), fontsize=9, loc="left")
    figure.savefig(FIGURES / "ablation_samples.png", dpi=150, metadata={"Software": None})


def wall_seconds(folder: Path) -> float:
    """From the first row of any trial to the end of the last one."""
    rows = [read_json_lines(path) for path in folder.glob("trials/*/metrics.jsonl")]
    first = min(trial[0][UNIX_TIME] for trial in rows)
    return max(path.stat().st_mtime for path in folder.glob("trials/*/summary.json")) - first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, help="a finished sweep; nothing is run")
    folder = parser.parse_args().run_dir
    if folder is None:
        folder = Path(__file__).parent / "out" / "reward_ablation"
        command = [sys.executable, "-m", "adanat_rl.sweep", str(SWEEP), "--run-dir", str(folder)]
        subprocess.run(command, check=True)
    seconds = wall_seconds(folder)
    sentence = write_ablation_report(folder).sentence
    arms = numbers_of(pd.read_csv(folder / "summary.csv"))
    draw_samples(folder, list(arms))
    shutil.copyfile(folder / "figures" / "precision_recall.png", FIGURES / "ablation_precision_recall.png")
    content = {"command": "python -m benchmarks.reward_ablation", "wall_s": seconds, "sentence": sentence, "arms": arms}
    write_result("reward_ablation", content)
    rows = [
        [arm, *(f"{row[name]['mean']:.3f} ± {row[name]['sd']:.3f}" for name in METRICS if name in row)]
        for arm, row in arms.items()
    ]
    print_rows(sentence, ["arm", *METRICS], rows)


if __name__ == "__main__":
    main()
