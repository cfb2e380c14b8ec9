from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special

from adanat_rl.generation.decisions import (
    Decision,
    DecisionSpace,
    activate,
    inverse_activation,
    inverse_smoothing,
)
from adanat_rl.generation.masked.schedules import hand_made_schedule, masked_token_decisions

SCHEDULE = hand_made_schedule(4)
ROWS = masked_token_decisions(sampling_temperature_floor=0.3, base_floor=0.1)


def test_activations_agree_with_scipy() -> None:
    x = np.linspace(-12, 12, 49)
    np.testing.assert_allclose(activate(torch.from_numpy(x), "sigmoid"), special.expit(x), rtol=1e-12)
    np.testing.assert_allclose(activate(torch.from_numpy(x), "softplus"), np.logaddexp(0, x), rtol=1e-9)


def test_inverse_activations_undo_the_activations() -> None:
    ratios, positive = np.linspace(0.001, 0.999, 40), np.geomspace(1e-5, 30, 40)
    np.testing.assert_allclose(special.expit(inverse_activation(ratios, "sigmoid")), ratios, rtol=1e-12)
    np.testing.assert_allclose(np.logaddexp(0, inverse_activation(positive, "softplus")), positive, rtol=1e-9)
    assert np.isfinite(inverse_activation(np.array([0.0, 1.0]), "sigmoid")).all()
    assert np.isfinite(inverse_activation(np.array([0.0]), "softplus")).all()


def test_residuals_smoothed_again_give_what_they_came_from() -> None:
    wanted = np.random.default_rng(0).normal(size=(9, 3))
    residual = inverse_smoothing(wanted, 0.7)
    smoothed = residual[0]
    for t in range(1, 9):
        smoothed = 0.7 * smoothed + 0.3 * residual[t]
        np.testing.assert_allclose(smoothed, wanted[t], rtol=1e-9)


@pytest.mark.parametrize("smoothing", [0.0, 0.4])
def test_decisions_are_activation_of_base_plus_action_smoothed_over_the_steps(smoothing: float) -> None:
    space = DecisionSpace(ROWS, SCHEDULE, smoothing=smoothing)
    actions = np.random.default_rng(1).normal(size=(4, 5, 4)).astype(np.float32)
    base = np.stack(
        [
            special.logit(SCHEDULE[:, 0].clip(0.02, 0.98)),
            *(x + np.log(-np.expm1(-x)) for x in SCHEDULE[:, 1:].clip(0.1, None).T),
        ],
        axis=1,
    )
    carry, expected_pre = None, np.zeros((5, 4))
    previous_base = base[0]
    for t in range(4):
        offset = base[t] if t == 0 else (base[t] - smoothing * previous_base) / (1 - smoothing)
        pre = actions[t] + offset
        expected_pre = pre if t == 0 else smoothing * expected_pre + (1 - smoothing) * pre
        previous_base = base[t]
        decision, carry = space.decide(torch.from_numpy(actions[t]), t, carry)
        expected = np.logaddexp(0, expected_pre)
        expected[:, 0] = special.expit(expected_pre[:, 0])
        expected[:, 2] = np.maximum(expected[:, 2], 0.3)
        np.testing.assert_allclose(decision, expected, rtol=2e-5, atol=1e-6)
        assert decision.dtype == torch.float32


def test_the_sampling_temperature_never_falls_below_its_floor() -> None:
    decision, _ = DecisionSpace(ROWS, SCHEDULE).decide(torch.full((2, 4), -8.0), 1)
    assert decision[:, 2].tolist() == pytest.approx([0.3, 0.3])
    assert (decision[:, 1] < 0.3).all()


def test_decisions_that_are_not_learned_keep_the_base_schedule() -> None:
    space = DecisionSpace(ROWS, SCHEDULE, ["guidance_scale", "mask_ratio"])
    assert space.learned == ("mask_ratio", "guidance_scale")
    assert (space.num_actions, space.num_decisions) == (2, 4)
    decision, _ = space.decide(torch.tensor([[0.0, 3.0]]), 2)
    np.testing.assert_allclose(decision[0, 1:3], SCHEDULE[2, 1:3], rtol=1e-6)
    guidance = SCHEDULE[2, 3]
    assert decision[0, 3].item() == pytest.approx(
        np.logaddexp(0, guidance + np.log(-np.expm1(-guidance)) + 3), rel=1e-5
    )


