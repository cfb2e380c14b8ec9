from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import resolve
from adanat_rl.rewards.base import RewardBatch, RewardError, RewardModel, RewardOutput, check_scores
from adanat_rl.rewards.build import build_reward_parts, reward_class
from adanat_rl.rewards.service import LocalRewardService
from adanat_rl.rewards.worker import RewardParts, RewardWorker


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_finite_scores_come_out_as_float32(dtype: torch.dtype) -> None:
    scores, _ = check_scores("mine", RewardOutput(torch.tensor([0.5, -2.0, 0.0], dtype=dtype, requires_grad=True)), 3)
    assert isinstance(scores, np.ndarray)
    assert scores.dtype == np.float32
    assert scores.tolist() == [0.5, -2.0, 0.0]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (torch.zeros(2), r"scores of shape \[2\], expected \[3\]"),
        (torch.zeros(3, 1), r"scores of shape \[3, 1\], expected \[3\]"),
        (torch.tensor(0.5), r"scores of shape \[\], expected \[3\]"),
        (torch.zeros(0), r"scores of shape \[0\], expected \[3\]"),
        ([0.1, 0.2, 0.3], "scores of shape list"),
        (np.zeros(3, np.float32), "scores of shape ndarray"),
        (0.5, "scores of shape float"),
        (None, "scores of shape NoneType"),
        (torch.zeros(3, dtype=torch.int64), "scores of type torch.int64, expected float32"),
        (torch.zeros(3, dtype=torch.bool), "scores of type torch.bool"),
        (torch.zeros(3, dtype=torch.complex64), "scores of type torch.complex64"),
        (torch.tensor([0.1, float("nan"), 0.2]), "1 of 3 scores that are NaN or infinite"),
        (torch.tensor([float("inf"), float("-inf"), 0.2]), "2 of 3 scores that are NaN or infinite"),
        (torch.tensor([1e300, 0.0, 0.0], dtype=torch.float64), "1 of 3 scores that are NaN or infinite"),
    ],
)
def test_what_is_no_score_is_an_error_that_names_the_reward(scores, message: str) -> None:
    with pytest.raises(RewardError, match=f"reward mine returned .*{message}"):
        check_scores("mine", RewardOutput(scores), 3)


def test_the_rows_with_wrong_scores_are_known_and_survive_pickling() -> None:
    scores = torch.tensor([0.1, float("nan"), 0.2, float("inf")])
    with pytest.raises(RewardError) as caught:
        check_scores("mine", RewardOutput(scores), 4)
    assert caught.value.rows == (1, 3)
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (str(copied), copied.rows) == (str(caught.value), (1, 3))
    with pytest.raises(RewardError) as caught:
        check_scores("mine", RewardOutput(scores[:2]), 4)
    assert caught.value.rows == ()


class MeanBrightness(RewardModel):
    """The mean of an image, times a factor that training counts up."""

    num_updates = 2
    num_warmup_updates = 5

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = torch.tensor(factor)

    def score(self, batch: RewardBatch) -> RewardOutput:
        means = batch.images.mean(dim=(1, 2, 3))
        return RewardOutput(self.factor * means, {"label": batch.labels.float()})

    def update(self, generated, real, generator, num_updates):
        self.factor = self.factor + num_updates + float(generator.random())
        return {"seen": float(len(generated)), "real": float(len(real))}

    def state_dict(self):
        return {"factor": self.factor.clone()}

    def load_state_dict(self, state):
        self.factor = state["factor"].clone()


def worker_of(model: RewardModel, real: RewardBatch | None = None) -> RewardWorker:
    def decode(sample: torch.Tensor) -> torch.Tensor:
        return (sample.float() / 10).view(-1, 1, 2, 2)

    return RewardWorker(lambda: RewardParts("mine", model, decode, real))


SAMPLES, LABELS = np.arange(12, dtype=np.uint8).reshape(3, 4), np.array([1, 0, 2])


def test_a_worker_decodes_and_scores() -> None:
    scores = worker_of(MeanBrightness()).score(0, SAMPLES, LABELS)
    np.testing.assert_allclose(scores.scores, SAMPLES.mean(axis=1) / 10, rtol=1e-6)
    assert scores.info["label"].tolist() == [1, 0, 2]
    assert scores.info["label"].dtype == np.float32
    assert scores.version == 0


