"""The reward service on a real cluster: an actor that dies, hangs or lies costs time and nothing else."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from PIL import Image
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from adanat_rl.config.errors import RunError
from adanat_rl.config.loading import resolve
from adanat_rl.data.image_tree import ImageTree
from adanat_rl.data.streaming import StreamedImages
from adanat_rl.experiment.cluster import connect
from adanat_rl.rewards.base import RewardBatch, RewardModel, RewardOutput
from adanat_rl.rewards.build import build_reward_parts
from adanat_rl.rewards.damage import damaged_images
from adanat_rl.rewards.real_images import RealRows
from adanat_rl.rewards.remote_service import RemoteRewardService, start_reward_service
from adanat_rl.rewards.service import Finished, LocalRewardService
from adanat_rl.rewards.worker import RewardParts
from tests.tiny import OVERRIDES


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    with connect(resolve(overrides=OVERRIDES).resources):
        yield


def config_with(*overrides: str):
    return resolve(overrides=[*OVERRIDES, "resources.reward_timeout_s=20", *overrides])


def batches(count: int = 4, size: int = 8) -> list[Finished]:
    generator = np.random.default_rng(0)
    return [
        Finished(generator.integers(0, 128, (size, 16)).astype(np.uint8), generator.integers(0, 10, size))
        for _ in range(count)
    ]


def joined(parts: list[Finished]) -> Finished:
    return Finished(np.concatenate([p.samples for p in parts]), np.concatenate([p.labels for p in parts]))


@pytest.fixture
def local() -> LocalRewardService:
    return LocalRewardService(partial(build_reward_parts, config_with()))


@pytest.fixture
def remote(ray_cluster: None) -> Iterator[RemoteRewardService]:
    config = config_with("resources.num_reward_actors=2")
    service = RemoteRewardService(partial(build_reward_parts, config), config.resources)
    yield service
    service.close()


def kill(actor) -> None:
    os.kill(ray.get(actor.process_id.remote()), signal.SIGKILL)


def test_actors_give_the_scores_and_the_updates_of_one_process(local, remote) -> None:
    work = batches()
    for service in (local, remote):
        service.start_update(joined(work), (0, 1, 2), 3)
    metrics = [service.finish_update() for service in (local, remote)]
    assert metrics[0] == metrics[1]
    for ours, theirs in zip(local.score(work), remote.score(work), strict=True):
        np.testing.assert_array_equal(ours.scores, theirs.scores)
        assert ours.version == theirs.version == 1


class ReadsOneImage(RewardModel):
    """Update number v reads the real image v."""

    num_updates = 1

    def __init__(self) -> None:
        self.num_read = torch.zeros((), dtype=torch.int64)

    def score(self, batch: RewardBatch) -> RewardOutput:
        return RewardOutput(torch.zeros(len(batch)))

    def update(self, generated, real, generator, num_updates: int) -> dict[str, float]:
        brightness = float(real.rows(self.num_read[None]).images.mean())
        self.num_read += 1
        return {"brightness": brightness}

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"num_read": self.num_read.clone()}

    def load_state_dict(self, state) -> None:
        self.num_read = state["num_read"].clone()


def parts_with_files(folder: Path, max_damaged: int) -> RewardParts:
    files = StreamedImages(ImageTree(folder), 4, num_workers=1, max_damaged=max_damaged)
    return RewardParts("reads", ReadsOneImage(), lambda x: x[:, None, None].float(), RealRows(files), damage=files)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four photos in the order of their names, the first and the third of them damaged."""
    (tmp_path / "a").mkdir()
    for number in range(4):
        Image.new("RGB", (8, 8), (10 * number,) * 3).save(tmp_path / "a" / f"{number}.png")
    for number in (0, 2):
        (tmp_path / "a" / f"{number}.png").write_bytes(b"no photo")
    return tmp_path


def reading(photos: Path, max_damaged: int) -> RemoteRewardService:
    config = config_with("resources.num_reward_actors=1")
    return RemoteRewardService(partial(parts_with_files, photos, max_damaged), config.resources)


