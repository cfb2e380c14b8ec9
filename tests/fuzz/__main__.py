"""The campaign: `python -m tests.fuzz --examples 20000 --processes 1000`."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from pathlib import Path

from tests import tiny
from tests.fuzz.campaign import as_process, in_process, run_target
from tests.fuzz.scenarios import CALLED, POLICY, RUN, TARGETS, policy_folder


def main() -> int:
    """Runs it, prints a table and the smallest example of each kind of problem."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Throws odd input at every command.")
    parser.add_argument("--examples", type=int, default=2000, help="in this process, over all targets (default: 2000)")
    parser.add_argument("--processes", type=int, default=0, help="as processes, over all targets (default: 0)")
    parser.add_argument("--seed", type=int, default=None, help="of the draws (default: a new one)")
    parser.add_argument("--only", action="append", choices=sorted(TARGETS), help="a target; may be given again")
    parser.add_argument("--run", type=Path, help="a finished run to damage copies of (default: a tiny one is made)")
    arguments = parser.parse_args()
    number = secrets.randbelow(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {number}", flush=True)
    names = arguments.only or list(TARGETS)
    with tempfile.TemporaryDirectory(prefix="fuzz-templates-") as place:
        templates = {POLICY: policy_folder(Path(place) / "policy"), RUN: arguments.run or _finished_run(Path(place))}
        total = 0
        for runner, examples in ((in_process, arguments.examples), (as_process, arguments.processes)):
            chosen = [name for name in names if runner is in_process or name not in CALLED]
            for name in chosen if examples else ():
                seen: set[str] = set()

                def found(kind: str, text: str, seen: set[str] = seen) -> None:
                    if kind not in seen:
                        print(f"\n{kind}\n{text}\n", flush=True)
                    seen.add(kind)

                start = time.monotonic()
                findings = run_target(name, max(1, examples // len(chosen)), number, templates, runner, found)
                counts = ", ".join(
                    f"{count} with status {status}" for status, count in sorted(findings.statuses.items())
                )
                how = "in process" if runner is in_process else "as processes"
                kinds, times = len(findings.problems), sum(findings.counts.values())
                spent = time.monotonic() - start
                print(f"{name} {how}: {counts}; {times} problems of {kinds} kinds; {spent:.0f} s", flush=True)
                if findings.problems:
                    print(f"\nsmallest of each kind:\n\n{findings}\n", flush=True)
                total += times
    print(f"seed {number}: {total} problems")
    return 1 if total else 0


def _finished_run(place: Path) -> Path:
    result = tiny.train(place / "run", *tiny.IN_PROCESS, "training.num_iterations=2")
    if result.returncode:
        sys.exit(result.stderr)
    return place / "run"


if __name__ == "__main__":
    sys.exit(main())
