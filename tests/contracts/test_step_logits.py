from __future__ import annotations

import pytest
import torch

from adanat_rl.generation.masked.step_rule import draw_tokens, guided_logits, remask
from tests.contracts.parity import ParityModule

MODULE = ParityModule("step_logits")
CASES = sorted({name.split("__")[0] for name in MODULE.description["arrays"]})
MASK = MODULE.description["constructor"]["mask_id"]


def test_all_thirteen_cases_are_there() -> None:
    assert len(CASES) == 13


@pytest.mark.parametrize("case", CASES)
def test_step_rule_gives_the_tokens_of_the_official_sampler(case: str) -> None:
    conditional, unconditional, tokens, g1, g2 = (
        MODULE.tensor(f"{case}__{name}") for name in ("cond", "uncond", "masked_in", "g1", "g2")
    )
    ratio, confidence_temperature, sampling_temperature, guidance = MODULE.tensor(f"{case}__params")
    logits = guided_logits(conditional, unconditional, guidance)
    drawn = draw_tokens(logits, tokens, MASK, sampling_temperature, g1)
    MODULE.check(f"{case}__sampled", drawn)
    MODULE.check(f"{case}__masked_out", remask(logits, tokens, drawn, MASK, ratio, confidence_temperature, g2))
    assert drawn.dtype == torch.int64
