from __future__ import annotations

import numpy as np
import pytest
import torch

from adanat_rl.generation.decisions import DecisionSpace, inverse_smoothing
from adanat_rl.generation.masked.schedules import hand_made_schedule, masked_token_decisions
from tests.contracts.parity import ParityModule

MODULE = ParityModule("adagen_decisions")
SETTINGS = MODULE.description["constructor"]["maskgit"]
HORIZON, SMOOTHING = SETTINGS["gen_steps"], SETTINGS["action_smooth"]
SCHEDULE = hand_made_schedule(
    HORIZON, convention="adanat", confidence_temperature=1, sampling_temperature=1, guidance_scale=SETTINGS["cfg_init"]
)


@pytest.fixture
def space() -> DecisionSpace:
    return DecisionSpace(masked_token_decisions(), SCHEDULE, smoothing=SMOOTHING)


def test_smoothing_is_on_in_the_stored_data() -> None:
    assert (HORIZON, SMOOTHING) == (16, 0.8)


def test_base_schedule_is_adagens(space: DecisionSpace) -> None:
    MODULE.check("maskgit__base", space.base_schedule.T)
    MODULE.check("maskgit__base_pre", space.base_pre_activations(SCHEDULE).T)
    MODULE.check("maskgit__residual", inverse_smoothing(space.base_pre_activations(SCHEDULE), SMOOTHING).T)


@pytest.mark.parametrize("case", ["zero", "mild", "wild"])
def test_smoothed_decisions_are_adagens(space: DecisionSpace, case: str) -> None:
    raw = torch.zeros(HORIZON, 1, 4) if case == "zero" else MODULE.tensor(f"maskgit__{case}_raw")
    smoothed, decisions, carry = [], [], None
    for step in range(HORIZON):
        decision, carry = space.decide(raw[step], step, carry)
        smoothed.append(carry)
        decisions.append(decision)
    MODULE.check(f"maskgit__{case}_smoothed", torch.stack(smoothed))
    MODULE.check(f"maskgit__{case}_decisions", torch.stack(decisions))


def test_zero_actions_give_the_base_schedule(space: DecisionSpace) -> None:
    carry = None
    for step in range(HORIZON):
        decision, carry = space.decide(torch.zeros(1, 4), step, carry)
        np.testing.assert_allclose(decision[0].numpy(), SCHEDULE[step], rtol=2e-3, atol=2e-6)
