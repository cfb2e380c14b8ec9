from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from adanat_rl.evaluation.controls import Adaptivity, Control, deal, judge_adaptivity

CONTEXT = torch.tensor([index * 7 % 5 for index in range(83)])
DECISIONS = torch.arange(83.0)[:, None, None].expand(83, 3, 4).contiguous()  # each image's own number


def dealt(control: Control, seed: int = 0, context: torch.Tensor = CONTEXT) -> np.ndarray:
    policy = deal(control, DECISIONS[: len(context)], context, seed)
    plan = policy.plan(context)
    assert plan.shape == (len(context), 3, 4)
    assert (plan == plan[:, :1, :1]).all()  # a trajectory is dealt as a whole
    return plan[:, 0, 0].numpy().astype(int)


@pytest.mark.parametrize("seed", range(5))
def test_a_shuffle_over_all_is_a_permutation_that_leaves_nobody_its_own(seed: int) -> None:
    order = dealt(Control.SHUFFLED, seed)
    assert sorted(order) == list(range(83))
    assert (order != np.arange(83)).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_shuffle_within_the_class_stays_there_and_leaves_nobody_its_own(seed: int) -> None:
    order = dealt(Control.SHUFFLED_WITHIN_CLASS, seed)
    assert sorted(order) == list(range(83))
    assert (order != np.arange(83)).all()
    assert (CONTEXT[order] == CONTEXT).all()


def test_the_only_image_of_a_class_keeps_its_decisions() -> None:
    context = torch.tensor([0, 0, 7, 0, 3, 3])
    order = dealt(Control.SHUFFLED_WITHIN_CLASS, 0, context)
    assert order[2] == 2
    assert (order[[0, 1, 3]] != [0, 1, 3]).all()
    assert order[[4, 5]].tolist() == [5, 4]


@pytest.mark.parametrize("control", [Control.SHUFFLED, Control.SHUFFLED_WITHIN_CLASS])
def test_the_deal_depends_on_the_seed_alone(control: Control) -> None:
    assert (dealt(control, 1) == dealt(control, 1)).all()
    assert (dealt(control, 1) != dealt(control, 2)).any()


def test_a_shuffle_over_all_deals_to_other_classes_mostly() -> None:
    assert (CONTEXT[dealt(Control.SHUFFLED)] != CONTEXT).float().mean() > 0.5


def test_means_are_those_of_all_images_or_of_the_class() -> None:
    decisions = torch.from_numpy(np.random.default_rng(0).random((83, 3, 4), np.float32))
    over_all = deal(Control.MEAN, decisions, CONTEXT, 0).plan(CONTEXT)
    per_class = deal(Control.CLASS_MEAN, decisions, CONTEXT, 0).plan(CONTEXT)
    for row in range(83):
        np.testing.assert_allclose(over_all[row], decisions.double().mean(dim=0), rtol=1e-5)
        mates = decisions[CONTEXT[row] == CONTEXT].double()
        np.testing.assert_allclose(per_class[row], mates.mean(dim=0), rtol=1e-5)


def test_p_values_are_those_of_a_one_sided_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    policy, within, over_all = (rng.random(6) + shift for shift in (0, 0.1, 0.4))
    verdict = judge_adaptivity(list(policy), list(within), list(over_all))
    for p_value, loss, other in (
        (verdict.p_within_class, verdict.loss_within_class, within),
        (verdict.p_over_all, verdict.loss_over_all, over_all),
    ):
        assert p_value == pytest.approx(stats.ttest_rel(other, policy, alternative="greater").pvalue)
        assert loss == pytest.approx((other - policy).mean())


POLICY = [0.20, 0.22, 0.21, 0.19, 0.23]


def shifted(by: float, noise: float = 0.01) -> list[float]:
    return [p + by + noise * sign for p, sign in zip(POLICY, (1, -1, 0.5, -0.7, 0.1), strict=True)]


@pytest.mark.parametrize(
    ("within", "over_all", "adaptivity", "words"),
    [
        (shifted(0.1), shifted(0.2), Adaptivity.PER_IMAGE, "adaptive per image"),
        (shifted(0.0), shifted(0.2), Adaptivity.PER_CLASS_AT_LEAST, "per image or only per class, 5 seeds cannot tell"),
        (shifted(0.0, 0.003), shifted(0.2), Adaptivity.PER_CLASS, "adaptive per class only"),
        (shifted(0.0), shifted(0.0), Adaptivity.UNKNOWN, "5 seeds cannot tell"),
        (shifted(0.0, 0.003), shifted(0.0, 0.003), Adaptivity.NONE, "a schedule would do"),
        (shifted(0.002, 0.001), shifted(0.002, 0.001), Adaptivity.NONE, "a schedule would do"),  # shown, and too little
        (shifted(-0.1), shifted(-0.2), Adaptivity.NONE, "not adaptive"),
        (POLICY, POLICY, Adaptivity.NONE, "not adaptive"),
        (POLICY, shifted(0.2), Adaptivity.PER_CLASS, "adaptive per class only"),
        (shifted(0.1, 0), shifted(0.1, 0), Adaptivity.PER_IMAGE, "adaptive per image"),
    ],
)
def test_the_verdict_follows_the_evidence(within, over_all, adaptivity: Adaptivity, words: str) -> None:
    verdict = judge_adaptivity(POLICY, within, over_all)
    assert verdict.adaptivity is adaptivity
    assert words in verdict.sentence


def test_differences_of_rounding_size_are_no_evidence() -> None:
    wobble = [p + 1e-9 * sign for p, sign in zip(POLICY, (1, -1, 1, -1, -1), strict=True)]
    assert judge_adaptivity(POLICY, wobble, wobble).adaptivity is Adaptivity.NONE


def test_that_nothing_was_found_is_not_said_to_be_nothing() -> None:
    """Of policies that are adaptive by half a spread, five seeds find few; none may be called a schedule for it."""
    rng = np.random.default_rng(0)
    said = []
    for _ in range(300):
        policy = 0.2 + 0.015 * rng.standard_normal(5)
        shuffled = policy + 0.01 + 0.015 * rng.standard_normal(5)
        said.append(judge_adaptivity(list(policy), None, list(shuffled)).adaptivity)
    assert said.count(Adaptivity.NONE) <= 0.05 * len(said)
    assert said.count(Adaptivity.UNKNOWN) > 0.3 * len(said)


def test_one_seed_is_no_evidence() -> None:
    with pytest.raises(ValueError, match="at least 2 seeds"):
        judge_adaptivity([0.2], [0.21], [0.21])


def test_few_seeds_that_show_nothing_do_not_say_that_there_is_nothing() -> None:
    verdict = judge_adaptivity([0.2, 0.3], [0.21, 0.3], [0.22, 0.3])
    assert verdict.adaptivity is Adaptivity.UNKNOWN
    assert "2 seeds cannot tell" in verdict.sentence
    clear = judge_adaptivity([0.2, 0.3], None, [0.7, 0.8])
    assert clear.adaptivity is Adaptivity.PER_IMAGE_OR_CAPTION
