"""What an ending, a finished folder and an MLflow store must look like; each answer is a list of faults in words."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from adanat_rl.config.run_paths import RunPaths
from adanat_rl.experiment.checkpoints import checkpoint_folders
from benchmarks.chaos.processes import describe
from benchmarks.chaos.starting import Ending, Place
from benchmarks.chaos.strikes import DONE, FAILED, INTERRUPTED, KILLED, REFUSED, TERMINATED
from benchmarks.chaos.workloads import PUT_ASIDE, RUN, Outcome, Workload, run_folders, written_rows

_OUR_LINES = re.compile(r"adanat-rl[ :]|  |warning: |$")  # with a colon the last words of a reaper
_INTERNAL = ("Traceback (most recent call last)", "unexpected")  # what no user may see
_SHOWN = 300


def ending_faults(ending: Ending, expected: Collection[int], workload: Workload) -> list[str]:
    """Exit status and words of a command that was struck, or given again."""
    if ending.status is None:
        return [f"hang: still running after {ending.seconds:.0f} s; {_tail(ending.output + ending.errors)}"]
    faults = []
    if ending.status not in expected:
        allowed = ", ".join(map(str, sorted(expected)))
        faults.append(f"exit status {ending.status} instead of {allowed}; {_tail(ending.output + ending.errors)}")
    text = ending.output + ending.errors
    faults += [
        f"it shows: …{' | '.join(text[max(0, text.index(word) - 60) :][:_SHOWN].splitlines())}"
        for word in _INTERNAL
        if word in text
    ]
    if ending.status in {FAILED, REFUSED}:
        if foreign := [line for line in ending.errors.splitlines() if not _OUR_LINES.match(line)]:
            faults.append(f"{len(foreign)} lines that are not ours, such as: {foreign[0][:_SHOWN]}")
        if not ending.errors.strip():
            faults.append("it failed without a word")
    if ending.status == FAILED and workload.goes_on and "go on with" not in ending.errors:
        faults.append(f"no command to go on with is named; {_tail(ending.errors)}")
    return faults


def stop_faults(ending: Ending, workload: Workload, place: Place) -> list[str]:
    """After a stop that was asked for, the last finished iteration is in a checkpoint."""
    if ending.status not in {INTERRUPTED, TERMINATED} or workload.command != "train":
        return []
    rows = written_rows(place.inside)
    checkpoints = checkpoint_folders(RunPaths(place.inside / RUN).checkpoints)
    newest = max(checkpoints, default=None)
    if rows and newest != rows - 1:
        return [f"{rows} rows are written, but the newest checkpoint is of iteration {newest}"]
    return []


def leftover_faults(place: Place, timeout_s: float) -> list[str]:
    """No process of a command outlives it for long; what does is ended here."""
    left = place.family.wait_for_end(timeout_s)
    if not left:
        return []
    faults = [f"{len(left)} processes left after {timeout_s:.0f} s: {'; '.join(map(describe, left[:4]))}"]
    place.family.kill()
    return faults


def temporary_files(place: Place) -> Counter[str]:
    """Kinds of entries in the TMPDIR of the commands, without what is random about names; caches of libraries not."""
    caches = ("torchinductor_", f"adanat-rl-{os.getuid()}")
    names = [path.name for path in place.temporary.iterdir() if not path.name.startswith(caches)]
    return Counter(re.sub(r"[0-9]+|(?<=-)[a-z0-9_]{8}\b", "N", name) for name in names)


def outcome_faults(workload: Workload, work: Path, reference: Outcome) -> list[str]:
    """What differs from the run that nothing disturbed."""
    try:
        found = workload.outcome(work)
    except (OSError, ValueError, KeyError, IndexError) as error:
        return [f"the result cannot be read: {type(error).__name__}: {error}"[:_SHOWN]]
    return [
        f"differs: {name}{_difference(reference.get(name, ''), found.get(name, ''))}"
        for name in sorted(reference.keys() | found.keys())
        if reference.get(name) != found.get(name)
        and not name.endswith(PUT_ASIDE)
        and not _is_put_aside(name, reference, found)
    ]


def audit_faults(workload: Workload, place: Place, timeout_s: float) -> list[str]:
    """What `adanat-rl audit` says of the finished folders."""
    faults = []
    for folder in run_folders(workload, place.inside):
        name = str(folder.relative_to(place.inside))
        ending = place.start("audit", ["--run-dir", name]).wait(timeout_s)
        if ending.status != DONE:
            problems = " | ".join(line for line in ending.output.splitlines() if not line.startswith("ok"))
            faults.append(f"audit of {name}: status {ending.status}; {problems} {_tail(ending.errors)}")
    return faults


def mlflow_faults(store: str, iterations: int) -> list[str]:
    """One finished run that has each step of each metric once.

    Args:
        store: a tracking URI.
    """
    from mlflow import MlflowClient

    client = MlflowClient(store)
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    if len(runs) != 1:
        return [f"MLflow has {len(runs)} runs"]
    run = runs[0]
    faults = [] if run.info.status == "FINISHED" else [f"MLflow says {run.info.status}"]
    if not run.data.params:
        faults.append("MLflow has no parameters")
    for metric in run.data.metrics:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, metric)]
        doubled = [step for step, count in Counter(steps).items() if count > 1]
        if doubled:
            faults.append(f"MLflow has {metric} twice at steps {doubled}")
    steps = sorted(point.step for point in client.get_metric_history(run.info.run_id, "iteration"))
    if steps != list(range(iterations + 1)):
        faults.append(f"MLflow has steps {steps} instead of 0 to {iterations}")
    return faults


def is_late(ending: Ending, struck_at_s: float, tolerance_s: float) -> bool:
    """Whether a command was done when it was struck: its result was there and it was leaving."""
    return ending.status == DONE and ending.seconds - struck_at_s <= tolerance_s


def was_killed(status: int | None) -> bool:
    """By SIGKILL."""
    return status == KILLED


def _is_put_aside(name: str, reference: Outcome, found: Outcome) -> bool:
    """Whether the only files that are missing are those of a checkpoint that was found damaged."""
    trial, slash, what = name.rpartition("/")
    theirs, ours = set(reference.get(name, "").split()), set(found.get(name, "").split())
    aside = set(found.get(f"{trial}{slash}{PUT_ASIDE}", "").split())
    return what == "files" and ours <= theirs and theirs - ours <= aside


def _difference(expected: str, found: str) -> str:
    """For lists of names: which are there too many or too few."""
    ours, theirs = set(found.split()), set(expected.split())
    if len(theirs) < 3 or not expected or not found or "{" in expected:
        return "" if found else " is missing"
    more, fewer = sorted(ours - theirs), sorted(theirs - ours)
    return f" (more: {', '.join(more[:5]) or '–'}; missing: {', '.join(fewer[:5]) or '–'})"


def _tail(text: str) -> str:
    return "…" + " | ".join(text.strip().splitlines()[-3:])[-_SHOWN:]
