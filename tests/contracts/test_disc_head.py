from __future__ import annotations

from typing import Any

import pytest
import torch

from adanat_rl.rewards.projected.head import DiscriminatorHead, local_groups
from tests.contracts.fill import filled, noise
from tests.contracts.parity import ParityModule

MODULE = ParityModule("disc_head")
CONSTRUCTOR = MODULE.description["constructor"]
RULES = [tuple(row) for row in MODULE.description["overrides"]]


def official_state(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    state = {}
    for row in rows:
        name = row["name"]
        if row["fill"] == "rule":
            state[name] = torch.from_numpy(filled(name, row["shape"], MODULE.description["seed"], RULES))
        else:
            own = rows is MODULE.description["state_uncond"] and name.startswith("cls.")
            state[name] = MODULE.tensor(f"uv_uncond__{name}" if own else f"uv__{name}")
    return state


def build(rows: list[dict[str, Any]], condition_width: int) -> DiscriminatorHead:
    head = DiscriminatorHead(CONSTRUCTOR["channels"], condition_width, CONSTRUCTOR["cmap_dim"])
    state = official_state(rows)
    assert list(state) == [name for name in head.state_dict() if ".mate_" not in name]
    missing, extra = head.load_state_dict(state, strict=False)
    assert not extra
    assert all(".mate_" in name for name in missing)
    return head.eval()


def run(head: DiscriminatorHead, batch_size: int, groups: list[int] | None = None) -> torch.Tensor:
    x = torch.from_numpy(noise(f"head.x{batch_size}", (batch_size, 16, 25)))
    condition = torch.from_numpy(noise(f"head.c{batch_size}", (batch_size, 12)))
    with torch.no_grad():
        return head(x, condition if head.condition_width else None, groups or local_groups(batch_size))


@pytest.fixture
def head() -> DiscriminatorHead:
    return build(MODULE.description["state"], CONSTRUCTOR["c_dim"])


@pytest.mark.parametrize("batch_size", [2, 8, 12, 16])
def test_output_is_that_of_the_official_head(head: DiscriminatorHead, batch_size: int) -> None:
    MODULE.check(f"y{batch_size}", run(head, batch_size))


def test_a_pass_in_training_begins_with_a_power_iteration(head: DiscriminatorHead) -> None:
    MODULE.check("y8_train", run(head.train(), 8))
    with pytest.raises(AssertionError, match="y8_train"):
        MODULE.check("y8_train", run(head, 8))  # a second iteration


def test_output_without_condition_is_that_of_the_official_head() -> None:
    MODULE.check("y8_uncond", run(build(MODULE.description["state_uncond"], 0), 8))


def test_other_groups_are_noticed(head: DiscriminatorHead) -> None:
    with pytest.raises(AssertionError, match="y12"):
        MODULE.check("y12", run(head, 12, [8, 4]))


def test_every_stored_output_is_compared() -> None:
    assert MODULE.outputs() == {"y2", "y8", "y12", "y16", "y8_train", "y8_uncond"}
