"""Draws scenarios by the thousand, runs each in a folder of its own and keeps the smallest of every kind of problem."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import watched
from tests.fuzz.scenarios import TARGETS, Scenario, described

Runner = Callable[[Scenario, Path], watched.Outcome]


@dataclass
class Findings:
    """What a campaign found. statuses: how often each came out. problems: the smallest example of each kind."""

    statuses: dict[int, int] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def take(self, kind: str, text: str) -> None:
        """Notes a problem."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if len(text) < len(self.problems.get(kind, text + " ")):
            self.problems[kind] = text

    def __str__(self) -> str:
        return "\n\n".join(f"[{self.counts[kind]}×] {text}" for kind, text in sorted(self.problems.items()))


def in_process(scenario: Scenario, folder: Path) -> watched.Outcome:
    """Without a process for each."""
    return scenario.run(folder)


def as_process(scenario: Scenario, folder: Path) -> watched.Outcome:
    """As a command."""
    return watched.command_as_process(scenario.argv, folder)


def run_target(
    name: str,
    examples: int,
    number: int,
    templates: Mapping[str, Path],
    runner: Runner = in_process,
    found: Callable[[str, str], None] = lambda kind, text: None,
) -> Findings:
    """Runs scenarios of one target.

    Args:
        name: of TARGETS. examples: how many. number: the seed. templates: what scenarios copy.
        found: called with the kind and the text of each problem as it is found.
    """
    findings = Findings()
    base = Path(tempfile.mkdtemp(prefix="fuzz-"))
    strategy: st.SearchStrategy[Scenario] = TARGETS[name]
    if runner is as_process:
        strategy = strategy.filter(lambda scenario: scenario.is_command and scenario.argv[0] in watched.MODULES)

    @seed(number)
    @settings(
        max_examples=examples,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def draw(scenario: Scenario) -> None:
        folder = Path(tempfile.mkdtemp(dir=base))
        try:
            done = scenario.prepare(folder, templates)
            outcome = runner(scenario, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        findings.statuses[outcome.status] = findings.statuses.get(outcome.status, 0) + 1
        problem = outcome.problem()
        if problem is not None:
            kind = _kind(name, scenario, problem)
            text = described(scenario, done, problem)
            findings.take(kind, text)
            found(kind, text)

    try:
        draw()
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return findings


def _kind(name: str, scenario: Scenario, problem: str) -> str:
    """What problems of one kind have in common: the command and the words without numbers, names and values."""
    place = re.search(r"in ([\w/]+\.py:\d+)", problem) or ("", "")
    words = re.sub(r"traceback in \S+|'[^']*'|\"[^\"]*\"|\S*[/\d]\S*", "…", problem.partition(";")[0])
    return f"{name} | {scenario.argv[0][:20]} | {words[:90]} {place[1]}".rstrip()
