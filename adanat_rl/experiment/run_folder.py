"""The run folder: what lies where, who may write, and whether a folder belongs to this configuration."""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import psutil
import yaml

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.files import write_atomically
from adanat_rl.config.loading import dump, validate
from adanat_rl.config.revision import git_revision
from adanat_rl.config.run_paths import RunPaths
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.config.secrets import hide_secrets
from adanat_rl.experiment.lock import LOCK, acquire_lock

# Settings that may change between a start and a resume: they do not touch what is learned.
_FREE_SECTIONS = ("name", "run_dir", "checkpoints", "evaluation", "resources", "tracking", "search", "pretraining")
_FREE_KEYS = ("training.num_iterations", "ppo.features", "data.max_damaged", "data.num_workers", "data.prefetch")
_PACKAGES = ("adanat-rl", "ray", "torch", "numpy", "gymnasium", "mlflow", "torchmetrics", "pydantic", "safetensors")


class RunFolder(RunPaths):
    """The paths of a run, and the lock on it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._lock: IO[str] | None = None

    def prepare(
        self, config: ExperimentConfig, known_files: Sequence[str] = (), may_change: Sequence[str] = ()
    ) -> None:
        """Makes the folder, takes the lock and writes or compares the configuration.

        Args:
            known_files: that may lie in a new folder. may_change: settings that may differ from those of the folder.

        Raises:
            UserError: no permission, another kind of folder, another run's folder, or a run that is still going on.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = acquire_lock(self.path)
        except PermissionError as error:
            raise UserError(f"run_dir: no permission to write in {error.filename}; choose another --run-dir") from None
        except (FileExistsError, NotADirectoryError):
            raise UserError(f"run_dir: {self.path} is a file, expected a folder") from None
        except FileNotFoundError as error:  # a file system that makes no folders, as /proc
            raise UserError(f"run_dir: cannot make {error.filename}: {error.strerror}") from None
        if self.config_file.exists():
            self._compare(config, may_change)
        elif any(entry.name not in {LOCK, *known_files} for entry in self.path.iterdir()):
            self.release()
            raise UserError(f"run_dir: {self.path} holds other files and is no run folder; choose another --run-dir")
        write_atomically(self.config_file, dump(config), durable=True)
        write_atomically(self.environment_file, json.dumps(describe_environment(), indent=2))

    def release(self) -> None:
        """Gives the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def saved_config(self) -> ExperimentConfig:
        """The configuration of the run.

        Raises:
            UserError: this is no run folder.
        """
        try:
            settings = yaml.safe_load(self.config_file.read_text())
        except FileNotFoundError:
            raise UserError(f"{self.path} is no run folder: it has no config.yaml") from None
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"{self.config_file} cannot be read: {error}") from None
        return validate(settings)

    def _compare(self, config: ExperimentConfig, may_change: Sequence[str]) -> None:
        for key, ours, theirs in _differences(config, self.saved_config()):
            if key in may_change:
                continue
            self.release()
            raise UserError(
                f"run_dir: {self.path} belongs to another run: {key} is {theirs!r} there and {ours!r} here; "
                "choose another --run-dir, or the same settings to go on"
            )


def _differences(ours: ExperimentConfig, theirs: ExperimentConfig) -> Iterator[tuple[str, Any, Any]]:
    """Settings that decide what is learned and differ."""
    left, right = _flatten(ours.model_dump(mode="json")), _flatten(theirs.model_dump(mode="json"))
    for key in left:
        if key.split(".")[0] in _FREE_SECTIONS or key in _FREE_KEYS:
            continue
        if left[key] != right.get(key):
            yield key, left[key], right.get(key)


def _flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def describe_environment() -> dict[str, Any]:
    """Git revision, package versions and hardware of this process."""
    installed: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed[package] = None
    return {
        "git_revision": git_revision(),
        "command": [hide_secrets(word) for word in sys.argv],
        "python": platform.python_version(),
        "packages": installed,
        "platform": platform.platform(),
        "processor": _processor(),
        "num_cpus": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM}


def disk_error(error: OSError, folder: Path, resume: str) -> RunError | None:
    """The failure to report when a write did not succeed; None for an error of another kind."""
    if error.errno not in _DISK_ERRORS:
        return None
    return RunError(
        f"cannot write in {folder}: {error.strerror}",
        safe=f"the complete checkpoints in {folder / 'checkpoints'}",
        resume=resume,
    )