def updated(service: RemoteRewardService) -> dict[str, float]:
    service.start_update(batches(1)[0], (0,), 1)
    return service.finish_update()


@pytest.mark.usefixtures("ray_cluster")
def test_damaged_photos_are_named_and_count_on_in_a_fresh_actor(photos: Path) -> None:
    service = reading(photos, max_damaged=2)
    assert updated(service) == {"brightness": pytest.approx(10 / 255), "damaged_images": 1}
    kill(service.actors[0])
    assert updated(service) == {"brightness": pytest.approx(10 / 255), "damaged_images": 1}
    assert updated(service) == {"brightness": pytest.approx(30 / 255), "damaged_images": 2}
    assert service.num_replaced_actors == 1
    named = damaged_images(service.state())
    assert len(named) == 2
    assert all(f"{number}.png" in text for number, text in zip((0, 2), named, strict=True))
    service.close()


@pytest.mark.usefixtures("ray_cluster")
def test_too_many_damaged_photos_end_the_run_at_once_though_an_actor_was_replaced(photos: Path) -> None:
    service = reading(photos, max_damaged=1)
    updated(service)
    kill(service.actors[0])
    updated(service)
    with pytest.raises(RunError, match=r"^2 damaged images, data.max_damaged accepts 1: .*0\.png.*2\.png"):
        updated(service)
    assert service.num_replaced_actors == 1, "a fresh actor would only find the same"
    service.close()


def test_an_actor_killed_while_scoring_comes_back_with_its_state(local, remote) -> None:
    work = batches()
    for service in (local, remote):
        service.start_update(joined(work), (0, 1, 2), 2)
        service.finish_update()
    expected = local.score(work)
    for actor in remote.actors:
        kill(actor)
    found = remote.score(work)
    assert remote.num_replaced_actors == 2
    for ours, theirs in zip(expected, found, strict=True):
        np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_an_actor_killed_during_its_update_repeats_it_exactly(local, remote) -> None:
    work = batches()
    local.start_update(joined(work), (0, 1, 2), 200)
    remote.start_update(joined(work), (0, 1, 2), 200)
    process = ray.get(remote.actors[1].process_id.remote())  # the second one answers while the first one trains
    assert process
    ray.kill(remote.actors[0])
    assert remote.finish_update() == local.finish_update()
    assert remote.num_replaced_actors == 1
    for name, value in local.state().items():
        assert torch.equal(value, remote.state()[name]), name


def test_an_actor_that_hangs_is_replaced_after_the_deadline(ray_cluster) -> None:
    config = config_with("resources.num_reward_actors=1", "resources.reward_timeout_s=3")
    service = RemoteRewardService(partial(build_reward_parts, config), config.resources)
    try:
        process = ray.get(service.actors[0].process_id.remote())
        os.kill(process, signal.SIGSTOP)
        scores = service.score(batches(1))
        assert np.isfinite(scores[0].scores).all()
        assert service.num_replaced_actors == 1
    finally:
        service.close()


class NotANumber(RewardModel):
    def score(self, batch: RewardBatch) -> RewardOutput:
        return RewardOutput(torch.full((len(batch),), torch.nan))


class Broken(RewardModel):
    def score(self, batch: RewardBatch) -> RewardOutput:
        raise KeyError("no such thing")


@pytest.mark.parametrize(
    ("name", "message"),
    [("NotANumber", "8 of 8 scores that are NaN or infinite"), ("Broken", "KeyError: 'no such thing'")],
)
@pytest.mark.parametrize("actors", [0, 1])
def test_a_reward_that_gives_no_number_stops_the_run_with_its_name(ray_cluster, name, message, actors) -> None:
    kind = f"{__name__}:{name}"
    config = config_with(
        f"reward.kind={kind}", f"resources.num_reward_actors={actors}", "resources.max_reward_retries=1"
    )
    factory = partial(build_reward_parts, config)
    service = RemoteRewardService(factory, config.resources) if actors else LocalRewardService(factory)
    try:
        with pytest.raises(RunError, match=kind.replace(".", r"\.") + ".*" + message.replace("(", r"\(")):
            service.score(batches(2))
    finally:
        service.close()