def test_without_residual_the_action_is_the_pre_activation() -> None:
    decision, _ = DecisionSpace(ROWS, SCHEDULE, residual=False).decide(torch.tensor([[0.5, -1.0, 1.0, 0.0]]), 3)
    expected = [special.expit(0.5), np.logaddexp(0, -1), np.logaddexp(0, 1), np.log(2)]
    np.testing.assert_allclose(decision[0], expected, rtol=1e-6)


def test_effect_mask_leaves_out_ratio_and_confidence_temperature_of_the_last_step() -> None:
    mask = DecisionSpace(ROWS, SCHEDULE).effect_mask
    assert mask.tolist() == [[True] * 4] * 3 + [[False, False, True, True]]
    some = DecisionSpace(ROWS, SCHEDULE, ["confidence_temperature", "guidance_scale"]).effect_mask
    assert some.tolist() == [[True, True]] * 3 + [[False, True]]
    assert DecisionSpace(ROWS, SCHEDULE, mask_ineffective=False).effect_mask.all()


def test_another_base_schedule_keeps_the_settings() -> None:
    space = DecisionSpace(ROWS, SCHEDULE, ["sampling_temperature"], smoothing=0.2, mask_ineffective=False)
    other = space.with_base_schedule(hand_made_schedule(7))
    assert (other.horizon, other.learned, other.smoothing) == (7, ("sampling_temperature",), 0.2)
    assert other.effect_mask.shape == (7, 1)
    assert other.effect_mask.all()
    assert DecisionSpace(ROWS, SCHEDULE, residual=False).with_base_schedule(hand_made_schedule(7)).residual is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learned": ["mask_ratoi"]}, "unknown decision 'mask_ratoi'.*mask_ratio, confidence_temperature"),
        ({"smoothing": 1.0}, "smoothing is 1.0"),
        ({"smoothing": -0.1}, "smoothing is -0.1"),
        ({"base_schedule": np.zeros((4, 3))}, r"shape \(4, 3\), expected \[T, 4\]"),
        ({"base_schedule": np.zeros(4)}, r"shape \(4,\)"),
    ],
)
def test_a_wrong_decision_space_is_refused(change: dict, message: str) -> None:
    arguments = {"base_schedule": SCHEDULE, "learned": None, "smoothing": 0.0, **change}
    with pytest.raises(ValueError, match=message):
        DecisionSpace(ROWS, arguments["base_schedule"], arguments["learned"], smoothing=arguments["smoothing"])


def test_bounds_hold_on_both_sides() -> None:
    rows = (Decision("time", "softplus", low=0.5, high=2.0),)
    space = DecisionSpace(rows, np.ones((3, 1)))
    assert space.decide(torch.tensor([[-9.0], [9.0]]), 0)[0].flatten().tolist() == [0.5, 2.0]


def test_values_below_a_cutoff_are_exactly_zero_and_others_are_what_they_were() -> None:
    plain, cut = Decision("scale", "softplus"), Decision("scale", "softplus", zero_below=0.2)
    pre = torch.linspace(-6, 3, 200)
    expected = plain.value(pre)
    assert torch.equal(cut.value(pre), torch.where(expected < 0.2, 0.0, expected))
    assert (cut.value(pre) == 0).any()
    assert not (plain.value(pre) == 0).any()
    base = np.full((2, 1), 0.5)
    assert DecisionSpace([cut], base).can_be_zero("scale")
    assert not DecisionSpace([plain], base).can_be_zero("scale")
    assert not DecisionSpace([cut, plain.__class__("other", "softplus")], np.ones((2, 2)), ["other"]).can_be_zero(
        "scale"
    )
