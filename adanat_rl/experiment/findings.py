"""What a check found: the common form of `doctor` and `audit`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        what: the thing. ok: whether it is as it should be. detail: what was found. fix: what to do about it.
        fatal: whether it matters for the outcome of the check.
    """

    what: str
    ok: bool
    detail: str
    fix: str = ""
    fatal: bool = True


def print_findings(findings: Sequence[Finding]) -> bool:
    """One line each, with the fix below where one is needed; returns whether nothing fatal was found."""
    for finding in findings:
        mark = "ok" if finding.ok else "PROBLEM" if finding.fatal else "note"
        print(f"{mark:<7} {finding.what}: {finding.detail}")
        if not finding.ok and finding.fix:
            print(f"        fix: {finding.fix}")
    return all(finding.ok or not finding.fatal for finding in findings)
