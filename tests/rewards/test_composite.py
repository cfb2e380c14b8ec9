"""A weighted sum of rewards against NumPy, with parts that are fakes, workers in this process, or actors."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.loading import resolve
from adanat_rl.experiment.cluster import connect, required_cpus
from adanat_rl.rewards.base import RewardBatch, RewardModel, RewardOutput
from adanat_rl.rewards.build import build_reward_parts, reward_class
from adanat_rl.rewards.composite import CompositeRewardService, Part, part_names, reward_service, standardised
from adanat_rl.rewards.service import Finished, LocalRewardService
from adanat_rl.rewards.worker import RewardParts
from tests import tiny


class Brightness(RewardModel):
    """The mean of an image times a factor that training counts up."""

    def __init__(self, num_updates: int = 0, num_warmup_updates: int = 0, value: float | None = None) -> None:
        self.num_updates, self.num_warmup_updates, self.value = num_updates, num_warmup_updates, value
        self.factor = torch.tensor(1.0)

    def score(self, batch: RewardBatch) -> RewardOutput:
        means = batch.images.mean(dim=(1, 2, 3)) if self.value is None else torch.full((len(batch),), self.value)
        return RewardOutput(self.factor * means, {"label": batch.labels.float()})

    def update(self, generated, real, generator, num_updates):
        self.factor = self.factor + num_updates + float(generator.random())
        return {"steps": float(num_updates)}

    def state_dict(self):
        return {"factor": self.factor.clone()}

    def load_state_dict(self, state):
        self.factor = state["factor"].clone()


class Ids(Brightness):
    """The label, so that it ranks images otherwise than brightness does."""

    def score(self, batch: RewardBatch) -> RewardOutput:
        return RewardOutput(self.factor * batch.labels.float() ** 2)


def local(model: RewardModel) -> LocalRewardService:
    def decode(sample: torch.Tensor) -> torch.Tensor:
        return (sample.float() / 10).view(-1, 1, 2, 2)

    return LocalRewardService(lambda: RewardParts("of a test", model, decode, None))


def finished(*sizes: int) -> list[Finished]:
    generator = np.random.default_rng(0)
    return [
        Finished(generator.integers(0, 10, (size, 4)).astype(np.uint8), generator.integers(0, 10, size))
        for size in sizes
    ]


def joined(batches: list[Finished]) -> Finished:
    return Finished(np.concatenate([b.samples for b in batches]), np.concatenate([b.labels for b in batches]))


def brightness(batches: list[Finished]) -> np.ndarray:
    return joined(batches).samples.mean(axis=1) / 10


def test_the_sum_standardises_over_the_whole_batch_and_weights() -> None:
    batches = finished(6, 3, 8)
    service = CompositeRewardService(
        [Part("bright", local(Brightness()), weight=0.5), Part("ids", local(Ids()), weight=-0.01, normalize=False)]
    )
    scores = service.score(batches)
    bright, ids = brightness(batches), joined(batches).labels.astype(float) ** 2
    expected = 0.5 * (bright - bright.mean()) / bright.std(ddof=1) - 0.01 * ids
    assert [len(one.scores) for one in scores] == [6, 3, 8]
    assert all(one.scores.dtype == np.float32 for one in scores)
    np.testing.assert_allclose(np.concatenate([one.scores for one in scores]), expected, rtol=1e-5, atol=1e-6)


def test_what_each_part_gave_is_kept_under_its_name() -> None:
    batches = finished(4, 2)
    service = CompositeRewardService([Part("bright", local(Brightness())), Part("ids", local(Ids()))])
    scores = service.score(batches)
    for batch, one in zip(batches, scores, strict=True):
        assert list(one.info) == ["bright", "bright_label", "ids"]
        np.testing.assert_allclose(one.info["bright"], brightness([batch]), rtol=1e-6)
        np.testing.assert_array_equal(one.info["bright_label"], batch.labels)
        np.testing.assert_array_equal(one.info["ids"], batch.labels**2)


@pytest.mark.parametrize("value", [0.1, 0.0, -12345.678])
def test_a_part_that_gives_all_images_the_same_adds_nothing(value: float) -> None:
    batches = finished(5, 5)
    service = CompositeRewardService(
        [Part("constant", local(Brightness(value=value))), Part("ids", local(Ids()), normalize=False)]
    )
    found = np.concatenate([one.scores for one in service.score(batches)])
    np.testing.assert_array_equal(found, joined(batches).labels ** 2)


def test_small_scores_are_standardised_like_large_ones() -> None:
    scores = np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(standardised(scores * 1e-9), standardised(scores), rtol=1e-12)
    assert standardised(scores).mean() == pytest.approx(0)
    assert standardised(np.array([3.0])).tolist() == [0.0]


class Recorded(LocalRewardService):
    """Writes down when it is asked and when it is waited for."""

    def __init__(self, name: str, calls: list[str]) -> None:
        super().__init__(lambda: RewardParts("recorded", Ids(num_updates=1), lambda x: x[:, None, None].float(), None))
        self.name, self.calls = name, calls

    def start_score(self, batches):
        self.calls.append(f"start {self.name}")
        super().start_score(batches)

    def finish_score(self):
        self.calls.append(f"finish {self.name}")
        return super().finish_score()

    def close(self):
        self.calls.append(f"close {self.name}")


def test_all_parts_are_asked_before_any_is_waited_for_and_all_are_closed() -> None:
    calls: list[str] = []
    service = CompositeRewardService([Part(name, Recorded(name, calls)) for name in ("a", "b", "c")])
    service.score(finished(3))
    assert calls == ["start a", "start b", "start c", "finish a", "finish b", "finish c"]
    calls.clear()
    service.close()
    assert sorted(calls) == ["close a", "close b", "close c"]


def test_each_part_is_updated_as_often_as_it_wants_in_warm_up_and_after() -> None:
    models = {"often": Brightness(4, 9), "seldom": Brightness(2, 0), "warm": Brightness(0, 4), "never": Brightness()}
    service = CompositeRewardService([Part(name, local(model)) for name, model in models.items()])
    assert (service.num_updates, service.num_warmup_updates) == (4, 9)
    batch = finished(4)[0]
    service.start_update(batch, (1, 0), service.num_warmup_updates)
    assert service.finish_update() == {"often_steps": 9.0, "warm_steps": 4.0}
    assert service.version == 2
    service.start_update(batch, (1, 1), service.num_updates)
    assert service.finish_update() == {"often_steps": 4.0, "seldom_steps": 2.0}
    assert service.version == 4
    assert {one.version for one in service.score([batch])} == {4}
    assert service.finish_update() == {}, "nothing is under way"


def test_without_warm_up_the_first_update_is_one_of_an_iteration() -> None:
    service = CompositeRewardService([Part("a", local(Brightness(3))), Part("b", local(Brightness(1)))])
    service.start_update(finished(4)[0], (1, 1), service.num_updates)
    assert service.finish_update() == {"a_steps": 3.0, "b_steps": 1.0}


def trained() -> CompositeRewardService:
    service = CompositeRewardService([Part("a", local(Brightness(2, 5))), Part("b", local(Brightness(1)))])
    service.start_update(finished(4)[0], (1, 0), service.num_warmup_updates)
    service.finish_update()
    return service


def test_a_state_brings_every_part_and_its_version_back() -> None:
    service = trained()
    state = service.state()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    fresh = CompositeRewardService([Part("a", local(Brightness(2, 5))), Part("b", local(Brightness(1)))])
    fresh.load_state(state, service.version)
    batch = finished(4)[0]
    metrics = []
    for one in (service, fresh):
        one.start_update(batch, (1, 1), one.num_updates)
        metrics.append(one.finish_update())
    assert metrics == [{"a_steps": 2.0, "b_steps": 1.0}] * 2, "both are past their warm-up"
    assert service.version == fresh.version == 3
    for name, value in service.state().items():
        assert torch.equal(value, fresh.state()[name]), name
    np.testing.assert_array_equal(service.score([batch])[0].scores, fresh.score([batch])[0].scores)


def test_the_state_of_other_parts_is_refused() -> None:
    other = CompositeRewardService([Part("a", local(Brightness())), Part("c", local(Brightness()))])
    with pytest.raises(RunError, match=r"holds \['a/version', 'b/version'\], expected \['a/version', 'c/version'\]"):
        other.load_state(trained().state(), 1)


def test_a_sum_that_is_not_finite_stops_the_run() -> None:
    service = CompositeRewardService([Part("ids", local(Ids()), weight=1e38, normalize=False)])
    with pytest.raises(RunError, match="reward composite: the weighted sum of 3 of 4 images is not finite"):
        service.score([Finished(np.zeros((4, 4), np.uint8), np.array([1, 2, 3, 9]))])


def test_parts_have_short_names_and_longer_ones_where_those_are_the_same() -> None:
    assert part_names(["adversarial", "mine:Ink"]) == ["adversarial", "Ink"]
    assert part_names(["a.b:Ink", "fid", "c:Ink"]) == ["a.b.Ink", "fid", "c.Ink"]


# --- from the configuration


def parts(*kinds: str) -> str:
    return f"reward.parts=[{', '.join(kinds)}]"


def own(name: str, more: str = "") -> str:
    return f"{{kind: '{__name__}:{name}'{more}}}"


COMPOSITE = (
    "reward.kind=composite",
    parts("{kind: adversarial}", "{kind: nat_pass_cost, weight: 0.5, normalize: false}"),
    "reward.nat_pass_cost.price=0.25",
)


def tokens(count: int = 4, size: int = 8) -> list[Finished]:
    generator = np.random.default_rng(0)
    return [
        Finished(
            generator.integers(0, 128, (size, 16)).astype(np.uint8),
            generator.integers(0, 10, size),
            generator.integers(4, 9, size).astype(np.int16),
        )
        for _ in range(count)
    ]


def test_a_configured_composite_adds_up_what_its_parts_give_alone() -> None:
    config = resolve(overrides=[*tiny.OVERRIDES, *tiny.IN_PROCESS, *COMPOSITE])
    alone = resolve(overrides=[*tiny.OVERRIDES, *tiny.IN_PROCESS])
    work = tokens()
    found = reward_service(config).score(work)
    real = np.concatenate([one.scores for one in reward_service(alone).score(work)]).astype(np.float64)
    passes = np.concatenate([one.num_passes for one in work])
    expected = (real - real.mean()) / real.std(ddof=1) - 0.5 * 0.25 * passes
    np.testing.assert_allclose(np.concatenate([one.scores for one in found]), expected, rtol=1e-5, atol=1e-6)
    assert list(found[0].info) == ["adversarial", "nat_pass_cost"]
    np.testing.assert_array_equal(found[1].info["nat_pass_cost"], -0.25 * work[1].num_passes)


def test_every_part_is_checked_before_anything_is_built() -> None:
    brightness = own("Brightness", ", args: {colour: red}")
    for part, message in (
        ("{kind: clip_score}", "reward.kind: clip_score needs captions"),
        ("{kind: aesthetic}", "reward.aesthetic.encoder: null is not accepted"),
        ("{kind: 'nowhere:Reward'}", "cannot import nowhere"),
        (brightness, r"reward.args: .*Brightness: got an unexpected keyword argument 'colour'"),
    ):
        with pytest.raises(UserError, match=message):
            reward_class(resolve(overrides=["reward.kind=composite", parts("{kind: adversarial}", part)]))


def test_the_arguments_of_a_part_are_its_own() -> None:
    grey = own("Brightness", ", args: {value: 0.5}, normalize: false")
    config = resolve(overrides=[*tiny.IN_PROCESS, "reward.kind=composite", parts(grey)])
    assert [one.scores.tolist() for one in reward_service(config).score(tokens(1, 3))] == [[0.5] * 3]


def test_a_composite_is_no_single_reward() -> None:
    with pytest.raises(UserError, match=r"composite is not accepted here; .*: adversarial, nat_pass_cost"):
        build_reward_parts(resolve(overrides=COMPOSITE))


def test_every_part_reserves_its_actors() -> None:
    resources = resolve(overrides=["resources.num_env_runners=1", "resources.num_reward_actors=2"]).resources
    assert required_cpus(resources, 3) - required_cpus(resources, 1) == pytest.approx(
        4 * resources.num_cpus_per_reward_actor
    )


# --- on a cluster


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    with connect(resolve(overrides=tiny.OVERRIDES).resources):
        yield


def test_parts_in_actors_that_die_or_hang_give_the_scores_of_one_process(ray_cluster) -> None:
    settings = [*tiny.OVERRIDES, *COMPOSITE, "resources.reward_timeout_s=5"]
    expected = reward_service(resolve(overrides=[*settings, *tiny.IN_PROCESS]))
    service = reward_service(resolve(overrides=[*settings, "resources.num_reward_actors=1"]))
    assert isinstance(service, CompositeRewardService)
    try:
        work = tokens()
        for one in (expected, service):
            one.start_update(joined(work), (0, 0), one.num_warmup_updates)
        assert service.finish_update() == expected.finish_update()
        processes = [ray.get(part.service.actors[0].process_id.remote()) for part in service._parts]
        os.kill(processes[0], signal.SIGKILL)
        os.kill(processes[1], signal.SIGSTOP)
        for ours, theirs in zip(expected.score(work), service.score(work), strict=True):
            np.testing.assert_array_equal(ours.scores, theirs.scores)
            assert ours.version == theirs.version == 1
        assert service.num_replaced_actors == 2
    finally:
        service.close()


class Never(RewardModel):
    """Gives no number."""

    def score(self, batch: RewardBatch) -> RewardOutput:
        return RewardOutput(torch.full((len(batch),), torch.nan))


def test_a_part_without_numbers_stops_the_run_after_the_retries_of_its_own(ray_cluster) -> None:
    settings = ["reward.kind=composite", parts("{kind: nat_pass_cost}", own("Never")), "resources.max_reward_retries=1"]
    service = reward_service(resolve(overrides=[*tiny.OVERRIDES, *settings]))
    try:
        with pytest.raises(RunError, match=r"after 1 retries .*Never returned 8 of 8 scores that are NaN or infinite"):
            service.score(tokens(1))
        assert service.num_replaced_actors == 1
    finally:
        service.close()


def test_a_training_records_every_part(tmp_path: Path) -> None:
    result = tiny.train(tmp_path / "run", *tiny.IN_PROCESS, *COMPOSITE, "training.num_iterations=2")
    assert result.returncode == 0, result.stderr
    table = pq.read_table(tmp_path / "run" / "rollouts" / "iteration_000002.parquet").to_pandas()
    np.testing.assert_allclose(table["reward_nat_pass_cost"], -0.25 * table["nat_passes"])
    real = table["reward_adversarial"].astype(float)
    expected = (real - real.mean()) / real.std() + 0.5 * table["reward_nat_pass_cost"]
    np.testing.assert_allclose(table["reward"], expected, rtol=1e-4, atol=1e-5)