class Picky(RewardModel):
    """Has no number for labels above 4."""

    def score(self, batch: RewardBatch) -> RewardOutput:
        return RewardOutput(torch.where(batch.labels > 4, torch.inf, 0.5))


@pytest.mark.parametrize("actors", [0, 1])
def test_images_with_wrong_scores_are_named_up_to_five_of_them(ray_cluster, actors) -> None:
    config = config_with(
        f"reward.kind={__name__}:Picky",
        f"resources.num_reward_actors={actors}",
        "resources.max_reward_retries=1",
    )
    service = start_reward_service(partial(build_reward_parts, config), config.resources)
    labels = np.array([1, 7, 3, 9, 5, 5, 6, 8, 9])
    samples = np.zeros((9, 16), np.uint8)
    good = Finished(samples[:2], np.array([0, 1]), ids=["000002-00000-00000", "000002-00000-00001"])
    bad = Finished(samples, labels, ids=[f"000002-00001-{row:05d}" for row in range(9)])
    try:
        with pytest.raises(RunError) as caught:
            service.score([good, bad])
        expected = (
            "Picky returned 7 of 9 scores that are NaN or infinite: trajectories iteration-shard-row "
            "000002-00001-00001 (context 7), 000002-00001-00003 (context 9), 000002-00001-00004 (context 5), "
            "000002-00001-00005 (context 5), 000002-00001-00006 (context 6) and 2 more"
        )
        assert expected in str(caught.value)
        assert service.num_replaced_actors == actors, "one retry on a fresh actor, and no more"
        with pytest.raises(RunError, match=r"images row 1 \(context 9\)$"):
            service.score([Finished(samples[:2], np.array([0, 9]))])
    finally:
        service.close()


@pytest.mark.parametrize("actors", [0, 1])
def test_passes_travel_with_the_images(ray_cluster, actors) -> None:
    config = config_with(
        "reward.kind=nat_pass_cost", f"resources.num_reward_actors={actors}", "resources.max_reward_retries=0"
    )
    service = start_reward_service(partial(build_reward_parts, config), config.resources)
    work = [Finished(b.samples, b.labels, np.arange(8, dtype=np.int16) + n) for n, b in enumerate(batches())]
    try:
        found = service.score(work)
        assert [one.scores.tolist() for one in found] == [[-float(n + row) for row in range(8)] for n in range(4)]
        with pytest.raises(RunError, match=r"nat_pass_cost failed: .*passes of these images were not counted"):
            service.score(batches(1))
    finally:
        service.close()


def test_scoring_can_be_under_way_in_two_services_at_once(local, remote) -> None:
    work = batches()
    remote.start_score(work)
    local.start_score(work[:2])
    ours, theirs = local.finish_score(), remote.finish_score()
    assert (len(ours), len(theirs)) == (2, 4)
    np.testing.assert_array_equal(ours[1].scores, theirs[1].scores)


@ray.remote(num_cpus=0.1)
class Trial:
    """A driver that is itself an actor in a placement group, as a trial of Tune is."""

    def scores(self, config) -> tuple[list[list[float]], list[str]]:
        service = RemoteRewardService(partial(build_reward_parts, config), config.resources)
        try:
            found = [one.scores.tolist() for one in service.score(batches())]
            groups = [ray.util.placement_group_table()[key]["state"] for key in ray.util.placement_group_table()]
            kill(service.actors[0])
            assert [one.scores.tolist() for one in service.score(batches())] == found
            return found, groups
        finally:
            service.close()


