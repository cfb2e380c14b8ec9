from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from adanat_rl.config.errors import UserError
from adanat_rl.config.paths import resolve_path
from adanat_rl.evaluation.reference import Baseline, References, dump_references, load_references
from adanat_rl.generation.policies.base import ClassSchedulePolicy, SchedulePolicy


@pytest.fixture
def references() -> References:
    rng = np.random.default_rng(0)
    schedule, per_class = rng.random((4, 4)), rng.random((10, 6, 4))
    numbers = {"fd_a": {"mean": 0.3, "sd": 0.01}}
    return References(
        "digits",
        "make it",
        (
            Baseline("grid", "best of a grid", "grid", schedule, {"curve_power": 0.75}, numbers),
            Baseline("per_class", "per class", "PPO", per_class),
        ),
        {"adversarial": [0.2, 0.21]},
    )


def test_references_come_back_with_five_decimals(tmp_path: Path, references: References) -> None:
    file = tmp_path / "reference.json"
    file.write_text(dump_references(references))
    loaded = load_references(file)
    assert (loaded.dataset, loaded.command, loaded.trained) == ("digits", "make it", references.trained)
    for mine, theirs in zip(loaded.baselines, references.baselines, strict=True):
        assert (mine.name, mine.title, mine.how) == (theirs.name, theirs.title, theirs.how)
        assert (dict(mine.settings), dict(mine.numbers)) == (dict(theirs.settings), dict(theirs.numbers))
        np.testing.assert_allclose(mine.decisions, theirs.decisions, atol=5.1e-6)
    assert dump_references(loaded) == dump_references(load_references(file))


def test_a_baseline_is_a_policy_of_its_horizon(references: References) -> None:
    schedule, per_class = references.baselines
    assert (schedule.horizon, per_class.horizon) == (4, 6)
    assert isinstance(schedule.policy, SchedulePolicy)
    assert isinstance(per_class.policy, ClassSchedulePolicy)
    context = torch.tensor([3, 9])
    np.testing.assert_allclose(per_class.policy.plan(context), per_class.decisions[[3, 9]], rtol=1e-6)
    np.testing.assert_allclose(schedule.policy.plan(context)[1], schedule.decisions, rtol=1e-6)


def test_the_shipped_reference_file_loads() -> None:
    loaded = load_references(resolve_path("asset:digits/reference.json", "evaluation.reference"))
    assert loaded.dataset == "digits"
    for baseline in loaded.baselines:
        assert baseline.decisions.shape[-1] == 4
        assert np.isfinite(baseline.decisions).all()


GOOD = {"name": "a", "title": "a", "how": "a", "decisions": [[0.5, 1, 1, 0]]}


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "3",
        "{}",
        json.dumps({"format": 2, "dataset": "d", "command": "", "baselines": []}),
        json.dumps({"format": 1, "dataset": "d", "command": ""}),
        json.dumps({"format": 1, "dataset": "d", "command": "", "baselines": [{"name": "a"}]}),
        json.dumps({"format": 1, "dataset": "d", "command": "", "baselines": [{**GOOD, "colour": 1}]}),
        json.dumps({"format": 1, "dataset": "d", "command": "", "baselines": [{**GOOD, "decisions": [[1, 2], [3]]}]}),
        json.dumps({"format": 1, "dataset": "d", "command": "", "baselines": [{**GOOD, "decisions": [1, 2, 3]}]}),
        json.dumps({"format": 1, "dataset": "d", "command": "", "baselines": [{**GOOD, "decisions": 0.5}]}),
    ],
)
def test_a_wrong_reference_file_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "reference.json"
    file.write_text(content)
    with pytest.raises(UserError, match=r"reference\.json"):
        load_references(file)


def test_a_missing_reference_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json"):
        load_references(tmp_path / "none.json")
