"""The adaptivity probe of both small data sets from their base schedules: what docs/probe.md shows.

python -m benchmarks.probe      # about 15 minutes
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import seconds, write_result

SETTINGS = {"digits": (320, 8), "mnist": (160, 6)}
"""Images and finishes of each, by data set."""
GAINS = ("schedule", "per_class", "per_image", "features")


def probe(dataset: str, num_images: int, num_repeats: int) -> dict[str, Any]:
    """What the command finds, without what only its figures need."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "probe.json"
        options = ["--num-images", str(num_images), "--num-repeats", str(num_repeats), "--output", str(output)]
        command = [sys.executable, "-m", "adanat_rl.probe", "--preset", dataset, *options, "--quiet"]
        took = seconds(lambda: subprocess.run(command, check=True))
        found = json.loads(output.read_text())
    kept = ("step", "decision", "base_value", "split", *GAINS)
    sites = [{key: site[key] for key in kept} for site in found["sites"]]
    facts = {key: found[key] for key in ("start", "reward", "horizon", "sentences")}
    return {"num_images": num_images, "num_repeats": num_repeats, "seconds": round(took, 1), **facts, "sites": sites}


def main() -> None:
    found = {dataset: probe(dataset, *sizes) for dataset, sizes in SETTINGS.items()}
    write_result("probe", {"command": "python -m benchmarks.probe", "probes": found})
    for dataset, one in found.items():
        print("\n".join([f"{dataset}:", *one["sentences"]]))


if __name__ == "__main__":
    main()
