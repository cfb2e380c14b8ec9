"""What a conformance kit says of a rule of a contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a rule came out."""

    PASS = "pass"
    NOTE = "note"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """What came of a rule.

    Args:
        rule: which one. status: a note is no failure. detail: what was found.
    """

    rule: str
    status: Status
    detail: str

    def __str__(self) -> str:
        return f"{self.status}  {self.rule}: {self.detail}"


def failures(findings: Sequence[Finding]) -> list[Finding]:
    """Those that failed."""
    return [finding for finding in findings if finding.status is Status.FAIL]


def passed(rule: str, detail: str) -> Finding:
    """A rule that holds."""
    return Finding(rule, Status.PASS, detail)


def noted(rule: str, detail: str) -> Finding:
    """Something to know, which breaks no rule."""
    return Finding(rule, Status.NOTE, detail)


def failed(rule: str, detail: str) -> Finding:
    """A rule that is broken."""
    return Finding(rule, Status.FAIL, detail)


def held(rule: str, holds: bool, detail: str, expected: str) -> Finding:
    """A rule that holds or not, and what was expected where it does not."""
    return passed(rule, detail) if holds else failed(rule, f"{detail}; expected {expected}")


def name_of(error: BaseException) -> str:
    """What a finding calls an error of somebody's code."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