def test_samples_of_any_dtype_are_decoded() -> None:
    expected = worker_of(MeanBrightness()).score(0, SAMPLES, LABELS).scores
    for dtype in (np.uint16, np.int64, np.float32):
        np.testing.assert_array_equal(
            worker_of(MeanBrightness()).score(0, SAMPLES.astype(dtype), LABELS).scores, expected
        )


def test_a_worker_says_how_often_its_model_is_updated() -> None:
    assert worker_of(MeanBrightness()).settings() == {"num_updates": 2, "num_warmup_updates": 5}


def test_an_update_makes_the_next_version() -> None:
    worker = worker_of(MeanBrightness(), RewardBatch(torch.zeros(7, 1, 2, 2), torch.zeros(7, dtype=torch.int64)))
    metrics, state = worker.update(0, SAMPLES, LABELS, (1, 2, 3), 4)
    assert metrics == {"seen": 3.0, "real": 7.0}
    assert 5 < state["factor"].item() < 6
    assert worker.score(1, SAMPLES, LABELS).version == 1


def test_another_version_than_the_loaded_one_is_refused() -> None:
    worker = worker_of(MeanBrightness())
    worker.update(0, SAMPLES, LABELS, (1,), 1)
    with pytest.raises(RewardError, match="reward mine has version 1 loaded, expected 0"):
        worker.score(0, SAMPLES, LABELS)
    with pytest.raises(RewardError, match="has version 1 loaded, expected 2"):
        worker.update(2, SAMPLES, LABELS, (1,), 1)
    worker.load_state({"factor": torch.tensor(2.0)}, 9)
    assert worker.score(9, SAMPLES, LABELS).version == 9


def test_a_fresh_worker_with_the_state_goes_on_the_same_way() -> None:
    first, fresh = worker_of(MeanBrightness()), worker_of(MeanBrightness(77.0))
    first.update(0, SAMPLES, LABELS, (1, 2), 3)
    fresh.load_state(first.state(), 1)
    results = [worker.update(1, SAMPLES, LABELS, (1, 3), 2) for worker in (first, fresh)]
    assert results[0] == results[1]
    np.testing.assert_array_equal(first.score(2, SAMPLES, LABELS).scores, fresh.score(2, SAMPLES, LABELS).scores)


def test_the_key_of_an_update_decides_its_randomness() -> None:
    states = [
        worker_of(MeanBrightness()).update(0, SAMPLES, LABELS, key, 1)[1]["factor"] for key in ((1, 2), (1, 2), (1, 3))
    ]
    assert states[0] == states[1]
    assert states[0] != states[2]


class Broken(MeanBrightness):
    """A reward whose output is whatever the test says."""

    def __init__(self, output=None, metrics=None, info=None) -> None:
        super().__init__()
        self.output, self.metrics, self.info = output, metrics, info

    def score(self, batch):
        if isinstance(self.output, Exception):
            raise self.output
        return self.output

    def update(self, generated, real, generator, num_updates):
        if isinstance(self.metrics, Exception):
            raise self.metrics
        return self.metrics


SCORES = torch.zeros(3)


@pytest.mark.parametrize(
    "output",
    [
        RuntimeError("out of memory"),
        RewardOutput(torch.full((3,), float("nan"))),
        SCORES,
        (SCORES, {}),
        None,
        RewardOutput(SCORES, {"entropy": torch.zeros(2)}),
        RewardOutput(SCORES, {"entropy": torch.zeros(())}),
        RewardOutput(SCORES, {"entropy": 0.5}),
        RewardOutput(SCORES, {"entropy": [0.1, 0.2, 0.3]}),
    ],
    ids=["error", "NaN", "bare tensor", "tuple", "None", "short info", "scalar info", "number info", "list info"],
)
def test_a_reward_that_gives_something_else_fails_with_its_name(output) -> None:
    with pytest.raises(RewardError, match="reward mine"):
        worker_of(Broken(output)).score(0, SAMPLES, LABELS)


@pytest.mark.parametrize(
    "metrics",
    [RuntimeError("diverged"), {"loss": float("nan")}, {"loss": float("inf")}, None, 0.5, {"loss": "low"}],
    ids=["error", "NaN", "infinite", "None", "number", "word"],
)
def test_an_update_that_gives_no_metrics_fails_with_its_name(metrics) -> None:
    with pytest.raises(RewardError, match="reward mine"):
        worker_of(Broken(metrics=metrics)).update(0, SAMPLES, LABELS, (1,), 1)


