"""Every process of a run that can die or hang: it is named in one line, within a deadline, and nothing is lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from adanat_rl.config.errors import RunError
from adanat_rl.experiment import cluster
from adanat_rl.experiment.cluster import connect
from adanat_rl.experiment.cluster_folder import PREFIX
from adanat_rl.rewards.base import RewardBatch, RewardModel, RewardOutput
from adanat_rl.rl.ray_processes import agents_of
from benchmarks.resume import outcome
from tests import tiny
from tests.experiment.waiting import DEADLINE_S, rows_of, wait_for
from tests.forking import ForkedCommand

LONG = ("training.num_iterations=1000", "checkpoints.interval_iterations=1000")
ONE_RUNNER = ("resources.num_env_runners=1", "resources.num_reward_actors=0")


def children(process: ForkedCommand, name: str) -> list[psutil.Process]:
    """Processes that came from a command, by a word of their name or title."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if name in child.name() or name in child.cmdline()[0]:
                found.append(child)
        except (psutil.Error, IndexError):
            continue
    return found


def all_of(process: ForkedCommand) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def folders_of(processes: list[psutil.Process]) -> set[Path]:
    """Folders of private clusters that the command lines of processes name."""
    lines = " ".join(" ".join(process.cmdline()) for process in processes if process.is_running())
    return {Path(found) for found in re.findall(rf"(/\S*?{PREFIX}[^/\s]+)", lines)}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize(("name", "word"), [("raylet", "raylet"), ("gcs_server", "GCS")])
def test_ray_that_dies_or_hangs_ends_the_run_in_one_line_with_all_iterations_safe(
    tmp_path: Path, name: str, word: str, number: int
) -> None:
    run_dir = tmp_path / "run"
    arguments = (*tiny.OVERRIDES, *ONE_RUNNER, *LONG, "resources.cluster_timeout_s=3", "--run-dir", str(run_dir))
    process = tiny.start("train", *arguments)
    wait_for(lambda: rows_of(run_dir) >= 2, process)
    everything, victim = all_of(process), children(process, name)[0]
    folders = folders_of(everything)
    assert folders
    victim.send_signal(number)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1, errors
    lines = errors.strip().splitlines()
    assert len(lines) == 3, errors
    verb = "died" if number == signal.SIGKILL else "has been stopped for resources.cluster_timeout_s = 3 s"
    assert lines[0].startswith(f"adanat-rl train: Ray's {word} (process {victim.pid}) {verb}")
    done = rows_of(run_dir) - 1
    assert f"checkpoint after iteration {done} " in lines[1]
    assert (run_dir / "checkpoints" / f"iteration_{done:06d}").is_dir()
    assert lines[2].startswith("  go on with: adanat-rl train ")
    wait_until(lambda: not any(left.is_running() and left.status() != psutil.STATUS_ZOMBIE for left in everything))
    wait_until(lambda: not any(folder.exists() for folder in folders))


def test_an_agent_that_dies_takes_its_raylet_along_and_no_iteration(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = tiny.start("train", *tiny.OVERRIDES, *tiny.IN_PROCESS, *LONG, "--run-dir", str(run_dir))
    wait_for(lambda: rows_of(run_dir) >= 2 and bool(children(process, "ray::DashboardAgent")), process)
    children(process, "ray::DashboardAgent")[0].kill()
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1, errors
    lines = errors.strip().splitlines()
    assert len(lines) == 3, errors
    assert re.match(r"adanat-rl train: Ray's (dashboard agent|raylet|runtime environment agent) \(process", lines[0])
    assert f"checkpoint after iteration {rows_of(run_dir) - 1} " in lines[1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_lost_learner_is_replaced_and_changes_nothing(tmp_path: Path, uninterrupted, number: int) -> None:
    run_dir = tmp_path / "run"
    learner = ("resources.num_learners=1", "resources.num_cpus_per_learner=0.4", "resources.learner_timeout_s=20")
    workers = ("resources.num_env_runners=0", "resources.num_reward_actors=0", *learner)
    process = tiny.start("train", *tiny.OVERRIDES, *workers, "--run-dir", str(run_dir))
    wait_for(lambda: rows_of(run_dir) >= 1, process)
    actors = [child for child in children(process, "ray::") if "Agent" not in child.cmdline()[0]]
    assert len(actors) == 1, "the learner is the only one"
    actors[0].send_signal(number)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors
    assert outcome(run_dir) == uninterrupted


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("gcs_server", 1, "died while Ray started"),
        ("ray::_WrappedExecutable", 0, ""),
    ],
)
def test_what_dies_while_it_starts_is_started_again_or_named(
    tmp_path: Path, name: str, status: int, words: str
) -> None:
    workers = (*ONE_RUNNER, "resources.num_learners=1", "resources.num_cpus_per_learner=0.4")
    process = tiny.start("train", *tiny.OVERRIDES, *workers, "--run-dir", str(tmp_path / "run"))
    wait_for(lambda: bool(children(process, name)), process)
    children(process, name)[0].kill()
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == status, errors
    assert len(errors.strip().splitlines()) == (3 if status else 0), errors
    assert words in errors


def test_an_agent_that_dies_while_ray_starts_is_named_before_its_raylet_ends(tmp_path: Path) -> None:
    """Its raylet goes 15 seconds later, and may take the driver along. Here both are shells of those names."""
    shutil.copy("/bin/bash", tmp_path / "raylet")
    look = cluster._Starting(lambda: None)
    script = "(exec -a ray::DashboardAgent sleep 600) & read"
    raylet = subprocess.Popen([tmp_path / "raylet", "-c", script], stdin=subprocess.PIPE, start_new_session=True)
    try:
        wait_until(lambda: bool(agents_of(psutil.Process(raylet.pid))))
        (agent,) = agents_of(psutil.Process(raylet.pid))
        wait_until(lambda: look() or agent.process in look._servers)
        agent.process.kill()
        with pytest.raises(RunError, match=rf"dashboard agent \(process {agent.process.pid}\) died while Ray started"):
            wait_until(look)
    finally:
        os.killpg(raylet.pid, signal.SIGKILL)
        raylet.communicate()


