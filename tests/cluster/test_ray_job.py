"""A real cluster started by `cluster/start_head.sh`: a job submitted to it, and a driver that joins it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from adanat_rl.config.files import read_json_lines
from tests import tiny
from tests.tiny_sweeps import SETTINGS, book, write_sweep

ROOT = Path(__file__).parents[2]
WORKERS = ("resources.num_env_runners=2", "resources.num_reward_actors=1", "training.num_iterations=2")
DEADLINE_S = 300


@dataclass(frozen=True)
class Cluster:
    """A head node. environment: with its token. address: of the control store. dashboard: of the job server."""

    environment: dict[str, str]
    address: str
    dashboard: str


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = tempfile.mkdtemp(prefix="adr")  # short: the paths of its sockets have a limit
    port, dashboard_port, agent_port, client_port = free_ports(4)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [
        "cluster/start_head.sh",
        "--block",
        f"--port={port}",
        f"--dashboard-port={dashboard_port}",
        f"--dashboard-agent-listen-port={agent_port}",
        f"--ray-client-server-port={client_port}",
        f"--temp-dir={folder}",
        "--num-cpus=2",
        "--object-store-memory=200000000",
    ]
    with (Path(folder) / "head.log").open("w") as log:
        head = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    dashboard = f"http://127.0.0.1:{dashboard_port}"
    try:
        wait_for_job_server(head, environment, dashboard)
        yield Cluster(environment, f"127.0.0.1:{port}", dashboard)
    finally:
        own = psutil.Process(head.pid).children(recursive=True) if head.poll() is None else []
        head.send_signal(signal.SIGTERM)
        head.wait(timeout=60)
        for process in psutil.wait_procs(own, timeout=30)[1]:
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def wait_for_job_server(head: subprocess.Popen[bytes], environment: dict[str, str], dashboard: str) -> None:
    """Returns when a job that does nothing succeeds: the agent that starts jobs comes up after the job server."""
    for _ in range(60):
        assert head.poll() is None, "the head has ended"
        nothing = ["ray", "job", "submit", "--address", dashboard, "--", "true"]
        if subprocess.run(nothing, env=environment, capture_output=True, timeout=120).returncode == 0:
            return
    pytest.fail("the job server starts no job")


@pytest.fixture(scope="module")
def expected_hashes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Hashes of the batches of the same run in one process."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    result = tiny.train(folder, *tiny.IN_PROCESS, "training.num_iterations=2")
    assert result.returncode == 0, result.stderr
    return hashes(folder)


def hashes(folder: Path) -> list[str]:
    return [row["rollout/batch_hash"] for row in read_json_lines(folder / "metrics.jsonl")[1:]]


def test_a_submitted_job_trains_on_the_cluster(cluster: Cluster, tmp_path: Path, expected_hashes: list[str]) -> None:
    folder = tmp_path / "run"
    command = ["ray", "job", "submit", "--address", cluster.dashboard, "--working-dir", ".", "--"]
    command += ["python", "-m", "adanat_rl.train", f"run_dir={folder}", *tiny.OVERRIDES, *WORKERS]
    result = subprocess.run(
        command, cwd=ROOT, env=cluster.environment, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "succeeded" in result.stdout
    assert (folder / "summary.json").exists()
    assert (folder / "report.html").exists()
    assert hashes(folder) == expected_hashes


def test_a_submitted_job_sweeps_on_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    """Both trials side by side, on a cluster that was there before; the sweep file comes with the job."""
    content = {"seeds": 2, "settings": {**SETTINGS, "training.num_iterations": 1}}
    file = write_sweep(tmp_path, content)
    command = ["ray", "job", "submit", "--address", cluster.dashboard, "--working-dir", ".", "--"]
    command += ["python", "-m", "adanat_rl.sweep", str(file), "--run-dir", str(tmp_path / "sweep")]
    result = subprocess.run(
        command, cwd=ROOT, env=cluster.environment, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 trials, 2 at once" in result.stdout
    assert [trial["status"] for trial in book(tmp_path / "sweep").values()] == ["finished", "finished"]
    assert (tmp_path / "sweep" / "report.html").exists()


def test_a_job_with_a_relative_folder_is_refused(cluster: Cluster) -> None:
    command = ["ray", "job", "submit", "--address", cluster.dashboard, "--working-dir", ".", "--"]
    command += ["python", "-m", "adanat_rl.train", "run_dir=runs/nowhere", *tiny.OVERRIDES, *WORKERS]
    result = subprocess.run(
        command, cwd=ROOT, env=cluster.environment, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert result.returncode != 0
    assert "run_dir: runs/nowhere is relative, but a Ray job runs in a folder that is deleted" in result.stdout


def test_a_driver_joins_the_running_cluster(cluster: Cluster, tmp_path: Path, expected_hashes: list[str]) -> None:
    folder = tmp_path / "run"
    arguments = [*tiny.OVERRIDES, *WORKERS, "--address", cluster.address, "--run-dir", str(folder)]
    result = subprocess.run(
        [sys.executable, "-m", "adanat_rl.train", *arguments],
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert result.returncode == 0, result.stderr
    assert hashes(folder) == expected_hashes


def test_without_the_token_nobody_gets_in(cluster: Cluster, tmp_path: Path) -> None:
    stranger = {**cluster.environment, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    arguments = [*tiny.OVERRIDES, *WORKERS, "--address", cluster.address, "--run-dir", str(tmp_path / "run")]
    result = subprocess.run(
        [sys.executable, "-m", "adanat_rl.train", *arguments],
        env=stranger,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert result.returncode == 1
    assert "no Ray cluster at" in result.stderr
