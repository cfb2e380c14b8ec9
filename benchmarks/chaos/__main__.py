"""A campaign of kills, freezes, broken disks and torn files against every command that writes.

python -m benchmarks.chaos                  # 200 events with a new seed, several hours on two cores
python -m benchmarks.chaos --minutes 5      # what fits into five minutes, on a few commands
python -m benchmarks.chaos --seed S --only N
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from benchmarks.chaos.report import as_json, one_line, print_table, tell_faults
from benchmarks.chaos.running import Campaign, Verdict
from benchmarks.chaos.scenarios import draw, some_workloads
from benchmarks.chaos.workloads import WORKLOADS
from benchmarks.common import write_result

EVENTS = 200
_MINUTES_OF_A_WORKLOAD = 2


def campaign(
    seed: int,
    workloads: Sequence[str],
    *,
    events: int = EVENTS,
    minutes: float | None = None,
    only: int | None = None,
    at_once: int = 2,
    references: Path | None = None,
) -> list[Verdict]:
    """Runs events and tells each as it ends.

    Args:
        workloads: names. minutes: none is begun later than that. only: the number of the one event to do. at_once: how
        many share the machine. references: a folder of undisturbed runs to share with other campaigns.
    """
    until = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    numbers = iter([only]) if only is not None else iter(range(events))
    verdicts: list[Verdict] = []
    runner = Campaign(references)
    try:
        with ThreadPoolExecutor(at_once) as pool:
            running: set[Future[Verdict]] = set()
            while True:
                while (
                    len(running) < at_once and time.monotonic() < until and (number := next(numbers, None)) is not None
                ):
                    running.add(pool.submit(runner.run, draw(seed, number, workloads)))
                if not running:
                    break
                done, running = wait(running, return_when=FIRST_COMPLETED)
                verdicts.extend(_told(done, workloads))
    finally:
        runner.close()
    return sorted(verdicts, key=lambda verdict: verdict.event.number)


def _told(done: set[Future[Verdict]], workloads: Sequence[str]) -> Iterator[Verdict]:
    for future in done:
        verdict = future.result()
        print(one_line(verdict), flush=True)
        if verdict.faults:
            tell_faults(verdict, workloads)
        yield verdict


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="of what happens when (default: a new one, which is printed)")
    parser.add_argument("--events", type=int, default=EVENTS, help=f"how many (default: {EVENTS})")
    parser.add_argument("--minutes", type=float, help="begin none later; a few commands are drawn for a short one")
    parser.add_argument("--only", metavar="N", type=int, help="just the event of this number")
    parser.add_argument("--workloads", metavar="A,B", help=f"only these of: {', '.join(WORKLOADS)}")
    parser.add_argument(
        "--at-once", metavar="N", type=int, default=2, help="events that share the machine (default: 2)"
    )
    parser.add_argument(
        "--references", metavar="DIR", type=Path, help="keep the undisturbed runs there, for campaigns of this revision"
    )
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else secrets.randbelow(10**6)
    workloads = tuple(WORKLOADS)
    if options.workloads:
        workloads = tuple(options.workloads.split(","))
        if unknown := [name for name in workloads if name not in WORKLOADS]:
            parser.error(f"--workloads: {unknown[0]!r} is none of {', '.join(WORKLOADS)}")
    elif options.minutes is not None:
        workloads = some_workloads(seed, 1 + int(options.minutes // _MINUTES_OF_A_WORKLOAD))
    print(f"seed {seed}; commands: {', '.join(workloads)}", flush=True)
    verdicts = campaign(
        seed,
        workloads,
        events=options.events,
        minutes=options.minutes,
        only=options.only,
        at_once=options.at_once,
        references=options.references,
    )
    print_table(verdicts)
    if options.only is None and options.minutes is None and not options.workloads:
        write_result("chaos", as_json(verdicts, seed, workloads))
    return 1 if any(verdict.faults for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
