"""The demo, timed: what `make demo` does after the installation.

python -m benchmarks.demo      # about 6 minutes; leaves its run in benchmarks/out/demo
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.common import print_rows, seconds, write_result

RUN_DIR = Path(__file__).parent / "out" / "demo"
LIMIT_S = 360


def main() -> None:
    shutil.rmtree(RUN_DIR, ignore_errors=True)
    command = [sys.executable, "-m", "adanat_rl.train", "--run-dir", str(RUN_DIR)]
    spent = seconds(partial(subprocess.run, command, check=True))
    summary = json.loads((RUN_DIR / "summary.json").read_text())
    content = {"seconds": spent, "train_seconds": summary["train_seconds"], "limit_s": LIMIT_S}
    write_result("demo", {"command": "python -m benchmarks.demo", **content, "summary": summary})
    rows = [["iterations", f"{summary['train_seconds']:.0f}"], [f"everything (at most {LIMIT_S})", f"{spent:.0f}"]]
    print_rows("The demo, seconds of wall time", ["what", "seconds"], rows)


if __name__ == "__main__":
    main()