def test_actors_of_a_trial_take_the_bundles_of_its_placement_group(ray_cluster, local) -> None:
    config = config_with("resources.num_reward_actors=2", "resources.num_env_runners=1")
    group = placement_group([{"CPU": 0.1}, {"CPU": 0.4}, {"CPU": 0.2}, {"CPU": 0.2}])  # driver, env runner, actors
    strategy = PlacementGroupSchedulingStrategy(
        group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
    )
    trial = Trial.options(scheduling_strategy=strategy).remote()
    try:
        found, groups = ray.get(trial.scores.remote(config), timeout=300)
        assert found == [one.scores.tolist() for one in local.score(batches())]
        assert groups.count("CREATED") == 1, "the trial reserved nothing of its own"
        assert ray.util.placement_group_table(group)["state"] == "CREATED", "the group is the trial's, and stays"
    finally:
        ray.kill(trial)
        remove_placement_group(group)


def test_no_actor_and_no_bundle_is_left_after_closing(ray_cluster) -> None:
    config = config_with("resources.num_reward_actors=2")
    service = RemoteRewardService(partial(build_reward_parts, config), config.resources)
    handles = service.actors
    service.close()
    for handle in handles:
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(handle.process_id.remote())
    deadline = time.monotonic() + 60
    while ray.available_resources()["CPU"] < ray.cluster_resources()["CPU"]:  # Ray frees them a moment later
        assert time.monotonic() < deadline, "CPUs stay reserved"
        threading.Event().wait(0.1)


class Unmakable(Picky):
    """Its licence is missing on the machine of the actor."""

    def __init__(self) -> None:
        raise KeyError("no licence")


class Sleeping(Picky):
    """Never comes back."""

    def score(self, batch: RewardBatch) -> RewardOutput:
        threading.Event().wait()
        raise AssertionError


class Leaving(Picky):
    """Ends its process."""

    def score(self, batch: RewardBatch) -> RewardOutput:
        os._exit(0)


def service_of(cls: type, *overrides: str, check=lambda: None):
    config = config_with(f"reward.kind={__name__}:{cls.__name__}", "resources.max_reward_retries=1", *overrides)
    return start_reward_service(partial(build_reward_parts, config), config.resources, check=check)


def test_an_actor_that_cannot_be_made_is_named_with_what_its_constructor_raised(ray_cluster) -> None:
    with pytest.raises(RunError, match=r"a reward actor does not start: KeyError: 'no licence'"):
        service_of(Unmakable, "resources.num_reward_actors=1")


@pytest.mark.parametrize("actors", [0, 1])
def test_a_reward_that_hangs_ends_with_its_deadline(ray_cluster, actors) -> None:
    service = service_of(Sleeping, f"resources.num_reward_actors={actors}", "resources.reward_timeout_s=1")
    try:
        with pytest.raises(RunError, match=r"has not scored within resources.reward_timeout_s = 1 s|no answer in time"):
            service.score(batches(1))
    finally:
        service.close()


@pytest.mark.parametrize("actors", [0, 1])
def test_a_reward_that_ends_its_process_ends_nobody_elses(ray_cluster, actors) -> None:
    service = service_of(Leaving, f"resources.num_reward_actors={actors}")
    try:
        with pytest.raises(RunError, match=r"called os._exit\(0\)|reward actor \(process \d+ on .*\) died"):
            service.score(batches(1))
    finally:
        service.close()


class StopError(Exception):
    """Somebody asked for a stop."""


@pytest.mark.parametrize("actors", [0, 1])
def test_a_request_to_stop_is_heard_while_a_reward_is_at_work(ray_cluster, actors) -> None:
    asked = threading.Event()

    def check() -> None:
        if asked.is_set():
            raise StopError

    service = service_of(Sleeping, f"resources.num_reward_actors={actors}", check=check)
    service.start_score(batches(1))
    threading.Timer(0.3, asked.set).start()
    try:
        with pytest.raises(StopError):
            service.finish_score()
    finally:
        service.close()


def test_the_state_of_the_reward_in_the_driver_is_a_copy(local) -> None:
    before = local.state()
    kept = {name: value.clone() for name, value in before.items()}
    local.start_update(joined(batches()), (0, 1, 2), 1)
    local.finish_update()
    assert all(torch.equal(value, kept[name]) for name, value in before.items())
    assert any(not torch.equal(value, kept[name]) for name, value in local.state().items())
