"""The shipped MNIST policy beside its controls and its base schedule: the README's table.

python -m benchmarks.mnist      # some minutes
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import write_result

SETTINGS = ("evaluation.num_seeds=5", "tracking.enabled=false")
KEPT = ("name", "title", "kind", "horizon", "how", "summary")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "evaluation.json"
        command = [sys.executable, "-m", "adanat_rl.evaluate", "--preset", "mnist", *SETTINGS, "--output", str(output)]
        subprocess.run(command, check=True)
        numbers = json.loads(output.read_text())
    rows = [{key: row[key] for key in KEPT} for row in numbers["rows"]]
    kept = {key: numbers[key] for key in ("num_images", "seeds", "verdict")}
    write_result("mnist", {"command": "python -m benchmarks.mnist", "settings": SETTINGS, **kept, "rows": rows})


if __name__ == "__main__":
    main()
