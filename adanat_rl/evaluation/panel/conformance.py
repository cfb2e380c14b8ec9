r"""The kit that a judge is checked with: what the contract asks for, tried on real images, one finding per rule.

`adanat-rl check-judge module:Class` runs it on the images of a small data set. In a test of your own:

    from adanat_rl.config.findings import failures
    from adanat_rl.evaluation.panel.conformance import check_judge

    def test_my_judge_obeys_the_contract():
        findings = check_judge(MyJudge(data), images, classes)
        assert not failures(findings), "\n".join(map(str, findings))
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from adanat_rl.config.findings import Finding, failed, failures, held, name_of, noted, passed
from adanat_rl.evaluation.panel.defects import DEFECTS
from adanat_rl.evaluation.panel.own import problem_of

_ALONE = 8  # rows whose features are asked for alone


@torch.no_grad()
def check_judge(
    judge: Any,
    images: Tensor,
    context: Tensor,
    *,
    tolerance: float = 1e-4,
    begin: Callable[[str], None] = lambda phase: None,
) -> list[Finding]:
    """Findings in the order of the rules; later rules are left out where earlier ones make them pointless.

    Args:
        judge: what somebody has written. images: real ones `[N, C, H, W]` in [0, 1]. context: `[N]`, their classes.
        tolerance: by which features may differ between batches, relative to the largest.
        begin: told the name of each phase.
    """
    begin("announcement")
    try:
        problem = problem_of(judge)
    except (Exception, SystemExit) as error:  # whatever a user's properties do
        problem = name_of(error)
    if problem:
        return [failed("announcement", problem)]
    keys = ", ".join(value.key for value in judge.values)
    findings = [passed("announcement", f"{judge.name} ({judge.kind}): {keys}; blind to {judge.blind_to}")]
    try:
        begin("features")
        found = _check_features(judge.space, images, tolerance)
        findings += found
        if failures(found):
            return findings
        begin("numbers")
        found = _check_numbers(judge, images, context)
        findings += found
        if not failures(found):
            findings.append(_check_sight(judge, images, context))
    except (Exception, SystemExit) as error:  # whatever a user's judge does
        findings.append(failed("calls", name_of(error)))
    return findings


def _check_features(space: Any, images: Tensor, tolerance: float) -> list[Finding]:
    before = images.clone()
    start = time.perf_counter()
    features = space(images)
    seconds = time.perf_counter() - start
    if not isinstance(features, Tensor):
        return [failed("features: shape", f"a {type(features).__name__}, expected a tensor")]
    shape = list(features.shape)
    if features.dim() != 2 or len(features) != len(images) or not features.shape[1]:
        return [failed("features: shape", f"{shape}, expected [{len(images)}, D]")]
    findings = [passed("features: shape", f"{shape}; {1000 * seconds / len(images):.3g} ms an image")]
    if features.is_complex() or features.dtype == torch.bool:
        return [*findings, failed("features: dtype", f"{features.dtype}; expected torch.float32")]
    findings.append(passed("features: dtype", str(features.dtype)))
    bad = int((~features.isfinite()).sum())
    findings.append(held("features: finite", not bad, f"{bad} are NaN or infinite" if bad else "all", "all"))
    findings.append(_left_alone("images", before, images))
    is_same = torch.equal(features, space(images))
    detail = "the same bits twice" if is_same else "they differ from one call to the next"
    findings.append(held("the same images, the same features", is_same, detail, "the same bits; draw nothing"))
    if failures(findings):
        return findings
    rows = torch.linspace(0, len(images) - 1, min(_ALONE, len(images))).long()
    alone = torch.cat([space(images[row : row + 1]) for row in rows])
    gap = float((alone.double() - features[rows].double()).abs().max())
    bound = tolerance * max(1e-6, float(features.double().abs().max()))
    detail = f"alone they differ by up to {gap:.2g}"
    return [*findings, held("a row depends on its image alone", gap <= bound, detail, f"{bound:.2g} at most")]


def _check_numbers(judge: Any, images: Tensor, context: Tensor) -> list[Finding]:
    features = judge.space(images).float().cpu()
    before = features.clone()
    start = time.perf_counter()
    numbers = judge(features, context)
    seconds = time.perf_counter() - start
    if not isinstance(numbers, Mapping):
        return [failed("numbers", f"a {type(numbers).__name__}, expected numbers by key")]
    expected = sorted(value.key for value in judge.values)
    if sorted(map(str, numbers)) != expected:
        return [failed("numbers", f"keys {sorted(map(str, numbers))}, expected those announced: {expected}")]
    floats = {key: float(number) for key, number in numbers.items()}
    told = ", ".join(f"{key} {number:.4g}" for key, number in floats.items())
    findings = [passed("numbers", f"{told}; {seconds:.2g} s for {len(images)} images")]
    bad = [key for key, number in floats.items() if not math.isfinite(number)]
    findings.append(held("numbers: finite", not bad, f"{', '.join(bad)} not" if bad else "all", "all"))
    findings.append(_left_alone("features", before, features))
    again = {key: float(number) for key, number in judge(features, context).items()}
    differing = [key for key in floats if floats[key] != again[key] and math.isfinite(floats[key])]
    detail = f"{', '.join(differing)} differ" if differing else "the same bits twice"
    findings.append(held("the same features, the same numbers", not differing, detail, "the same bits; draw nothing"))
    return findings


def _left_alone(what: str, before: Tensor, after: Tensor) -> Finding:
    is_same = torch.equal(before, after)
    return held(f"{what} are left alone", is_same, "unchanged" if is_same else "changed", "unchanged")


def _check_sight(judge: Any, images: Tensor, context: Tensor) -> Finding:
    """Which planted defects move a number of it to the worse by more than its margin."""
    sound = judge(judge.space(images).float().cpu(), context)
    seen = []
    planted = {name: defect(images, context) for name, defect in DEFECTS.items()}
    for name, (changed, drawn_for) in planted.items():
        found = judge(judge.space(changed).float().cpu(), drawn_for)
        for value in judge.values:
            worse = float(found[value.key]) - float(sound[value.key])
            if (worse if value.minimises else -worse) > value.margin_at(float(sound[value.key])):
                seen.append(name)
                break
    rule = "planted defects"
    missed = [name for name in DEFECTS if name not in seen]
    if not seen:
        return noted(rule, f"it sees none of {', '.join(DEFECTS)}: does it judge anything that matters here?")
    return passed(rule, f"sees {', '.join(seen)}" + (f"; not {', '.join(missed)}" if missed else ""))
