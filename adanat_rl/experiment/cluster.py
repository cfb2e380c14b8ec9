"""The Ray cluster of a run: a private local one, the one of a Ray job, or one that is already running."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.schema import ResourcesConfig
from adanat_rl.experiment.reaper import reaper

_FOLDER_PREFIX = "adanat-ray-"
_OBJECT_STORE_BYTES = 256 * 2**20
_LARGE_OBJECT_STORE_BYTES = 4 * 2**30  # where there are GPUs: states of full-size policies go through it


def quiet_environment() -> None:
    """Switches off usage reports and chatter of Ray and MLflow; must run before they are imported."""
    defaults = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "PYTHONWARNINGS": "ignore",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    for logger in ("ray", "ray.rllib", "ray.tune"):
        logging.getLogger(logger).setLevel(logging.ERROR)


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
def connect(resources: ResourcesConfig, num_rewards: int = 1) -> Iterator[None]:
    """Starts or joins the cluster, and leaves it.

    Args:
        num_rewards: see `required_cpus`.

    Raises:
        UserError: the cluster, or this machine, is smaller than what the workers reserve.
        RunError: the cluster does not answer.
    """
    quiet_environment()
    check_this_machine(resources, num_rewards)
    if is_private(resources):
        store = _LARGE_OBJECT_STORE_BYTES if required_gpus(resources, num_rewards) else _OBJECT_STORE_BYTES
        with _private_cluster(store):
            yield
    else:
        with _running_cluster(resources, num_rewards):
            yield


@contextmanager
def _private_cluster(object_store_bytes: int) -> Iterator[None]:
    """A cluster of this process alone: its files lie in a temporary folder, its token only in the environment.

    Whatever happens to this process, nothing of the cluster stays behind.
    """
    import ray  # takes a second to import

    _remove_stale_folders()
    folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER_PREFIX}{os.getpid()}-"))
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray switches token mode on by itself
    python_path = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))
    with reaper(os.getpid(), folder):
        try:
            ray.init(
                address="local",
                num_cpus=usable_cpus(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=object_store_bytes,
                runtime_env={"env_vars": {"PYTHONPATH": python_path}},  # own rewards are found beside the caller
                _temp_dir=str(folder),
                # Workers that Ray starts beforehand lack our environment; none of ours would ever run in one.
                _system_config={"prestart_worker_first_driver": False},
            )
        except Exception as error:  # Ray raises a bare Exception here
            raise RunError(f"the private Ray cluster does not start: {_first_line(error)}") from error
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _running_cluster(resources: ResourcesConfig, num_rewards: int) -> Iterator[None]:
    """Joins the cluster of the Ray job that this process is, or the one at the address."""
    import ray

    address = None if resources.ray_address == "local" else resources.ray_address
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError) as error:
        raise RunError(f"no Ray cluster at {resources.ray_address}: {_first_line(error)}") from None
    try:
        _check_size(resources, num_rewards, ray.cluster_resources(), f"the cluster at {resources.ray_address}")
        yield
    finally:
        ray.shutdown()


def is_private(resources: ResourcesConfig) -> bool:
    """Whether a run starts a cluster of its own on this machine."""
    return resources.ray_address == "local" and not in_ray_job()


def _remove_stale_folders() -> None:
    """Deletes the folders of private clusters whose driver was killed before it could."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
        owner = folder.name.removeprefix(_FOLDER_PREFIX).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


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


def usable_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


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
