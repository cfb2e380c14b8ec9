"""The main job as phases: prepare the folder, connect, resume or begin, loop, finish."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
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
from adanat_rl.experiment.progress import Display, is_evaluation, open_display
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
        check_this_machine(config.resources, len(config.reward.kinds))
    folder.prepare(config)
    try:
        if is_complete(config, folder):
            return _show_complete(config, folder, quiet, log_json)
        with (
            open_display(config.name, quiet=quiet, log_json=log_json) as display,
            connect(config.resources, len(config.reward.kinds)),
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


class Training:
    """The run of a folder in phases: `train` goes through them at once, a trial of a sweep from evaluation to
    evaluation.

    Args:
        folder: prepared, with its lock held. interrupted: asked between and within iterations whether to stop.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        folder: RunFolder,
        display: Display,
        tracker: Tracker,
        interrupted: Callable[[], bool],
    ) -> None:
        self._config = config
        self._folder = folder
        self._display = display
        self._tracker = tracker
        self._interrupted = interrupted
        self.experiment = Experiment(config, folder, interrupted)
        checkpoints = config.checkpoints
        self._store = CheckpointStore(folder.checkpoints, checkpoints.keep, self._warn)
        self._best_store = CheckpointStore(folder.best_checkpoints, 1, self._warn) if checkpoints.keep_best else None

    @property
    def iteration(self) -> int:
        """The last finished iteration."""
        return self.experiment.iteration

    def begin(self) -> None:
        """Goes on from the newest checkpoint, or evaluates the untrained policy."""
        total = self._config.training.num_iterations
        snapshot = self._store.newest()
        if snapshot is not None:
            self.experiment.restore(snapshot)
            self._display.message(f"going on after iteration {self.iteration} of {total}")
        else:
            row = self.experiment.begin()
            self._tell_damage(row)
            self._display.row(0, total, row)
            self._keep_best()
            self._store.save(self.experiment.save, 0)
        self._tracker.wake()

    def advance(self) -> dict[str, Any] | None:
        """Iterates up to the next evaluation and returns its row; None if there is none to come or it was interrupted.

        Whatever ends it, a checkpoint of the last finished iteration is on the disk.
        """
        try:
            with suppress(RolloutInterruptedError):  # raised before anything of the iteration was kept
                while not self.experiment.is_over and not self._interrupted():
                    row = self._iterate()
                    if is_evaluation(row):
                        return row
        except RunError:
            if self.experiment.is_whole:
                self.save()
            raise
        self.save()
        return None

    def save(self) -> None:
        """Writes a checkpoint of the last finished iteration, unless there is one."""
        self._store.save(self.experiment.save, self.iteration)

    def take_over(self, folder: Path) -> None:
        """Goes on from the state of another training of the same kind, at its iteration."""
        self.experiment.load(folder)
        self._store.discard_after(self.iteration - 1)
        self.save()

    def finish(self) -> None:
        """Export, comparison, summary, report; all of it is made again if the command was killed in between."""
        experiment, display = self.experiment, self._display
        if self._config.checkpoints.final == "best" and self._best_store is not None:
            experiment.choose(self._best_store.newest())
        experiment.export()
        display.message("comparing with controls and baselines:")
        comparison = experiment.compare(
            lambda row: display.message(f"  FD {row.evaluation.mean(FD_A):.3f}  {row.title}")
        )
        write_report(self._folder)
        summary = json.dumps(summarise(experiment, comparison), indent=1, ensure_ascii=False)
        write_atomically(self._folder.summary_file, summary)

    def close(self) -> None:
        """Ends runners and reward actors."""
        self.experiment.close()

    def _iterate(self) -> dict[str, Any]:
        row = self.experiment.step()
        self._tell_damage(row)
        if is_evaluation(row) and self.experiment.warning:
            self._warn(self.experiment.warning)
        self._keep_best()
        if self.iteration % self._config.checkpoints.interval_iterations == 0:
            self.save()
        self._display.row(self.iteration, self._config.training.num_iterations, row)
        self._tracker.wake()
        return row

    def _keep_best(self) -> None:
        if self._best_store is not None and self.experiment.is_best:
            self._best_store.save(self.experiment.save, self.iteration)

    def _tell_damage(self, row: Mapping[str, Any]) -> None:
        for reason in self.experiment.new_damage(row):
            self._warn(f"damaged image, another was taken in its place: {reason}")

    def _warn(self, text: str) -> None:
        self._display.message(f"warning: {text}")


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
        f"{workers.num_reward_actors * len(config.reward.kinds)} reward actors, {workers.num_learners} learner actors"
    )
    training = Training(config, folder, display, tracker, guard)
    try:
        training.begin()
        while training.advance() is not None:
            pass
        if guard():
            tracker.finish("KILLED")
            display.message(f"stopped after iteration {training.iteration}, checkpoint written; go on with: {again}")
            return guard.exit_status
        training.finish()
        tracker.finish("FINISHED")
        _show_result(folder, display)
    finally:
        training.close()
    return 0


def _with_advice(error: RunError, folder: RunFolder, again: str) -> RunError:
    """The same failure with what is safe and how to go on."""
    found = checkpoint_folders(folder.checkpoints)
    safe = f"checkpoint after iteration {max(found)} in {folder.checkpoints}" if found else "nothing yet"
    return RunError(error.message, error.safe or safe, error.resume or again)


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
        "stopped_early": experiment.has_stalled,
        "policy_of_iteration": experiment.chosen_iteration,
        "verdict": comparison.verdict.sentence if comparison.verdict is not None else None,
    }


def is_complete(config: ExperimentConfig, folder: RunFolder) -> bool:
    """Whether the run has all its iterations and its results."""
    try:
        summary = json.loads(folder.summary_file.read_text())
    except OSError:  # not there yet; what else may be wrong with the folder, `prepare` says
        return False
    stalled = summary.get("stopped_early", False) and config.evaluation.early_stop_patience is not None
    return stalled or int(summary["iterations"]) >= config.training.num_iterations


def _show_result(folder: RunFolder, display: Display) -> None:
    comparison = json.loads(folder.evaluation_file.read_text())
    display.table(comparison)
    if comparison["verdict"] is not None:
        display.message(comparison["verdict"]["sentence"])
    display.message(f"report: {folder.report_file}")
    display.message(f"policy: {folder.policy}")
