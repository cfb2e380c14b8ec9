from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from adanat_rl.generation.decisions import Decision, DecisionSpace, inverse_smoothing
from adanat_rl.generation.masked.schedules import hand_made_schedule, masked_token_decisions
from tests.contracts.parity import ParityModule

MODULE = ParityModule("adagen_decisions")
CASES = ("zero", "mild", "wild")
GUIDANCE = Decision("guidance_scale", "softplus")
TIME = Decision("time", "sigmoid", high=1.0)
VAR = (
    GUIDANCE,
    Decision("top_k", "sigmoid", high=4096.0, scale=4096.0),
    Decision("top_p", "sigmoid", high=1.0),
    Decision("sampling_temperature", "softplus"),
)


@dataclass(frozen=True)
class Family:
    """A generator of AdaGen: its decisions and the hand-made schedule `[T, K]` around which its policy acts."""

    decisions: tuple[Decision, ...]
    schedule: np.ndarray
    smoothing: float

    def space(self) -> DecisionSpace:
        return DecisionSpace(self.decisions, self.schedule, smoothing=self.smoothing)


def family(name: str) -> Family:
    """Out of the settings that stand beside the data."""
    settings = MODULE.description["constructor"][name]
    steps, guidance, smoothing = settings["gen_steps"], settings["cfg_init"], settings["action_smooth"]
    if name == "maskgit":
        schedule = hand_made_schedule(
            steps, convention="adanat", confidence_temperature=1, sampling_temperature=1, guidance_scale=guidance
        )
        return Family(tuple(masked_token_decisions()), schedule, smoothing)
    if name.startswith("var"):
        values = [guidance, settings["topk"], settings["topp"], settings["manual_samp_temp_init"]]
        return Family(VAR, np.tile(values, (steps, 1)), smoothing)
    first, last = {"dit": (0.9, 0.01), "sit": (0.01, 0.99)}[name]
    times = np.linspace(first, last, steps + 1)
    return Family((TIME, GUIDANCE), np.stack([times, np.full(steps + 1, guidance)], axis=1), smoothing)


FAMILIES = {name: family(name) for name in MODULE.description["constructor"]}
STORED = [(name, case) for name in FAMILIES for case in CASES if (name, case) != ("var_d30", "wild")]
# A clamp against the time before, and a filter of logits: what those generators do with a decision.
OF_THE_GENERATORS = {f"{name}__{case}_clamped" for name in ("dit", "sit") for case in CASES} | {
    "var_filter__kept",
    "var_filter__p",
}


def trajectory(name: str, case: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Smoothed pre-activations and decisions, `[T, B, K]` each, of the stored raw actions."""
    space = FAMILIES[name].space()
    zeros = torch.zeros(space.horizon, 1, space.num_actions)
    raw = zeros if case == "zero" else MODULE.tensor(f"{name}__{case}_raw")
    smoothed, decisions, carry = [], [], None
    for step in range(space.horizon):
        decision, carry = space.decide(raw[step], step, carry)
        smoothed.append(carry)
        decisions.append(decision)
    return torch.stack(smoothed), torch.stack(decisions)


def test_smoothing_is_on_in_the_stored_data() -> None:
    assert {name: (one.smoothing, len(one.schedule)) for name, one in FAMILIES.items()} == {
        "maskgit": (0.8, 16),
        "dit": (0.4, 17),
        "sit": (0.8, 17),
        "var_d16": (0.0, 10),
        "var_d30": (0.0, 10),
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_base_schedule_is_adagens(name: str) -> None:
    space, schedule = FAMILIES[name].space(), FAMILIES[name].schedule
    pre = space.base_pre_activations(schedule)
    MODULE.check(f"{name}__base", space.base_schedule.T)
    MODULE.check(f"{name}__base_pre", pre.T)
    MODULE.check(f"{name}__residual", inverse_smoothing(pre, space.smoothing).T)


@pytest.mark.parametrize(("name", "case"), STORED)
def test_smoothed_decisions_are_adagens(name: str, case: str) -> None:
    smoothed, decisions = trajectory(name, case)
    MODULE.check(f"{name}__{case}_smoothed", smoothed)
    MODULE.check(f"{name}__{case}_decisions", decisions)


def test_every_stored_output_is_compared_or_belongs_to_another_generator() -> None:
    compared = {f"{name}__{what}" for name in FAMILIES for what in ("base", "base_pre", "residual")}
    compared |= {f"{name}__{case}_{what}" for name, case in STORED for what in ("smoothed", "decisions")}
    assert MODULE.outputs() == compared | OF_THE_GENERATORS


def test_zero_actions_give_the_base_schedule() -> None:
    _, decisions = trajectory("maskgit", "zero")
    np.testing.assert_allclose(decisions[:, 0].numpy(), FAMILIES["maskgit"].schedule, rtol=2e-3, atol=2e-6)
