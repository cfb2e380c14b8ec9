"""Findings of a conformance kit on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from adanat_rl.config.findings import Finding, failures
from adanat_rl.console.tables import print_table


def print_findings(title: str, findings: Sequence[Finding]) -> None:
    """A table of the rules."""
    table = Table("rule", "", "found", title=title, title_justify="left")
    for finding in findings:
        table.add_row(finding.rule, finding.status, finding.detail)
    print_table(table)


def print_verdict(name: str, findings: Sequence[Finding]) -> None:
    """Whether the contract is kept, in a sentence."""
    bad = len(failures(findings))
    broken = f"{bad} {'rule is' if bad == 1 else 'rules are'} broken"
    print(f"{name}: {broken if bad else 'keeps the contract'}")
