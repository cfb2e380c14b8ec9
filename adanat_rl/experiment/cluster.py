"""The Ray cluster of a run: a private local one, the one of a Ray job, or one that is already running."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.schema import ResourcesConfig
from adanat_rl.config.side_thread import DeadlineError, SideThread, any_given_up
from adanat_rl.console.user import name_this_user
from adanat_rl.experiment.cluster_folder import cluster_folder
from adanat_rl.experiment.limits import address_space, usable_cpus
from adanat_rl.experiment.reaper import reaper
from adanat_rl.rl.ray_processes import LONGEST_LOOK_S, SERVERS, RayProcess, agents_of

_SHUTDOWN_TIMEOUT_S = 20.0
_START_GRACE_S = 0.3  # a start without raylet or GCS comes to no good end, and may end this process
_OBJECT_STORE_BYTES = 256 * 2**20
_LARGE_OBJECT_STORE_BYTES = 4 * 2**30  # where there are GPUs: states of full-size policies go through it
_LOOK_INTERVAL_S = 0.5
RAYS_LOG = ".cc:"  # in each line that Ray's C++ code logs, such as "… W 3211 3216] gcs_client.cc:210: …"
_LONGEST_STOP_S = 20.0  # of a server while Ray starts: after 30 s Ray's client ends this process


def _nothing() -> None:
    pass


def quiet_environment() -> None:
    """Switches off usage reports and chatter of Ray and MLflow; must run before they are imported."""
    defaults = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "PYTHONWARNINGS": "ignore",
        # A thread that was given up must not start a cluster of Ray's own by its next call, after ours was left.
        "RAY_ENABLE_AUTO_CONNECT": "0",
        # Under `uv run` Ray would start each worker by uv in an uploaded copy of the working directory.
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    name_this_user()
    for logger in ("ray", "ray.rllib", "ray.tune"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    # It prints the traceback of a learner's loss, which is made good or told in a line.
    logging.getLogger("ray.train._internal.backend_executor").setLevel(logging.CRITICAL)


def in_ray_job() -> bool:
    """Whether this process was started by `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def required_cpus(resources: ResourcesConfig, num_rewards: int = 1) -> float:
    """CPUs that the workers of a run reserve; the driver itself reserves none.

    Args:
        num_rewards: parts of a composite reward, each of which has `num_reward_actors` actors; 1 for any other.
    """
    return (
        resources.num_env_runners * resources.num_cpus_per_env_runner
        + num_rewards * resources.num_reward_actors * resources.num_cpus_per_reward_actor
        + resources.num_learners * resources.num_cpus_per_learner
    )


def required_gpus(resources: ResourcesConfig, num_rewards: int = 1) -> float:
    """GPUs that the workers of a run reserve; see `required_cpus`."""
    return (
        resources.num_env_runners * resources.num_gpus_per_env_runner
        + num_rewards * resources.num_reward_actors * resources.num_gpus_per_reward_actor
        + resources.num_learners * resources.num_gpus_per_learner
    )


def check_this_machine(resources: ResourcesConfig, num_rewards: int = 1) -> None:
    """For a run that starts a cluster of its own; another cluster tells its size only to those who joined it.

    Args:
        num_rewards: see `required_cpus`.

    Raises:
        UserError: this machine is smaller than what the workers reserve.
    """
    if is_private(resources):
        _check_size(resources, num_rewards, this_machine(), "this machine")


def this_machine() -> dict[str, float]:
    """What a private cluster has."""
    return {"CPU": float(usable_cpus()), "GPU": float(_usable_gpus())}


@contextmanager
def connect(resources: ResourcesConfig, num_rewards: int = 1, check: Callable[[], None] = _nothing) -> Iterator[None]:
    """Starts or joins the cluster, and leaves it.

    Args:
        num_rewards: see `required_cpus`. check: asked while Ray starts; what it raises ends the wait.

    Raises:
        UserError: the cluster, or this machine, is smaller than what the workers reserve.
        RunError: the cluster does not start, or does not answer, in time.
    """
    quiet_environment()
    check_this_machine(resources, num_rewards)
    joined = _private_cluster if is_private(resources) else _running_cluster
    with joined(resources, num_rewards, check):
        yield


@contextmanager
def _private_cluster(resources: ResourcesConfig, num_rewards: int, check: Callable[[], None]) -> Iterator[None]:
    """A cluster of this process alone: its files lie in a temporary folder, its token only in the environment.

    Whatever happens to this process, nothing of the cluster stays behind.
    """
    store = _LARGE_OBJECT_STORE_BYTES if required_gpus(resources, num_rewards) else _OBJECT_STORE_BYTES
    _forget_other_clusters()
    python_path = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))
    with cluster_folder() as (folder, rays), reaper(os.getpid(), folder, _last_words()) as watcher:
        settings: dict[str, Any] = {
            "address": "local",
            "num_cpus": usable_cpus(),
            "include_dashboard": False,
            "object_store_memory": store,
            "runtime_env": {"env_vars": {"PYTHONPATH": python_path}},  # own rewards are found beside the caller
            "_temp_dir": str(rays),
            "_node_ip_address": "127.0.0.1",  # whatever this machine is called, and whatever its network does
            # Workers that Ray starts beforehand lack our environment; none of ours would ever run in one.
            "_system_config": {"prestart_worker_first_driver": False},
        }
        side = SideThread("adanat-rl Ray", grace_after_failure_s=_START_GRACE_S)
        starting = _Starting(check)
        try:
            with filtered_stderr(RAYS_LOG):
                _start_ray(side, settings, starting, resources.start_timeout_s)
        except (KeyboardInterrupt, RunError, DeadlineError) as error:
            if any_given_up():
                watcher.leave_to_the_end()
            if isinstance(error, DeadlineError):
                raise RunError(
                    f"the private Ray cluster does not start within resources.start_timeout_s = "
                    f"{resources.start_timeout_s:g} s"
                ) from None
            raise
        except Exception as error:  # Ray raises a bare Exception here
            why = starting.stopped() or f"{_first_line(error)}{_hint()}"
            raise RunError(f"the private Ray cluster does not start: {why}") from error
        servers = _servers_here()
        try:
            yield
        finally:
            if not _leave(side, servers):
                watcher.leave_to_the_end()


@contextmanager
def _running_cluster(resources: ResourcesConfig, num_rewards: int, check: Callable[[], None]) -> Iterator[None]:
    """Joins the cluster of the Ray job that this process is, or the one at the address."""
    import ray

    address = None if resources.ray_address == "local" else resources.ray_address
    side = SideThread("adanat-rl Ray")
    try:
        with filtered_stderr(RAYS_LOG):
            _start_ray(side, {"address": address}, check, None)  # Ray has a deadline for this
    except (ConnectionError, RuntimeError) as error:
        raise RunError(f"no Ray cluster at {resources.ray_address}: {_first_line(error)}") from None
    servers = _servers_here()
    try:
        _check_size(resources, num_rewards, ray.cluster_resources(), f"the cluster at {resources.ray_address}")
        yield
    finally:
        _leave(side, servers)


class _Starting:
    """While Ray starts: a server of it that dies or is stopped would be waited for until Ray ends this process, and an
    agent that dies takes its raylet along, which may end this process in going.

    Args:
        check: what is asked for besides.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._last_look = time.monotonic()
        self._earlier = set(psutil.Process().children())
        self._servers: dict[psutil.Process, RayProcess] = {}

    def __call__(self) -> None:
        """Nothing while all is well.

        Raises:
            RunError: naming the server that died or is stopped.
        """
        self._check()
        passed = time.monotonic() - self._last_look
        if passed < _LOOK_INTERVAL_S:
            return
        self._last_look += passed
        self._find_servers()
        for server in self._servers.values():
            server.look(min(passed, LONGEST_LOOK_S))
            if server.has_ended():
                raise RunError(f"{server.describe()} died while Ray started")
            if server.stopped_s > _LONGEST_STOP_S:
                raise RunError(f"{server.describe()} has been stopped for {_LONGEST_STOP_S:g} s while Ray started")

    def stopped(self) -> str:
        """Names a server that is stopped, in a clause; Ray itself only tells what it did not get. Empty if none is."""
        found = [server.describe() for server in self._servers.values() if server.stopped_s > 0]
        return f"{found[0]} is stopped" if found else ""

    def _find_servers(self) -> None:
        for child in set(psutil.Process().children()) - self._earlier - self._servers.keys():
            with contextlib.suppress(psutil.Error):
                name = SERVERS.get(child.name())
                if name is not None:
                    self._servers[child] = RayProcess(name, child)
        for server in list(self._servers.values()):
            for agent in agents_of(server.process) if server.name == SERVERS["raylet"] else ():
                self._servers.setdefault(agent.process, agent)


def _start_ray(
    side: SideThread,
    settings: Mapping[str, Any],
    check: Callable[[], None],
    timeout_s: float | None,
) -> None:
    """`ray.init`, watched; outside the main thread it leaves the handlers of signals alone, too."""

    def start() -> None:
        import ray  # takes a second to import

        ray.init(**settings, log_to_driver=False, logging_level=logging.ERROR)
        _silence_ray()

    side.run(start, timeout_s=timeout_s, check=check)


def _silence_ray() -> None:
    """Ends the thread that prints what Ray thinks of its own processes, 25 lines at a time: we name who died."""
    from ray._private.worker import global_worker

    global_worker.threads_stopped.set()
    global_worker.gcs_error_subscriber.close()


def _leave(side: SideThread, servers: Sequence[RayProcess]) -> bool:
    """Leaves the cluster; False if it is broken: then Ray is not asked to, since it may hang or end this process."""
    import ray

    try:
        if not any(server.is_broken() for server in servers):
            side.run(ray.shutdown, timeout_s=_SHUTDOWN_TIMEOUT_S)
            return True
    except DeadlineError:
        pass
    atexit.unregister(ray._private.worker.shutdown)
    return False


def _servers_here() -> list[RayProcess]:
    from adanat_rl.rl.cluster_watch import servers_here  # imports Ray

    return servers_here()


def _forget_other_clusters() -> None:
    """What other clusters have left in the environment must not reach a private one."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH", "RAY_NAMESPACE", "RAY_TMPDIR", "RAY_OVERRIDE_RESOURCES"):
        os.environ.pop(name, None)
    # Ray switches token mode on by itself, and reads the token once in the life of a process.
    os.environ["RAY_AUTH_TOKEN"] = os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)
    for name in ("no_proxy", "NO_PROXY"):  # a proxy knows nothing of this machine's loopback
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join(dict.fromkeys([*hosts, "127.0.0.1", "localhost"]))


def _last_words() -> str:
    """What is said when this process ends without a word."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    again = shlex.join(words) if words[0] == "adanat-rl" else "the same command"
    return (
        f"adanat-rl: process {os.getpid()} was ended without a word, from outside (kill, want of memory) or by code in "
        f"it (os._exit, a crash)\n  safe: the checkpoints in its run folder\n  go on with: {again}"
    )


def _hint() -> str:
    limit = address_space()
    return "" if limit is None else f" (`ulimit -v` allows {limit / 1e9:.1f} GB of addresses; Ray and torch need more)"


def is_private(resources: ResourcesConfig) -> bool:
    """Whether a run starts a cluster of its own on this machine."""
    return resources.ray_address == "local" and not in_ray_job()


def _check_size(resources: ResourcesConfig, num_rewards: int, available: dict[str, Any], where: str) -> None:
    for unit, needed in (
        ("CPU", required_cpus(resources, num_rewards)),
        ("GPU", required_gpus(resources, num_rewards)),
    ):
        if needed > available.get(unit, 0.0) + 1e-9:
            raise UserError(
                f"resources: the workers reserve {needed:g} {unit}s ({_shares(resources, num_rewards, unit)}), but "
                f"{where} has {available.get(unit, 0.0):g}; lower resources.num_env_runners or "
                f"resources.num_{unit.lower()}s_per_env_runner"
            )


def _shares(resources: ResourcesConfig, num_rewards: int, unit: str) -> str:
    parts = []
    for name, count in (
        ("env_runner", resources.num_env_runners),
        ("reward_actor", num_rewards * resources.num_reward_actors),
        ("learner", resources.num_learners),
    ):
        each = getattr(resources, f"num_{unit.lower()}s_per_{name}")
        if count and each:
            parts.append(f"{count} {name}{'s' if count > 1 else ''} × {each:g}")
    return ", ".join(parts)


def _usable_gpus() -> int:
    import torch

    return torch.cuda.device_count()


@contextmanager
def filtered_stderr(*unwanted: str) -> Iterator[None]:
    """Drops lines that contain one of `unwanted` from what is written to standard error, by C++ code too.

    What is written inside appears when the block ends.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines = file.read().decode(errors="replace").splitlines()
            wanted = [line for line in lines if not any(text in line for text in unwanted)]
            if wanted:
                print("\n".join(wanted), file=sys.stderr)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
