"""What `doctor` looks at: versions, devices, memory, disk, ports, write permission, MLflow store, weights, cluster."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.experiment.cluster import required_cpus, required_gpus
from adanat_rl.experiment.findings import Finding
from adanat_rl.experiment.limits import address_space, available_memory, usable_cpus

_MIN_FREE_BYTES = 2 * 10**9
_MLFLOW_TIMEOUT_S = 30.0
_MIN_ADDRESSES = 64 * 10**9
_MIN_SHARED_MEMORY_BYTES = 300 * 10**6


def examine(config: ExperimentConfig, run_dir: Path) -> list[Finding]:
    """All findings; one that cannot be made is a finding too."""
    checks: list[Callable[[], list[Finding]]] = [
        _python,
        _packages,
        _devices,
        lambda: _workers(config),
        _memory,
        lambda: _storage(run_dir),
        lambda: _weights(config),
        lambda: _store(config, run_dir),
        _ports,
        lambda: _cluster(config),
    ]
    findings = []
    for check in checks:
        try:
            findings += check()
        except Exception as error:  # a check that breaks must not hide the others
            findings.append(Finding("check", False, f"{type(error).__name__}: {error}", fatal=False))
    return findings


def _python() -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    return [Finding("Python", sys.version_info >= (3, 11), version, "install Python 3.11 or later")]


def _packages() -> list[Finding]:
    """The declared requirements against what is installed."""
    findings = []
    wrong = []
    count = 0
    for line in metadata.requires("adanat-rl") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if version not in requirement.specifier:
            wrong.append(f"{requirement.name} is {version}, needs {requirement.specifier}")
    detail = "; ".join(wrong) or f"all {count} at versions that fit"
    findings.append(Finding("packages", not wrong, detail, "pip install -c constraints.txt adanat-rl"))
    for extra in sorted(metadata.metadata("adanat-rl").get_all("Provides-Extra") or []):
        missing = [
            requirement.name
            for requirement in map(Requirement, metadata.requires("adanat-rl") or [])
            if requirement.marker is not None
            and requirement.marker.evaluate({"extra": extra})
            and not requirement.marker.evaluate({"extra": ""})
            and not _is_installed(requirement.name)
        ]
        detail = f"lacks {', '.join(missing)}" if missing else "installed"
        findings.append(
            Finding(f"extra [{extra}]", not missing, detail, f"pip install 'adanat-rl[{extra}]'", fatal=False)
        )
    return findings


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _devices() -> list[Finding]:
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    found = f"{usable_cpus()} CPUs, {len(gpus)} GPUs" + (f" ({', '.join(gpus)})" if gpus else "")
    return [Finding("devices", True, f"{found}; torch {torch.__version__}")]


def _workers(config: ExperimentConfig) -> list[Finding]:
    if config.resources.ray_address != "local":
        return []
    needed, have = required_cpus(config.resources, len(config.reward.kinds)), usable_cpus()
    fix = "lower resources.num_env_runners or resources.num_cpus_per_env_runner"
    findings = [Finding("CPUs for the workers", needed <= have, f"{needed:g} reserved of {have}", fix)]
    if gpus := required_gpus(config.resources, len(config.reward.kinds)):
        import torch

        there = torch.cuda.device_count()
        fix = "lower the number of workers or resources.num_gpus_per_*; 0 for all of them trains on CPUs"
        findings.append(Finding("GPUs for the workers", gpus <= there, f"{gpus:g} reserved of {there}", fix))
    return findings


def _memory() -> list[Finding]:
    free = available_memory()
    findings = [
        Finding(
            "memory", free > _MIN_FREE_BYTES, f"{free / 1e9:.1f} GB free", "close other programs; 2 GB should be free"
        )
    ]
    if (limit := address_space()) is not None:
        fix = "raise it: ulimit -v unlimited; torch and Ray map far more than they use"
        findings.append(Finding("ulimit -v", limit > _MIN_ADDRESSES, f"{limit / 1e9:.1f} GB of addresses", fix))
    shared = Path("/dev/shm")
    if shared.is_dir():
        room = shutil.disk_usage(shared).free
        fix = "enlarge it (docker run --shm-size=1g); Ray falls back to slower files"
        findings.append(
            Finding("shared memory", room > _MIN_SHARED_MEMORY_BYTES, f"{room / 1e9:.1f} GB free", fix, fatal=False)
        )
    return findings


def _storage(run_dir: Path) -> list[Finding]:
    folder = next(path for path in (run_dir.absolute(), *run_dir.absolute().parents) if path.exists())
    findings = []
    for name, place in (("run folder", folder), ("temporary folder", Path(tempfile.gettempdir()))):
        writable = os.access(place, os.W_OK)
        findings.append(Finding(f"{name} writable", writable, str(place), "choose another --run-dir, or set TMPDIR"))
        free = shutil.disk_usage(place).free
        detail = f"{free / 1e9:.1f} GB free"
        findings.append(
            Finding(f"{name} space", free > _MIN_FREE_BYTES, detail, "free some space; 2 GB should be free")
        )
    return findings


def _weights(config: ExperimentConfig) -> list[Finding]:
    from adanat_rl.experiment.build import complete_inputs
    from adanat_rl.generation.pipeline import load_pipeline

    findings = []
    try:
        complete_inputs(config)
        findings.append(
            Finding("weights", True, f"generator of {config.name} loads; reward {config.reward.kind} is known")
        )
    except UserError as error:
        findings.append(Finding("weights", False, str(error), "give the files, or make them with adanat-rl pretrain"))
    try:
        load_pipeline()
        findings.append(Finding("shipped policy", True, "loads"))
    except UserError as error:
        findings.append(Finding("shipped policy", False, str(error), "install adanat-rl again"))
    return findings


def _store(config: ExperimentConfig, run_dir: Path) -> list[Finding]:
    if not config.tracking.enabled:
        return [Finding("MLflow", True, "tracking is switched off")]
    from adanat_rl.tracking.destinations import destinations
    from adanat_rl.tracking.mlflow_runs import within
    from adanat_rl.tracking.store_artifacts import database_file
    from adanat_rl.tracking.troubles import explain

    findings = []
    for destination in destinations(config, run_dir):
        path = database_file(destination.uri)
        if path is not None and not path.exists():
            findings.append(Finding("MLflow", True, f"will be made at the first run: {path}"))
            continue
        try:
            within(_MLFLOW_TIMEOUT_S, lambda to=destination: to.connect().search_experiments(max_results=1))  # type: ignore[misc]
        except Exception as error:
            sentence = explain(error, destination.place, destination.experiment, "training goes on without it").sentence
            findings.append(Finding("MLflow", False, sentence, "start or mend it, or tracking.uri=", fatal=False))
        else:
            findings.append(Finding("MLflow", True, f"{destination.place} answers"))
    return findings


def _ports() -> list[Finding]:
    """Ray's other ports of a local cluster are free ones; these are asked for by number."""
    findings = []
    uses = ((5000, "adanat-rl ui"), (8265, "Ray's dashboard"), (52365, "agent that starts Ray jobs"))
    for port, use in uses:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            taken = probe.connect_ex(("127.0.0.1", port)) == 0
        detail = f"{'in use' if taken else 'free'} ({use})"
        findings.append(
            Finding(f"port {port}", not taken, detail, "choose another port, or use what runs there", fatal=False)
        )
    return findings


def _cluster(config: ExperimentConfig) -> list[Finding]:
    """Joins, or starts, the cluster and asks it for its size."""
    from adanat_rl.experiment.cluster import connect

    try:
        with connect(config.resources, len(config.reward.kinds)):
            import ray

            size = ray.cluster_resources()
            nodes = sum(node["Alive"] for node in ray.nodes())
            detail = f"{nodes} nodes, {size.get('CPU', 0):g} CPUs, {size.get('GPU', 0):g} GPUs; Ray {ray.__version__}"
    except (UserError, RunError) as error:
        fix = "start one with `ray start --head`, or leave resources.ray_address at local"
        return [Finding(f"Ray ({config.resources.ray_address})", False, str(error), fix)]
    return [Finding(f"Ray ({config.resources.ray_address})", True, detail)]
