"""What the audit of a run folder looks at, over any number of crashes and resumes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from adanat_rl.config.errors import UserError
from adanat_rl.config.files import JsonLines, file_sha256, scan_json_lines
from adanat_rl.config.metric_keys import BATCH_HASH, ITERATION, TABLE_SHA256
from adanat_rl.config.metric_rows import MetricRows, read_metric_rows
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.experiment.checkpoints import (
    DamagedCheckpointError,
    Snapshot,
    checkpoint_folders,
    newest_readable,
    read_snapshot,
)
from adanat_rl.experiment.findings import Finding
from adanat_rl.experiment.rollout_table import table_files
from adanat_rl.experiment.run_folder import RunFolder
from adanat_rl.experiment.same_run import changed_settings
from adanat_rl.generation.policies.files import load_policy

_TAKEOVERS = "takeovers.jsonl"  # of a trial of a population


def audit(folder: RunFolder) -> list[Finding]:
    """All findings, problems included.

    Raises:
        UserError: this is no run folder.
    """
    config = folder.saved_config()
    metric_rows = read_metric_rows(folder.metrics_file)
    takeovers = scan_json_lines(folder.path / _TAKEOVERS)
    jumps = _jumps(takeovers)
    newest, _ = newest_readable(folder.checkpoints)
    return [
        *_checkpoints(folder.checkpoints, "checkpoint"),
        *_best(folder, newest),
        *_settings(folder, config, newest),
        *_lines(takeovers, _TAKEOVERS),
        *_metric_rows(metric_rows, newest, jumps),
        *_trajectories(folder, config, metric_rows, jumps),
        *_results(folder),
        *_policy(folder),
        *_leftovers(folder),
    ]


def _checkpoints(folder: Path, what: str) -> list[Finding]:
    findings = []
    for path in checkpoint_folders(folder).values():
        try:
            read_snapshot(path)
            findings.append(Finding(f"{what} {path.name}", True, "matches its manifest"))
        except DamagedCheckpointError as error:
            findings.append(Finding(f"{what} {path.name}", False, str(error)))
    if (folder / "damaged").is_dir():
        count = len(list((folder / "damaged").iterdir()))
        findings.append(Finding(f"{what}s set aside", False, f"{count} damaged, in {folder / 'damaged'}", fatal=False))
    return findings or [Finding(f"{what}s", False, "there is none")]


def _best(folder: RunFolder, newest: Snapshot | None) -> list[Finding]:
    """The checkpoint of the best evaluation, where one is kept."""
    if not folder.best_checkpoints.exists():
        return []
    findings = _checkpoints(folder.best_checkpoints, "best checkpoint")
    best = newest.state.get("best") if newest is not None else None
    kept = checkpoint_folders(folder.best_checkpoints)
    if isinstance(best, dict) and kept and int(best[ITERATION]) not in kept:
        detail = f"the best evaluation is of iteration {best[ITERATION]:.0f}, kept is {max(kept)}"
        findings.append(Finding("best checkpoint", False, detail))
    return findings


def _settings(folder: RunFolder, config: ExperimentConfig, newest: Snapshot | None) -> Iterator[Finding]:
    """Whether config.yaml is still what the newest checkpoint was made with, and what was changed on purpose."""
    state = newest.state if newest is not None else {}
    if "settings" in state and "contents" in state:
        found = changed_settings(config, state, folder.changes_file)
        detail = "those of the newest checkpoint" if not found else f"config.yaml was changed: {found[0]}"
        yield Finding("settings", not found, detail)
    changes = scan_json_lines(folder.changes_file)
    yield from _lines(changes, folder.changes_file.name)
    for change in changes.rows:
        text = f"after iteration {change.get('after_iteration')}: {change.get('key')} accepted as changed"
        yield Finding("change on the way", True, text)


def _lines(found: JsonLines, name: str) -> list[Finding]:
    return [Finding(name, False, problem) for problem in [*found.damaged, *found.altered]]


def _jumps(takeovers: JsonLines) -> list[int]:
    """Iterations at which the trial went on from another one's state."""
    return [row[ITERATION] for row in takeovers.rows if isinstance(row.get(ITERATION), int)]


