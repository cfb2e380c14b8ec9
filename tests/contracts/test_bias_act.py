from __future__ import annotations

import numpy as np
import pytest
import torch

from adanat_rl.generation.decisions import DecisionSpace
from adanat_rl.generation.masked.schedules import hand_made_schedule, masked_token_decisions
from tests.contracts.parity import ParityModule

MODULE = ParityModule("bias_act")


def official_space(horizon: int, residual: bool) -> DecisionSpace:
    schedule = hand_made_schedule(
        horizon, convention="adanat", confidence_temperature=1, sampling_temperature=1, guidance_scale=1
    )
    return DecisionSpace(masked_token_decisions(), schedule, residual=residual)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("horizon", [4, 8])
def test_decisions_of_given_actions_are_those_of_the_official_code(horizon: int, residual: bool) -> None:
    space = official_space(horizon, residual)
    actions = MODULE.tensor("actions")
    decisions = torch.stack([space.decide(actions, step)[0] for step in range(horizon)])
    MODULE.check(f"step_T{horizon}_heu{int(residual)}", decisions)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("horizon", [4, 8])
def test_decisions_of_an_action_per_step_are_those_of_the_official_code(horizon: int, residual: bool) -> None:
    space = official_space(horizon, residual)
    stack = MODULE.tensor(f"stack_T{horizon}")  # [3, 4, T]
    decisions, carry = [], None
    for step in range(horizon):
        decision, carry = space.decide(stack[:, :, step], step, carry)
        decisions.append(decision)
    MODULE.check(f"all_T{horizon}_heu{int(residual)}", torch.stack(decisions, dim=2))


@pytest.mark.parametrize("horizon", [4, 8])
def test_base_pre_activations_are_the_official_residuals(horizon: int) -> None:
    space = official_space(horizon, residual=True)
    MODULE.check(f"residual_T{horizon}", space.base_pre_activations(np.asarray(space.base_schedule)).T)
