r"""The kit that a reward model is checked with: what the contract asks for, tried on images, one finding per rule.

`adanat-rl check-reward module:Class` runs it on images of a preset. In a test of your own:

    from adanat_rl.config.findings import failures
    from adanat_rl.rewards.conformance import check_reward, example_batch

    def test_my_reward_obeys_the_contract():
        findings = check_reward(MyReward, example_batch(channels=1, size=8, num_contexts=10))
        assert not failures(findings), "\n".join(map(str, findings))

`check_reward` is handed what builds the model, not a model: each rule starts with a fresh one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adanat_rl.config.findings import Finding, Status, failed, failures, held, name_of, passed
from adanat_rl.rewards.base import (
    DTYPE,
    FINITE,
    SHAPE,
    ImageSet,
    RewardBatch,
    RewardError,
    RewardModel,
    RewardOutput,
    check_metrics,
    problem_of,
)

_ALONE = 8  # rows that are scored alone
_UPDATES = 2  # at most so many gradient steps
_EQUAL = 1e-6  # relative to the largest score: what differs less is rounding of float32
CONSTANT = "scores differ between images"


def constructor_failed(error: BaseException) -> Finding:
    """What is found of a model that cannot be made."""
    return failed("constructor", name_of(error))


def example_batch(
    num_images: int = 48, *, channels: int = 1, size: int = 8, num_contexts: int = 10, seed: int = 0
) -> RewardBatch:
    """Random images, for who has no generator at hand.

    Args:
        num_images: B. channels, size: of the images. num_contexts: classes or captions. seed: of all of it.
    """
    generator = torch.Generator().manual_seed(seed)
    return RewardBatch(
        torch.rand(num_images, channels, size, size, generator=generator),
        torch.randint(0, num_contexts, (num_images,), generator=generator),
        torch.randint(1, 9, (num_images,), generator=generator),
    )


def check_reward(
    build: Callable[[], RewardModel],
    batch: RewardBatch,
    real: ImageSet | None = None,
    *,
    tolerance: float = 1e-4,
    seed: int = 0,
    begin: Callable[[str], None] = lambda phase: None,
) -> list[Finding]:
    """Findings in the order of the rules; later rules are left out where earlier ones make them pointless.

    Args:
        build: makes the model, the same one every time. batch: generated images; at least 4, not all alike.
        real: real images, for a model that compares with them.
        tolerance: by which scores may differ between batches, relative to the largest one.
        seed: of what an update draws. begin: told the name of each phase.
    """
    begin("constructor")
    try:
        model: Any = build()  # whatever a user's code makes; so are its scores and state
    except (Exception, SystemExit) as error:  # whatever a user's constructor does
        return [constructor_failed(error)]
    if not isinstance(model, RewardModel):
        return [failed("constructor", f"made a {type(model).__name__}, expected a RewardModel")]
    findings = [passed("constructor", f"makes a {type(model).__name__}")]
    before = _copy(batch)
    begin("score")
    try:
        found = _check_output(model, batch)
        findings += found
        if not failures(found):
            findings.append(_check_repetition(model, batch))
            findings.append(_check_mates(model, batch, tolerance))
            findings.append(_check_differences(model, batch))
            findings.append(_check_time(model, batch))
        findings.append(_check_untouched("scoring leaves its input alone", before, batch))
    except (Exception, SystemExit) as error:  # whatever a user's model does
        return [*findings, failed("score", name_of(error))]
    if failures(findings):
        return findings
    begin("update")
    try:
        return findings + _check_training(build, batch, real, seed)
    except (Exception, SystemExit) as error:  # whatever a user's model does
        return [*findings, failed("update", name_of(error))]


# --- scores


def _check_output(model: RewardModel, batch: RewardBatch) -> list[Finding]:
    """Type, shape, dtype and finiteness of the scores and of further numbers."""
    output: Any = model.score(batch)
    if not isinstance(output, RewardOutput):
        return [failed("scores", f"a {type(output).__name__}, expected a RewardOutput")]
    info: Any = output.info
    if not isinstance(info, Mapping):
        return [failed("info", f"a {type(info).__name__}, expected a dict of tensors")]
    findings = []
    for name, values in {
        "scores": output.scores,
        **{f"info {key!r}": value for key, value in output.info.items()},
    }.items():
        problem = problem_of(values, len(batch))
        if problem is not None and problem.rule == SHAPE:
            findings.append(failed(f"{name}: {SHAPE}", f"{problem.found}, expected [{len(batch)}]"))
            continue
        findings.append(passed(f"{name}: {SHAPE}", f"[{len(batch)}]"))
        if problem is not None and problem.rule == DTYPE:
            findings.append(failed(f"{name}: {DTYPE}", f"{problem.found}; expected torch.float32"))
            continue
        told = passed(f"{name}: {DTYPE}", f"{values.dtype}")
        if values.dtype != torch.float32:
            told = Finding(told.rule, Status.NOTE, f"{values.dtype}, which is turned into torch.float32")
        findings.append(told)
        bad = problem.found if problem is not None else ""
        findings.append(held(f"{name}: {FINITE}", not bad, f"{bad} are NaN or infinite" if bad else "all", "all"))
        if values.requires_grad:
            findings.append(
                Finding(
                    f"{name}: no graph", Status.NOTE, "a graph of gradients hangs on; @torch.no_grad() saves memory"
                )
            )
    return findings


def _check_repetition(model: RewardModel, batch: RewardBatch) -> Finding:
    first, second = _scores(model, batch), _scores(model, batch)
    same = torch.equal(first, second)
    detail = "the same bits twice" if same else f"scores of the same batch differ by up to {_gap(first, second):.2g}"
    return held("the same batch, the same scores", same, detail, "the same bits; draw nothing in score")


def _check_mates(model: RewardModel, batch: RewardBatch, tolerance: float) -> Finding:
    """The score of a row alone, in another order and among others is the one it has in the batch."""
    rule = "a score does not depend on batch mates"
    if type(model).set_valued:
        return Finding(rule, Status.NOTE, "depends on batch mates, as set_valued declares; shards are scored whole")
    whole = _scores(model, batch)
    rows = torch.linspace(0, len(batch) - 1, min(_ALONE, len(batch))).long()
    backwards = torch.arange(len(batch)).flip(0)
    trials = {
        "alone": (rows, torch.cat([_scores(model, batch.rows(row[None])) for row in rows])),
        "in another order": (backwards, _scores(model, batch.rows(backwards))),
        "among fewer": (rows, _scores(model, batch.rows(rows))),
    }
    bound = tolerance * max(1e-6, float(whole.abs().max()))
    for where, (index, scores) in trials.items():
        gaps = (scores - whole[index]).abs()
        if float(gaps.max()) > bound:
            row = int(gaps.argmax())
            detail = (
                f"image {int(index[row])} has {whole[index[row]]:.6g} in the batch and {scores[row]:.6g} {where}; "
                "where that is meant, declare set_valued = True"
            )
            return failed(rule, detail)
    return passed(rule, f"alone, in another order, among fewer: within {tolerance:g} of the largest score")


def _check_differences(model: RewardModel, batch: RewardBatch) -> Finding:
    scores = _scores(model, batch).double()
    if float(scores.max() - scores.min()) > _EQUAL * float(scores.abs().max()):
        return passed(CONSTANT, f"from {float(scores.min()):.4g} to {float(scores.max()):.4g}")
    detail = f"all {len(batch)} are {float(scores[0]):.4g}: standardised they are 0, and nothing is learned from them"
    return Finding(CONSTANT, Status.NOTE, detail)


def _check_time(model: RewardModel, batch: RewardBatch) -> Finding:
    start = time.perf_counter()
    model.score(batch)
    seconds = time.perf_counter() - start
    return passed("time", f"{1000 * seconds / len(batch):.3g} ms an image, {len(batch)} at once")


def _check_untouched(rule: str, before: RewardBatch, after: RewardBatch) -> Finding:
    changed = [
        name for name in ("images", "labels", "num_passes") if not _same(getattr(before, name), getattr(after, name))
    ]
    return held(rule, not changed, f"{', '.join(changed)} changed" if changed else "unchanged", "unchanged")


# --- state and training


def _check_training(
    build: Callable[[], RewardModel], batch: RewardBatch, real: ImageSet | None, seed: int
) -> list[Finding]:
    model = build()
    before = _state(model)
    if isinstance(before, str):
        return [failed("state", before)]
    findings = [passed("state", f"{len(before)} tensors")]
    wanted = max(model.num_updates, model.num_warmup_updates)
    if not wanted:
        if type(model).update is not RewardModel.update:
            detail = "update is never called: num_updates and num_warmup_updates are 0"
            findings.append(Finding("update", Status.NOTE, detail))
        return [*findings, _check_round_trip(build, model, batch)]
    compared = batch.rows(torch.zeros(0, dtype=torch.int64)) if real is None else real
    kept = _copy(batch)

    def update(model: RewardModel) -> Mapping[str, float]:
        generator = np.random.Generator(np.random.Philox(seed))
        return model.update(batch, compared, generator, min(wanted, _UPDATES))

    try:
        metrics = check_metrics("of the check", update(model))
    except RewardError as error:
        return [*findings, failed("update: finite metrics", str(error))]
    findings.append(passed("update: finite metrics", ", ".join(f"{key} {value:.4g}" for key, value in metrics.items())))
    findings.append(_check_untouched("update leaves its input alone", kept, batch))
    after = _state(model)
    if isinstance(after, str):
        return [*findings, failed("state", f"after an update: {after}")]
    changed = [name for name in after if name not in before or not _same(before[name], after[name])]
    findings.append(
        held("update changes the state", bool(changed), f"{len(changed)} of {len(after)} tensors", "some tensor")
    )
    twin = build()
    twin.load_state_dict(before)
    again, state = check_metrics("of the check", update(twin)), _state(twin)
    findings.append(_check_purity(metrics, after, again, state, batch.images.is_cuda))
    return [*findings, _check_round_trip(build, model, batch)]


def _check_purity(
    metrics: Mapping[str, float],
    state: Mapping[str, Tensor],
    metrics_again: Mapping[str, float],
    state_again: Mapping[str, Tensor] | str,
    on_gpu: bool,
) -> Finding:
    """Two models with the same state, images and generator come to the same; a GPU may sum in another order."""
    rule = "update is a pure function"
    if isinstance(state_again, str):
        return failed(rule, f"a second model: {state_again}")
    different = [key for key in metrics if metrics[key] != metrics_again.get(key)]
    different += [key for key in state if key not in state_again or not _same(state[key], state_again[key])]
    if not different:
        return passed(rule, "a second model: the same bits")
    detail = f"a second model differs in {', '.join(different[:3])}"
    near = [key for key in different if key in state and key in state_again and _near(state[key], state_again[key])]
    near += [key for key in different if key in metrics and np.isclose(metrics[key], metrics_again.get(key, np.nan))]
    if on_gpu and len(near) == len(different):
        return Finding(rule, Status.NOTE, f"{detail}, by rounding on the GPU")
    return failed(rule, f"{detail}; expected the same bits from the same state, images and generator")


def _check_round_trip(build: Callable[[], RewardModel], model: RewardModel, batch: RewardBatch) -> Finding:
    """A fresh model with the state scores as the one it was taken from: what a resumed run relies on."""
    rule = "a fresh model with the state scores the same"
    fresh = build()
    fresh.load_state_dict(model.state_dict())
    expected, found = _scores(model, batch), _scores(fresh, batch)
    if torch.equal(expected, found):
        return passed(rule, "the same bits")
    return failed(rule, f"differs by up to {_gap(expected, found):.2g}; expected the same bits: is all in state_dict?")


def _state(model: RewardModel) -> dict[str, Tensor] | str:
    """A copy of the state, or what is wrong with it."""
    state: Any = model.state_dict()
    if not isinstance(state, Mapping):
        return f"state_dict gave a {type(state).__name__}, expected a dict"
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            return f"{key!r} is a {type(value).__name__}; expected names and tensors, without further levels"
    return {key: value.detach().clone() for key, value in state.items()}


# --- small helpers


def _scores(model: RewardModel, batch: RewardBatch) -> Tensor:
    return model.score(batch).scores.detach().cpu()


def _copy(batch: RewardBatch) -> RewardBatch:
    num_passes = None if batch.num_passes is None else batch.num_passes.clone()
    return RewardBatch(batch.images.clone(), batch.labels.clone(), num_passes)


def _same(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return first.dtype == second.dtype and torch.equal(first.detach().cpu(), second.detach().cpu())


def _near(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.allclose(first.double(), second.double(), rtol=1e-3, atol=1e-5)


def _gap(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())
