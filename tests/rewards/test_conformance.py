"""The template test of a reward, and rewards that break one rule each.

For a reward of your own, copy `TestInkReward` and put your class into `build`; `images` may be whatever it is made for.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from adanat_rl.config.findings import Finding, Status, failures
from adanat_rl.config.loading import resolve
from adanat_rl.rewards.base import RewardBatch, RewardError, RewardModel, RewardOutput, check_scores
from adanat_rl.rewards.build import build_reward_parts
from adanat_rl.rewards.conformance import check_reward, example_batch
from tests import tiny

_EXAMPLE = Path(__file__).parents[2] / "examples" / "own_reward.py"
_SPEC = importlib.util.spec_from_file_location("own_reward_example", _EXAMPLE)
own_reward = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(own_reward)


class TestInkReward:
    """The reward of `examples/`; a template."""

    def build(self) -> RewardModel:
        return own_reward.InkReward(target=0.5)

    def images(self) -> RewardBatch:
        return example_batch(48, channels=1, size=8, num_contexts=10)

    def test_it_keeps_the_contract(self) -> None:
        findings = check_reward(self.build, self.images())
        assert not failures(findings), "\n".join(map(str, findings))


@pytest.mark.parametrize("kind", ["adversarial", "classifier", "fid", "nat_pass_cost"])
def test_built_in_rewards_keep_the_contract(kind: str) -> None:
    config = resolve(overrides=[*tiny.OVERRIDES, f"reward.kind={kind}", "reward.fid.group_size=8"])
    parts = build_reward_parts(config)
    findings = check_reward(lambda: build_reward_parts(config).model, example_batch(), parts.real)
    assert not failures(findings), "\n".join(map(str, findings))
    notes = [finding.rule for finding in findings if finding.status is Status.NOTE]
    assert ("a score does not depend on batch mates" in notes) == (kind == "fid")


class Good(RewardModel):
    """A trained reward that keeps every rule; the others break one."""

    num_updates = 3

    def __init__(self) -> None:
        self.weight = torch.tensor([0.5, 0.25])

    def score(self, batch):
        means = batch.images.mean(dim=(1, 2, 3))
        return RewardOutput(self.weight[0] * means + self.weight[1], {"mean": means})

    def update(self, generated, real, generator, num_updates):
        rows = torch.from_numpy(generator.integers(0, len(generated), 4))
        self.weight = self.weight + generated.rows(rows).images.mean() * num_updates
        return {"steps": float(num_updates)}

    def state_dict(self):
        return {"weight": self.weight.clone()}

    def load_state_dict(self, state):
        self.weight = state["weight"].clone()


class Failing(Good):
    def __init__(self) -> None:
        raise KeyError("no licence")


class Raising(Good):
    def score(self, batch):
        raise RuntimeError("out of memory")


class Bare(Good):
    def score(self, batch):
        return super().score(batch).scores


class Column(Good):
    def score(self, batch):
        return RewardOutput(super().score(batch).scores[:, None])


class Whole(Good):
    def score(self, batch):
        return RewardOutput(batch.labels)


class Double(Good):
    def score(self, batch):
        return RewardOutput(super().score(batch).scores.double())


class ShortInfo(Good):
    def score(self, batch):
        return RewardOutput(super().score(batch).scores, {"mean": torch.zeros(())})


class NotFinite(Good):
    def score(self, batch):
        scores = super().score(batch).scores.clone()
        scores[3] = torch.nan
        return RewardOutput(scores)


class Random(Good):
    def score(self, batch):
        return RewardOutput(torch.rand(len(batch)))


class Centred(Good):
    def score(self, batch):
        scores = super().score(batch).scores
        return RewardOutput(scores - scores.mean())


class Ranked(Good):
    """Depends on the order alone."""

    def score(self, batch):
        scores = super().score(batch).scores
        return RewardOutput(scores + (torch.arange(len(batch)) if len(batch) == 48 else 0))


class Scribbling(Good):
    def score(self, batch):
        scores = super().score(batch).scores
        batch.images.clamp_(0.1, 0.9)
        return RewardOutput(scores)


class Nested(Good):
    def state_dict(self):
        return {"network": {"weight": self.weight}}


class Diverging(Good):
    def update(self, generated, real, generator, num_updates):
        return {"loss": float("nan")}


class Still(Good):
    def update(self, generated, real, generator, num_updates):
        return {"loss": 0.5}


class Forgetful(Good):
    """Half of what it learns is not in its state."""

    def state_dict(self):
        return {"weight": self.weight[:1].clone()}

    def load_state_dict(self, state):
        self.weight = torch.stack([state["weight"][0], self.weight[1]])


class Gambling(Good):
    """Draws from torch's generator instead of the one it is handed."""

    def update(self, generated, real, generator, num_updates):
        self.weight = self.weight + torch.rand(2)
        return {"loss": 0.5}


class Marking(Good):
    """Changes the labels while it learns."""

    def update(self, generated, real, generator, num_updates):
        metrics = super().update(generated, real, generator, num_updates)
        generated.labels.zero_()
        return metrics


class NoUpdate(Good):
    update = RewardModel.update


