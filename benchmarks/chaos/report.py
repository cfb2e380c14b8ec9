"""The table of a campaign, its JSON, and the line that does one event again."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.chaos.running import Verdict
from benchmarks.chaos.workloads import WORKLOADS
from benchmarks.common import print_rows

RESULTS = ("equal bits", "done before", "not possible here", "FAILED")


def reproduce(verdict: Verdict, workloads: Sequence[str]) -> str:
    """The command that does just this event again."""
    event = verdict.event
    parts = ["python", "-m", "benchmarks.chaos", "--seed", str(event.seed), "--only", str(event.number)]
    if tuple(workloads) != tuple(WORKLOADS):
        parts += ["--workloads", ",".join(workloads)]
    return shlex.join(parts)


def one_line(verdict: Verdict) -> str:
    """An event as it is over."""
    event, scenario = verdict.event, verdict.event.scenario
    statuses = " → ".join("hang" if status is None else str(status) for status in verdict.statuses)
    notes = f" ({'; '.join(verdict.notes)})" if verdict.notes else ""
    text = f"{event.number:4d}  {verdict.result:<11}  {scenario.workload}, {scenario.kind} at {event.instant:.2f}"
    return f"{text}: {statuses}{notes}"


def tell_faults(verdict: Verdict, workloads: Sequence[str]) -> None:
    """What was wrong, with all that is needed to look at it."""
    for fault in verdict.faults:
        print(f"      {fault}")
    for typed in verdict.typed:
        print(f"      typed: {typed}")
    print(f"      folder: {verdict.folder}\n      again: {reproduce(verdict, workloads)}", flush=True)


def print_table(verdicts: Sequence[Verdict]) -> None:
    """Kinds of events and what they came to."""
    counts: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        counts.setdefault(verdict.event.scenario.kind, Counter())[verdict.result] += 1
    total = Counter(verdict.result for verdict in verdicts)
    rows = [[kind, sum(count.values()), *(count[result] or "" for result in RESULTS)] for kind, count in counts.items()]
    rows = [*sorted(rows, key=lambda row: str(row[0])), ["all", len(verdicts), *(total[name] for name in RESULTS)]]
    print_rows("events and what they came to", ["event", "number", *RESULTS], rows)


def _event(verdict: Verdict, workloads: Sequence[str]) -> dict[str, Any]:
    """What was typed is of use where something was wrong."""
    found = verdict.as_dict()
    if not verdict.faults:
        found.pop("typed")
    return {**found, "again": reproduce(verdict, workloads)}


def as_json(verdicts: Sequence[Verdict], seed: int, workloads: Sequence[str]) -> dict[str, Any]:
    """For the file."""
    total = Counter(verdict.result for verdict in verdicts)
    return {
        "command": f"python -m benchmarks.chaos --seed {seed} --events {len(verdicts)}",
        "workloads": list(workloads),
        "results": {name: total[name] for name in RESULTS},
        "events": [_event(verdict, workloads) for verdict in verdicts],
    }
