"""What the audit of a run folder looks at, over any number of crashes and resumes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from adanat_rl.config.errors import UserError
from adanat_rl.config.files import read_json_lines
from adanat_rl.config.metric_keys import BATCH_HASH, ITERATION
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.experiment.checkpoints import DamagedCheckpointError, checkpoint_folders, verify
from adanat_rl.experiment.findings import Finding
from adanat_rl.experiment.run_folder import RunFolder
from adanat_rl.generation.policies.files import load_policy


def audit(folder: RunFolder) -> list[Finding]:
    """All findings, problems included.

    Raises:
        UserError: this is no run folder.
    """
    config = folder.saved_config()
    return [
        *_checkpoints(folder),
        _metric_rows(folder),
        *_trajectories(folder, config),
        *_policy(folder),
    ]


def _checkpoints(folder: RunFolder) -> list[Finding]:
    findings = []
    for path in checkpoint_folders(folder.checkpoints).values():
        try:
            verify(path)
            findings.append(Finding(f"checkpoint {path.name}", True, "matches its manifest"))
        except DamagedCheckpointError as error:
            findings.append(Finding(f"checkpoint {path.name}", False, str(error)))
    return findings or [Finding("checkpoints", False, "there is none")]


def _metric_rows(folder: RunFolder) -> Finding:
    """Rows 0, 1, 2, … without gap or repetition."""
    iterations = [row[ITERATION] for row in read_json_lines(folder.metrics_file)]
    for expected, found in enumerate(iterations):
        if found != expected:
            return Finding("metric rows", False, f"row {expected} is of iteration {found}")
    return Finding("metric rows", bool(iterations), f"iterations 0 to {len(iterations) - 1}, each once")


def _trajectories(folder: RunFolder, config: ExperimentConfig) -> list[Finding]:
    """Every id that the metric rows account for stands in the rollout tables exactly once."""
    rows = {row[ITERATION]: row for row in read_json_lines(folder.metrics_file) if row[ITERATION] > 0}
    tables = {int(path.stem.removeprefix("iteration_")): path for path in folder.rollouts.glob("iteration_*.parquet")}
    problems = []
    if missing := sorted(rows.keys() - tables.keys()):
        problems.append(f"no table of iteration {_some(missing)}")
    if extra := sorted(tables.keys() - rows.keys() - {max(rows, default=0) + 1}):  # one may have been killed mid-row
        problems.append(f"table without metric row: iteration {_some(extra)}")
    seen: Counter[str] = Counter()
    for iteration in sorted(rows.keys() & tables.keys()):
        problems += _table_problems(tables[iteration], iteration, config, rows[iteration].get(BATCH_HASH), seen)
    doubles = [name for name, count in seen.items() if count > 1]
    if doubles:
        problems.append(f"{len(doubles)} trajectories used twice, such as {doubles[0]}")
    if problems:
        return [Finding("trajectories", False, problem) for problem in problems]
    return [Finding("trajectories", True, f"{len(seen)} ids in {len(rows)} iterations, each exactly once")]


def _table_problems(
    path: Path, iteration: int, config: ExperimentConfig, batch_hash: str | None, seen: Counter[str]
) -> list[str]:
    try:
        table = pq.read_table(path, columns=["id"])
    except (OSError, ValueError) as error:
        return [f"{path.name} cannot be read: {error}"]
    ids = table["id"].to_pylist()
    seen.update(ids)
    training = config.training
    expected = {
        f"{iteration:06d}-{index // training.shard_size:05d}-{index % training.shard_size:05d}"
        for index in range(training.trajectories_per_iteration)
    }
    problems = []
    if set(ids) != expected:
        problems.append(f"{path.name}: {len(expected - set(ids))} ids missing, {len(set(ids) - expected)} unknown")
    recorded = (table.schema.metadata or {}).get(b"batch_hash", b"").decode()
    if batch_hash is not None and recorded != batch_hash:
        problems.append(f"{path.name}: batch hash {recorded[:12]}… differs from the metric row's {batch_hash[:12]}…")
    return problems


def _policy(folder: RunFolder) -> list[Finding]:
    if not folder.policy.exists():
        return []
    try:
        exported = load_policy(folder.policy)
    except UserError as error:
        return [Finding("policy", False, str(error))]
    return [Finding("policy", True, f"loads; trained for {exported.trained.get('iterations')} iterations")]


def _some(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    return shown + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")