@pytest.mark.parametrize(("server", "name"), [("raylet", "raylet"), ("gcs_server", "GCS")])
def test_a_server_that_is_stopped_while_ray_starts_is_named_before_ray_ends_the_process(
    tmp_path: Path, server: str, name: str
) -> None:
    process = tiny.start("train", *tiny.OVERRIDES, *tiny.IN_PROCESS, "--run-dir", str(tmp_path / "run"))
    wait_for(lambda: bool(children(process, server)), process)
    children(process, server)[0].suspend()
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1, errors
    told = rf"Ray's {name} \(process \d+\) (has been stopped for 20 s while Ray started|is stopped$)"
    assert re.search(told, errors, re.MULTILINE), errors
    assert len(errors.strip().splitlines()) == 3, errors


@pytest.mark.parametrize("name", ["reward_actors", "learners"])
def test_workers_that_ray_ends_for_want_of_memory_are_told_as_that(tmp_path: Path, name: str) -> None:
    """Ray's memory monitor takes them where the machine is full to a limit, here to one that is always passed."""
    counts = {"env_runners": 0, "reward_actors": 0, "learners": 0} | {name: 1}
    workers = [f"resources.num_{kind}={count}" for kind, count in counts.items()]
    limits = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "50"}
    settings = ("resources.num_cpus_per_learner=0.4", "resources.start_timeout_s=20")
    process = tiny.start("train", *tiny.OVERRIDES, *workers, *settings, "--run-dir", str(tmp_path / "run"), **limits)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1, errors
    assert re.search(r" start: Ray ended a worker because its machine ran out of memory: \S+GB of \S+GB were", errors)
    assert len(errors.strip().splitlines()) == 3, errors


class Reward(RewardModel):
    """Grey values, until the third iteration; then what a test wants."""

    num_batches = 0

    def score(self, batch: RewardBatch) -> RewardOutput:
        """Four batches an iteration."""
        type(self).num_batches += 1
        if self.num_batches > 8:
            self.end()
        return RewardOutput(batch.images.mean(dim=(1, 2, 3)))

    def end(self) -> None:
        """What happens then."""


class Hanging(Reward):
    """Hangs without giving the interpreter's lock back for long: threads of torch are at work."""

    def end(self) -> None:
        """For ever."""
        numbers = torch.rand(64, 64)
        while True:
            numbers = numbers @ numbers * 0


class Leaving(Reward):
    """Ends the process as if all were well."""

    def end(self) -> None:
        """At once."""
        os._exit(0)


def own_reward(cls: type, run_dir: Path, *settings: str) -> tuple[str, ...]:
    reward = (f"reward.kind={__name__}:{cls.__name__}", *settings)
    return (*tiny.OVERRIDES, *tiny.IN_PROCESS, *LONG, *reward, "--run-dir", str(run_dir))


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Hanging, "has not scored within resources.reward_timeout_s = 4 s"),
        (Leaving, "failed: RewardError: called os._exit(0)"),
    ],
)
def test_a_reward_in_the_driver_that_never_comes_back_ends_the_run_in_one_line(
    tmp_path: Path, cls: type, message: str
) -> None:
    run_dir = tmp_path / "run"
    result = tiny.run("train", *own_reward(cls, run_dir, "resources.reward_timeout_s=4"))
    assert result.returncode == 1, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 3, result.stderr
    assert lines[0].startswith("adanat-rl train: reward ")
    assert message in lines[0]
    assert "checkpoint after iteration 2 " in lines[1]
    assert (run_dir / "checkpoints" / "iteration_000002").is_dir()


def test_a_signal_is_heard_while_a_reward_hangs_in_the_driver(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = tiny.start("train", *own_reward(Hanging, run_dir))
    wait_for(lambda: rows_of(run_dir) >= 3, process)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 143, errors
    assert "stopped after iteration 2, checkpoint written" in output
    assert (run_dir / "checkpoints" / "iteration_000002").is_dir()


def test_a_driver_that_is_killed_gets_last_words_and_leaves_nothing(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = tiny.start("train", *tiny.OVERRIDES, *ONE_RUNNER, *LONG, "--run-dir", str(run_dir))
    wait_for(lambda: rows_of(run_dir) >= 1, process)
    everything = all_of(process)
    folders = folders_of(everything)
    process.kill()
    process.wait(DEADLINE_S)
    wait_until(lambda: not any(left.is_running() for left in everything))
    wait_until(lambda: not any(folder.exists() for folder in folders))
    errors = process.communicate()[1]
    assert f"process {process.pid} was ended without a word" in errors
    assert "go on with" in errors


def test_a_cluster_whose_driver_and_reaper_were_killed_is_cleared_away_by_the_next_start(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = tiny.start("train", *tiny.OVERRIDES, *ONE_RUNNER, *LONG, "--run-dir", str(run_dir))
    wait_for(lambda: rows_of(run_dir) >= 1, process)
    everything = all_of(process)
    folders = folders_of(everything)
    for reaper in [child for child in everything if any("reaper.py" in word for word in child.cmdline())]:
        reaper.kill()
    process.kill()
    process.wait(DEADLINE_S)
    assert all(folder.exists() for folder in folders)
    from adanat_rl.config.loading import resolve

    with connect(resolve(overrides=tiny.OVERRIDES).resources):
        assert not any(folder.exists() for folder in folders)
    wait_until(lambda: not any(left.is_running() for left in everything))