def _metric_rows(found: MetricRows, newest: Snapshot | None, jumps: list[int]) -> Iterator[Finding]:
    """Rows 0, 1, 2, … without gap or repetition, but for those that a takeover leaves, and none short of the newest
    checkpoint.
    """
    for problem in [*found.problems, *found.altered]:
        yield Finding("metric rows", False, problem)
    iterations = [row[ITERATION] for row in found.rows]
    expected = 0
    for iteration in iterations:
        taken_over = any(expected <= jump == iteration - 1 for jump in jumps)
        if iteration != expected and not taken_over:
            yield Finding("metric rows", False, f"row {expected} is of iteration {iteration}")
            return
        expected = iteration + 1
    last = expected - 1
    if newest is not None and newest.iteration > last and newest.iteration not in jumps:
        detail = f"they end at iteration {last}, the newest checkpoint is of {newest.iteration}"
        yield Finding("metric rows", False, detail)
        return
    if not (found.problems or found.altered):
        yield Finding("metric rows", bool(iterations), f"iterations 0 to {last}, each once")


def _trajectories(
    folder: RunFolder, config: ExperimentConfig, metric_rows: MetricRows, jumps: list[int]
) -> list[Finding]:
    """Every id that the metric rows account for stands in the rollout tables exactly once."""
    rows = {row[ITERATION]: row for row in metric_rows.rows if row[ITERATION] > 0}
    tables = table_files(folder.rollouts)
    problems = []
    if missing := sorted(rows.keys() - tables.keys()):
        problems.append(f"no table of iteration {_some(missing)}")
    next_one = {max([0, *rows, *jumps]) + 1}  # one may have been killed before its row
    if extra := sorted(tables.keys() - rows.keys() - next_one):
        problems.append(f"table without metric row: iteration {_some(extra)}")
    seen: Counter[str] = Counter()
    for iteration in sorted(rows.keys() & tables.keys()):
        problems += _table_problems(tables[iteration], iteration, config, rows[iteration], seen)
    doubles = [name for name, count in seen.items() if count > 1]
    if doubles:
        problems.append(f"{len(doubles)} trajectories used twice, such as {doubles[0]}")
    if problems:
        return [Finding("trajectories", False, problem) for problem in problems]
    return [Finding("trajectories", True, f"{len(seen)} ids in {len(rows)} iterations, each exactly once")]


def _table_problems(
    path: Path, iteration: int, config: ExperimentConfig, row: Mapping[str, Any], seen: Counter[str]
) -> list[str]:
    try:
        table = pq.read_table(path, columns=["id"])
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        return [f"{path.name} cannot be read: {(str(error).splitlines() or [type(error).__name__])[0]}"]
    ids = [str(name) for name in table["id"].to_pylist()]
    seen.update(ids)
    training = config.training
    expected = {
        f"{iteration:06d}-{index // training.shard_size:05d}-{index % training.shard_size:05d}"
        for index in range(training.trajectories_per_iteration)
    }
    problems = []
    if set(ids) != expected:
        problems.append(f"{path.name}: {len(expected - set(ids))} ids missing, {len(set(ids) - expected)} unknown")
    recorded = (table.schema.metadata or {}).get(b"batch_hash", b"").decode(errors="replace")
    batch_hash = row.get(BATCH_HASH)
    if batch_hash is not None and recorded != batch_hash:
        problems.append(f"{path.name}: batch hash {recorded[:12]}… differs from the metric row's {batch_hash[:12]}…")
    if row.get(TABLE_SHA256) not in {None, file_sha256(path)}:  # rows of older versions have none
        problems.append(f"{path.name} is not the file that the run wrote (its SHA-256 differs from the metric row's)")
    return problems


def _results(folder: RunFolder) -> Iterator[Finding]:
    """The files that a finished training leaves, as far as they are there."""
    for file in (folder.summary_file, folder.evaluation_file, folder.environment_file, folder.tracking_file):
        if not file.exists():
            continue
        content: Any = None
        try:
            content = json.loads(file.read_bytes())
            detail = "can be read" if isinstance(content, dict) else "holds no JSON object"
        except (OSError, ValueError, RecursionError) as error:
            detail = f"is damaged: {(str(error).splitlines() or [''])[0]}"
        fix = (
            "the same command of the run makes it again"
            if file in (folder.summary_file, folder.evaluation_file)
            else ""
        )
        yield Finding(file.name, isinstance(content, dict), detail, fix=fix)


def _policy(folder: RunFolder) -> list[Finding]:
    if not folder.policy.exists():
        return []
    try:
        exported = load_policy(folder.policy)
    except UserError as error:
        return [Finding("policy", False, str(error))]
    return [Finding("policy", True, f"loads; trained for {exported.trained.get('iterations')} iterations")]


def _leftovers(folder: RunFolder) -> list[Finding]:
    """Unfinished files of a writer that was killed; the next start of the run removes them."""
    found = [path for path in folder.path.rglob(".*.tmp") if path.exists()]
    if not found:
        return []
    detail = f"{len(found)}, such as {found[0].relative_to(folder.path)}"
    return [Finding("unfinished files", False, detail, fatal=False)]


def _some(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    return shown + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")