@pytest.mark.parametrize(
    ("cls", "rule", "detail"),
    [
        (Failing, "constructor", "KeyError: 'no licence'"),
        (Raising, "score", "RuntimeError: out of memory"),
        (Bare, "scores", "a Tensor, expected a RewardOutput"),
        (Column, "scores: shape", "[48, 1], expected [48]"),
        (Whole, "scores: dtype", "torch.int64; expected torch.float32"),
        (ShortInfo, "info 'mean': shape", "[], expected [48]"),
        (NotFinite, "scores: finite", "1 of 48 are NaN or infinite"),
        (Random, "the same batch, the same scores", "differ by up to"),
        (Centred, "a score does not depend on batch mates", "alone; where that is meant, declare set_valued = True"),
        (Ranked, "a score does not depend on batch mates", "image"),
        (Scribbling, "scoring leaves its input alone", "images changed"),
        (Nested, "state", "'network' is a dict"),
        (Diverging, "update: finite metrics", "loss not finite"),
        (Still, "update changes the state", "0 of 1 tensors"),
        (Forgetful, "a fresh model with the state scores the same", "is all in state_dict?"),
        (Gambling, "update is a pure function", "a second model differs in weight"),
        (Marking, "update leaves its input alone", "labels changed"),
        (NoUpdate, "update", "NotImplementedError: NoUpdate has num_updates > 0 but no update method"),
    ],
)
def test_a_broken_rule_is_found(cls: Callable[[], RewardModel], rule: str, detail: str) -> None:
    found = {finding.rule: finding.detail for finding in failures(check_reward(cls, example_batch()))}
    assert rule in found, found
    assert detail in found[rule]


def test_a_reward_that_keeps_every_rule_has_no_failure_and_is_asked_about_all_of_them() -> None:
    findings = check_reward(Good, example_batch())
    assert {finding.status for finding in findings} == {Status.PASS}
    rules = [finding.rule for finding in findings]
    assert len(rules) == len(set(rules)) == 18
    assert rules[0] == "constructor"
    assert rules[-1] == "a fresh model with the state scores the same"


class Trained(Good):
    """A network whose scores hang on a graph, and which leaves no trace of its dropout outside of training."""

    set_valued = True

    def __init__(self) -> None:
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 1)).eval()
        for parameter in self.network.parameters():
            nn.init.constant_(parameter, 0.1)

    def score(self, batch):
        scores = self.network(batch.images)[:, 0]
        return RewardOutput(scores - scores.mean())

    def update(self, generated, real, generator, num_updates):
        for parameter in self.network.parameters():
            parameter.data += generator.random()
        return {"real": float(len(real))}

    def state_dict(self):
        return copy.deepcopy(self.network.state_dict())

    def load_state_dict(self, state):
        self.network.load_state_dict(state)


def test_what_is_allowed_but_worth_knowing_is_a_note() -> None:
    findings = check_reward(Trained, example_batch(), example_batch(7, seed=1))
    assert not failures(findings)
    notes = {finding.rule: finding.detail for finding in findings if finding.status is Status.NOTE}
    assert set(notes) == {"scores: no graph", "a score does not depend on batch mates"}
    assert "real 7" in next(finding.detail for finding in findings if finding.rule == "update: finite metrics")


class Idle(Good):
    num_updates = 0


def test_an_update_that_nobody_calls_is_a_note() -> None:
    notes = [finding for finding in check_reward(Idle, example_batch()) if finding.status is not Status.PASS]
    assert notes == [Finding("update", Status.NOTE, "update is never called: num_updates and num_warmup_updates are 0")]


def test_the_example_batch_depends_on_its_seed_alone() -> None:
    first, again, other = example_batch(5), example_batch(5), example_batch(5, seed=1)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert first.images.shape == (5, 1, 8, 8)
    assert np.ptp(first.labels.numpy()) > 0


GIVEN = {
    "float64": lambda scores: scores.double(),
    "float16": lambda scores: scores.half(),
    "bfloat16": lambda scores: scores.bfloat16(),
    "with a graph": lambda scores: scores.clone().requires_grad_(),
    "integers": lambda scores: scores.long(),
    "booleans": lambda scores: scores > 0,
    "complex": lambda scores: scores.to(torch.complex64),
    "list": lambda scores: scores.tolist(),
    "numpy": lambda scores: scores.numpy(),
    "column": lambda scores: scores[:, None],
    "one": lambda scores: scores[0],
    "fewer": lambda scores: scores[1:],
    "not a number": lambda scores: scores / 0 * 0,
    "too large for float32": lambda scores: scores.double() * 1e300,
    "none": lambda scores: None,
}
TAKEN = {"float64", "float16", "bfloat16", "with a graph"}


@pytest.mark.parametrize("given", GIVEN)
def test_training_and_check_take_and_refuse_the_same_scores(given: str) -> None:
    class Giving(RewardModel):
        set_valued = True  # half precision differs between batches

        def score(self, batch):
            return RewardOutput(GIVEN[given](batch.images.mean(dim=(1, 2, 3))))

    batch = example_batch()
    output = Giving().score(batch)
    try:
        scores, _ = check_scores("giving", output, len(batch))
    except RewardError:
        scores = None
    broken = failures(check_reward(Giving, batch))
    assert (scores is not None) == (given in TAKEN)
    assert bool(broken) == (given not in TAKEN), "\n".join(map(str, broken))
    if scores is not None:
        assert scores.dtype == np.float32
        expected = GIVEN[given](batch.images.mean(dim=(1, 2, 3))).detach().double().numpy()
        np.testing.assert_allclose(scores, expected, rtol=1e-6)
