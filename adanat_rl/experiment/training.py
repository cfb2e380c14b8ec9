"""The main job as phases: prepare the folder, connect, resume or begin, loop, finish."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.files import write_atomically
from adanat_rl.config.metric_keys import NAT_PASSES_TOTAL, TRAIN_SECONDS_TOTAL, TRAJECTORIES_TOTAL
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.evaluation.comparison import Comparison
from adanat_rl.evaluation.judge import FD_A
from adanat_rl.experiment.checkpoints import CheckpointStore, checkpoint_folders
from adanat_rl.experiment.cluster import check_this_machine, connect, in_ray_job
from adanat_rl.experiment.experiment import Experiment
from adanat_rl.experiment.progress import Display, open_display
from adanat_rl.experiment.run_folder import RunFolder, disk_error
from adanat_rl.experiment.signals import InterruptGuard, interrupt_guard
from adanat_rl.plots.report import write_report
from adanat_rl.rl.algorithm import RolloutInterruptedError
from adanat_rl.tracking.mlflow_sink import Tracker, open_tracker


def train(config: ExperimentConfig, path: Path, again: str, *, quiet: bool = False, log_json: bool = False) -> int:
    """Runs or goes on with the run of a folder; returns the exit status.

    Args:
        again: the command to name in messages.
    """
    if in_ray_job() and not path.is_absolute():
        raise UserError(
            f"run_dir: {path} is relative, but a Ray job runs in a folder that is deleted; give an absolute path"
        )
    folder = RunFolder(path)
    if not is_complete(config, folder):  # a finished run is shown on any machine
        check_this_machine(config.resources)
    folder.prepare(config)
    try:
        if is_complete(config, folder):
            return _show_complete(config, folder, quiet, log_json)
        with (
            open_display(config.name, quiet=quiet, log_json=log_json) as display,
            connect(config.resources),
            open_tracker(config, folder, display.message) as tracker,
            interrupt_guard() as guard,
        ):
            return _run(config, folder, again, display, tracker, guard)
    except OSError as error:
        raise disk_error(error, path, again) or error from error
    except RunError as error:
        raise _with_advice(error, folder, again) from error
    finally:
        folder.release()


def _show_complete(config: ExperimentConfig, folder: RunFolder, quiet: bool, log_json: bool) -> int:
    """Nothing is left to do but to send MLflow what it did not take before."""
    with (
        open_display(config.name, quiet=quiet, log_json=log_json) as display,
        open_tracker(config, folder, display.message) as tracker,
    ):
        display.message(f"run folder {folder.path} is complete; more with training.num_iterations")
        tracker.finish("FINISHED")
        _show_result(folder, display)
    return 0


def _run(
    config: ExperimentConfig,
    folder: RunFolder,
    again: str,
    display: Display,
    tracker: Tracker,
    guard: InterruptGuard,
) -> int:
    workers = config.resources
    display.message(
        f"run folder {folder.path}: starting {workers.num_env_runners} env runners, "
        f"{workers.num_reward_actors} reward actors, {workers.num_learners} learner actors"
    )
    experiment = Experiment(config, folder, guard)
    try:
        store = CheckpointStore(
            folder.checkpoints, config.checkpoints.keep, lambda text: display.message(f"warning: {text}")
        )
        _resume_or_begin(experiment, store, display, tracker)
        with suppress(RolloutInterruptedError):  # raised before anything of the iteration was kept
            _loop(experiment, store, display, tracker, guard)
        store.save(experiment.save, experiment.iteration)
        if guard():
            tracker.finish("KILLED")
            display.message(f"stopped after iteration {experiment.iteration}, checkpoint written; go on with: {again}")
            return guard.exit_status
        _finish(experiment, display, tracker)
    finally:
        experiment.close()
    return 0


def _with_advice(error: RunError, folder: RunFolder, again: str) -> RunError:
    """The same failure with what is safe and how to go on."""
    found = checkpoint_folders(folder.checkpoints)
    safe = f"checkpoint after iteration {max(found)} in {folder.checkpoints}" if found else "nothing yet"
    return RunError(error.message, error.safe or safe, error.resume or again)


def _resume_or_begin(experiment: Experiment, store: CheckpointStore, display: Display, tracker: Tracker) -> None:
    total = experiment.config.training.num_iterations
    snapshot = store.newest()
    if snapshot is not None:
        experiment.restore(snapshot)
        display.message(f"going on after iteration {experiment.iteration} of {total}")
        tracker.wake()
        return
    display.row(0, total, experiment.begin())
    store.save(experiment.save, 0)
    tracker.wake()


def _loop(
    experiment: Experiment, store: CheckpointStore, display: Display, tracker: Tracker, guard: InterruptGuard
) -> None:
    total = experiment.config.training.num_iterations
    interval = experiment.config.checkpoints.interval_iterations
    while experiment.iteration < total and not guard():
        row = experiment.step()
        if experiment.iteration % interval == 0:
            store.save(experiment.save, experiment.iteration)
        display.row(experiment.iteration, total, row)
        tracker.wake()


def _finish(experiment: Experiment, display: Display, tracker: Tracker) -> None:
    """Export, comparison, summary, report; all of it is made again if the command was killed in between."""
    folder = experiment.folder
    experiment.export()
    display.message("comparing with controls and baselines:")
    comparison = experiment.compare(lambda row: display.message(f"  FD {row.evaluation.mean(FD_A):.3f}  {row.title}"))
    write_report(folder)
    write_atomically(folder.summary_file, json.dumps(summarise(experiment, comparison), indent=1, ensure_ascii=False))
    tracker.finish("FINISHED")
    _show_result(folder, display)


def summarise(experiment: Experiment, comparison: Comparison) -> dict[str, Any]:
    """What a run comes to, in a few numbers."""
    last = experiment.metrics.rows()[-1]
    return {
        "name": experiment.config.name,
        "iterations": experiment.iteration,
        "trajectories": last[TRAJECTORIES_TOTAL],
        "nat_passes": last[NAT_PASSES_TOTAL],
        "train_seconds": last[TRAIN_SECONDS_TOTAL],
        "policy": comparison.policy.evaluation.summary(),
        "best_during_training": experiment.best,
        "verdict": comparison.verdict.sentence if comparison.verdict is not None else None,
    }


def is_complete(config: ExperimentConfig, folder: RunFolder) -> bool:
    """Whether the run has all its iterations and its results."""
    try:
        summary = json.loads(folder.summary_file.read_text())
    except OSError:  # not there yet; what else may be wrong with the folder, `prepare` says
        return False
    return int(summary["iterations"]) >= config.training.num_iterations


def _show_result(folder: RunFolder, display: Display) -> None:
    comparison = json.loads(folder.evaluation_file.read_text())
    display.table(comparison)
    if comparison["verdict"] is not None:
        display.message(comparison["verdict"]["sentence"])
    display.message(f"report: {folder.report_file}")
    display.message(f"policy: {folder.policy}")
