"""The reward ablation of the README: the sweep that ships, its table and two of its pictures.

python -m benchmarks.reward_ablation             # about an hour on two cores; goes on where it stopped
python -m benchmarks.reward_ablation --run-dir DIR    # of a sweep that is there, without running it
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from adanat_rl.config.files import read_json_lines
from adanat_rl.config.metric_keys import UNIX_TIME
from adanat_rl.plots.ablation.report import write_ablation_report
from benchmarks.common import print_rows, write_result

ROOT = Path(__file__).parents[1]
SWEEP = ROOT / "tune_configs" / "reward_ablation.yaml"
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


def wall_seconds(folder: Path) -> float:
    """From the first row of any trial to the last thing written."""
    rows = [read_json_lines(path) for path in folder.glob("trials/*/metrics.jsonl")]
    first = min(trial[0][UNIX_TIME] for trial in rows)
    return (folder / "summary.csv").stat().st_mtime - first


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
    for name in ("ablation_samples", "ablation_precision_recall"):
        source = folder / "figures" / f"{name.removeprefix('ablation_')}.png"
        if source.exists():
            shutil.copyfile(source, FIGURES / f"{name}.png")
    content = {"command": "python -m benchmarks.reward_ablation", "wall_s": seconds, "sentence": sentence, "arms": arms}
    write_result("reward_ablation", content)
    rows = [
        [arm, *(f"{row[name]['mean']:.3f} ± {row[name]['sd']:.3f}" for name in METRICS if name in row)]
        for arm, row in arms.items()
    ]
    print_rows(sentence, ["arm", *METRICS], rows)


if __name__ == "__main__":
    main()