class Frozen(RewardModel):
    """A reward that is not trained."""

    def score(self, batch):
        return RewardOutput(batch.images.mean(dim=(1, 2, 3)))


def test_a_reward_without_training_has_no_state_and_no_updates() -> None:
    model = Frozen()
    assert worker_of(model).settings() == {"num_updates": 0, "num_warmup_updates": 0}
    assert worker_of(model).state() == {}
    model.load_state_dict({})
    with pytest.raises(NotImplementedError, match="Frozen was given a state"):
        model.load_state_dict({"x": torch.zeros(1)})
    with pytest.raises(NotImplementedError, match="Frozen has num_updates"):
        model.update(None, None, np.random.default_rng(0), 1)


def test_rows_of_a_batch_keep_images_and_labels_together() -> None:
    batch = RewardBatch(torch.arange(5.0).view(5, 1, 1, 1), torch.arange(5) * 10)
    part = batch.rows(torch.tensor([3, 0]))
    assert part.images.flatten().tolist() == [3, 0]
    assert part.labels.tolist() == [30, 0]
    assert part.num_passes is None
    assert len(part) == 2
    counted = RewardBatch(batch.images, batch.labels, torch.arange(5) + 4)
    assert counted.rows(torch.tensor([3, 0])).num_passes.tolist() == [7, 4]
    assert next(iter(counted.batches([torch.tensor([2])]))).num_passes.tolist() == [6]


class Looking(RewardModel):
    """Tells what it is handed, in scoring and in an update."""

    def __init__(self) -> None:
        self.seen: list[RewardBatch] = []

    def score(self, batch):
        self.seen.append(batch)
        return RewardOutput(batch.labels.float())

    def update(self, generated, real, generator, num_updates):
        self.seen.append(generated.rows(torch.tensor([2, 0])))
        return {}


class NotLooking(Looking):
    """The same, without pixels."""

    sees_images = False


def test_passes_reach_the_model_and_pixels_only_where_they_are_looked_at() -> None:
    passes = np.array([4, 8, 6], np.int16)
    for model, shape in ((Looking(), [1, 2, 2]), (NotLooking(), [0, 0, 0])):
        worker = worker_of(model)
        worker.score(0, SAMPLES, LABELS, passes)
        worker.update(0, SAMPLES, LABELS, (1,), 1, passes)
        worker.score(1, SAMPLES, LABELS)
        whole, some, uncounted = model.seen
        assert list(whole.images.shape) == [3, *shape]
        assert whole.num_passes.dtype == torch.int64
        assert whole.num_passes.tolist() == [4, 8, 6]
        assert (some.num_passes.tolist(), some.labels.tolist()) == ([6, 4], [2, 1])
        assert uncounted.num_passes is None


def test_the_adversarial_reward_sees_reconstructions_of_the_real_images(digits, digits_generator) -> None:
    parts = build_reward_parts(resolve())
    tokens = digits_generator.tokenizer.encode(digits.images)
    assert torch.equal(parts.real.images, digits_generator.decode(tokens))
    assert torch.equal(parts.real.labels, digits.labels)
    assert parts.name == "adversarial"
    assert torch.equal(parts.decode(tokens[:3]), parts.real.images[:3])
    assert not parts.real.images.requires_grad


