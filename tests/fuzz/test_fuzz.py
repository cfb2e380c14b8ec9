"""A quick one in the suite: 200 scenarios, with a seed that is new each time and printed with what it finds."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from tests.fuzz.campaign import as_process, in_process, run_target
from tests.fuzz.scenarios import POLICY, RUN, TARGETS, policy_folder

SEED = int(os.environ.get("FUZZ_SEED") or secrets.randbelow(2**32))
EXAMPLES = {
    "command lines": 45,
    "settings": 40,
    "yaml": 35,
    "data sets": 25,
    "rewards": 15,
    "weights": 15,
    "policies": 10,
}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_odd_input_ends_in_success_or_in_a_line_for_people(name: str, tmp_path: Path) -> None:
    templates = {POLICY: policy_folder(tmp_path / "policy")}
    _expect_none(name, EXAMPLES[name], templates)


def test_a_damaged_run_folder_is_told_or_done_without(finished, tmp_path: Path) -> None:
    _expect_none("run folders", 12, {RUN: finished.run_dir})


def test_commands_end_as_they_do_in_this_process(tmp_path: Path) -> None:
    templates = {POLICY: policy_folder(tmp_path / "policy")}
    _expect_none("settings", 3, templates, as_process)


def test_every_target_has_its_share() -> None:
    assert {*EXAMPLES, "run folders"} == set(TARGETS)


def _expect_none(name: str, examples: int, templates: dict[str, Path], runner=in_process) -> None:
    print(f"FUZZ_SEED={SEED}")
    findings = run_target(name, examples, SEED, templates, runner)
    assert not findings.problems, f"FUZZ_SEED={SEED}\n{findings}"
    assert sum(findings.statuses.values()) >= min(examples, 3)