OWN_REWARD = """
from adanat_rl.rewards.base import RewardModel, RewardOutput

class Bright(RewardModel):
    def __init__(self, power: float = 1.0) -> None:
        self.power = power

    def score(self, batch):
        return RewardOutput(batch.images.mean(dim=(1, 2, 3)) ** self.power)

class NoReward: ...
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch) -> str:
    (tmp_path / "own_reward_of_a_test.py").write_text(OWN_REWARD)
    (tmp_path / "broken_reward_of_a_test.py").write_text("class Bright(:")
    (tmp_path / "failing_reward_of_a_test.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_reward_of_a_test"
    sys.modules.pop("own_reward_of_a_test", None)


def test_an_own_reward_is_built_from_its_name_and_arguments(own_module: str) -> None:
    config = resolve(overrides=[f"reward.kind={own_module}:Bright", "reward.args={power: 2.0}"])
    parts = build_reward_parts(config)
    assert parts.model.power == 2
    assert parts.real is None
    assert parts.name == f"{own_module}:Bright"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no_such_module_xyz:Reward", "cannot import no_such_module_xyz"),
        ("own_reward_of_a_test:Brights", r"has no Brights \(did you mean 'Bright'\?\)"),
        ("own_reward_of_a_test:NoReward", "is no subclass of adanat_rl.rewards.base.RewardModel"),
        ("own_reward_of_a_test:RewardOutput", "is no subclass"),
        ("broken_reward_of_a_test:Bright", "cannot import broken_reward_of_a_test"),
        ("failing_reward_of_a_test:Bright", "cannot import failing_reward_of_a_test.*no licence"),
        (".own_reward_of_a_test:Bright", "reward.kind"),
        ("own_reward_of_a_test:", "reward.kind"),
        (":Bright", "reward.kind"),
    ],
)
def test_an_own_reward_that_cannot_be_found_is_named(own_module: str, kind: str, message: str) -> None:
    with pytest.raises(UserError, match=f"reward.kind.*{message}|{message}"):
        reward_class(resolve(overrides=[f"reward.kind='{kind}'"]))


@pytest.mark.parametrize("args", ["{pow: 2.0}", "{power: 1.0, extra: 3}"])
def test_arguments_that_an_own_reward_does_not_take_are_named(own_module: str, args: str) -> None:
    with pytest.raises(UserError, match=r"reward\.args: .*unexpected keyword argument"):
        build_reward_parts(resolve(overrides=[f"reward.kind={own_module}:Bright", f"reward.args={args}"]))


OWN = """
import torch
from adanat_rl.rewards.base import RewardModel, RewardOutput

class Own(RewardModel):
    {line}

    def score(self, batch):
        return RewardOutput(torch.zeros(len(batch)))
"""


@pytest.mark.parametrize("value", ["()", "['real images']", "None", "'labels'", "3", "['no such thing']"])
def test_what_an_own_reward_requires_is_understood_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    name = f"own_requires_{abs(hash(value))}"
    (tmp_path / f"{name}.py").write_text(OWN.format(line=f"requires = {value}"))
    monkeypatch.syspath_prepend(tmp_path)
    config = resolve(overrides=[f"reward.kind={name}:Own"])
    if value == "()":
        assert reward_class(config).__name__ == "Own"
    else:
        with pytest.raises(UserError, match=r"requires .*; expected a set of labels"):
            reward_class(config)


@pytest.mark.parametrize("name", ["num_updates", "num_warmup_updates"])
@pytest.mark.parametrize("value", [None, "2", 1.5, -1, 10**9, True])
def test_numbers_of_updates_are_whole_numbers(name: str, value: object) -> None:
    class Own(RewardModel):
        def score(self, batch: RewardBatch) -> RewardOutput:
            return RewardOutput(torch.zeros(len(batch)))

    model = Own()
    setattr(model, name, value)
    with pytest.raises(UserError, match=f"mine: {name} is"):
        RewardWorker(lambda: RewardParts("mine", model, lambda tokens: tokens, None, "cpu")).settings()


def test_a_model_that_does_not_take_its_state_back_is_named() -> None:
    class Own(RewardModel):
        def score(self, batch: RewardBatch) -> RewardOutput:
            return RewardOutput(torch.zeros(len(batch)))

        def load_state_dict(self, state: object) -> None:
            raise ZeroDivisionError("no room")

    service = LocalRewardService(lambda: RewardParts("mine", Own(), lambda tokens: tokens, None, "cpu"))
    with pytest.raises(RewardError, match="reward mine failed to take over a state: ZeroDivisionError: no room"):
        service.load_state({}, 1)


@pytest.mark.parametrize("state", [[], None, {"a": 1}, {1: torch.zeros(1)}, {"a": torch.zeros(1, device="meta")}])
def test_a_state_that_is_no_dict_of_tensors_is_named(state: object) -> None:
    class Own(RewardModel):
        def score(self, batch: RewardBatch) -> RewardOutput:
            return RewardOutput(torch.zeros(len(batch)))

        def state_dict(self) -> object:
            return state

    worker = RewardWorker(lambda: RewardParts("mine", Own(), lambda tokens: tokens, None, "cpu"))
    with pytest.raises(RewardError, match="reward mine"):
        worker.state()


@pytest.mark.parametrize("scores", [torch.zeros(3, device="meta"), torch.zeros(3).to_sparse()])
def test_scores_without_numbers_are_refused(scores: torch.Tensor) -> None:
    with pytest.raises(RewardError, match="reward mine returned scores of type"):
        check_scores("mine", RewardOutput(scores), 3)
