"""The main job as phases: prepare the folder, connect, resume or begin, loop, finish."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from adanat_rl.config.comparison_file import read_comparison
from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.files import write_atomically
from adanat_rl.config.metric_keys import ITERATION
from adanat_rl.config.plain_files import require_plain_files
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.evaluation.comparison import Comparison, Row, panel_sentences
from adanat_rl.evaluation.judge import FD_A
from adanat_rl.experiment.checkpoints import CheckpointStore, Snapshot, checkpoint_folders, newest_readable
from adanat_rl.experiment.cluster import check_this_machine, connect, in_ray_job
from adanat_rl.experiment.experiment import Experiment
from adanat_rl.experiment.progress import Display, is_evaluation, open_display
from adanat_rl.experiment.run_folder import RunFolder, disk_error
from adanat_rl.plots.report import write_report
from adanat_rl.rl.algorithm import RolloutInterruptedError
from adanat_rl.stopping import StopRequest
from adanat_rl.tracking.mlflow_sink import Tracker, open_tracker

_ADVICE_STALLED = "stopped early; more with a larger evaluation.early_stop_patience, or null"


def train(
    config: ExperimentConfig,
    path: Path,
    again: str,
    stop: StopRequest,
    *,
    quiet: bool = False,
    log_json: bool = False,
    accept_change: bool = False,
    start_over: bool = False,
) -> int:
    """Runs or goes on with the run of a folder; returns the exit status.

    Args:
        again: the command to name in messages. stop: heard in every phase. accept_change, start_over: see
            `RunFolder.prepare`.
    """
    if in_ray_job() and not path.is_absolute():
        raise UserError(
            f"run_dir: {path} is relative, but a Ray job runs in a folder that is deleted; give an absolute path"
        )
    folder = RunFolder(path)
    require_plain_files(path)
    if start_over or not is_complete(config, folder):  # a finished run is shown on any machine
        check_this_machine(config.resources, len(config.reward.kinds))
    try:
        folder.prepare(config, accept_change=accept_change, start_over=start_over)
        if is_complete(config, folder):
            return _show_complete(config, folder, quiet, log_json)
        with (
            open_display(config.name, quiet=quiet, log_json=log_json) as display,
            connect(config.resources, len(config.reward.kinds), stop.check),
            open_tracker(config, folder, display.warning) as tracker,
        ):
            stop.install()  # Ray has taken SIGTERM
            stop.check()
            return _run(config, folder, again, display, tracker, stop)
    except (OSError, UserError) as error:
        try:
            folder.require_presence()  # else that is what is wrong
        except RunError as gone:
            raise gone.advised("", again) from error
        if isinstance(error, UserError):
            raise
        safe = f"the complete checkpoints in {folder.checkpoints}"
        raise disk_error(error, path, safe, again) or error from error
    except RunError as error:
        raise error.advised(_what_is_safe(folder), again) from error
    finally:
        folder.release()


def _show_complete(config: ExperimentConfig, folder: RunFolder, quiet: bool, log_json: bool) -> int:
    """Nothing is left to do but to send MLflow what it did not take before."""
    with (
        open_display(config.name, quiet=quiet, log_json=log_json) as display,
        open_tracker(config, folder, display.warning) as tracker,
    ):
        stalled = (_read_object(folder.summary_file) or {}).get("stopped_early", False)
        more = _ADVICE_STALLED if stalled else "more with training.num_iterations"
        display.message(f"run folder {folder.path} is complete; {more}")
        tracker.finish("FINISHED")
        _show_result(folder, display)
    return 0


class Training:
    """The run of a folder in phases: `train` goes through them at once, a trial of a sweep from evaluation to
    evaluation.

    Args:
        folder: prepared, with its lock held. stop: asked between and within iterations whether to stop.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        folder: RunFolder,
        display: Display,
        tracker: Tracker,
        stop: StopRequest,
    ) -> None:
        self._config = config
        self._folder = folder
        self._display = display
        self._tracker = tracker
        self._stop = stop
        checkpoints = config.checkpoints
        self._store = CheckpointStore(folder.checkpoints, checkpoints.keep, self._warn)
        self._best_store = CheckpointStore(folder.best_checkpoints, 1, self._warn) if checkpoints.keep_best else None
        folder.checkpoints.mkdir(exist_ok=True)
        self._start = self._find_start()
        self.experiment = Experiment(config, folder, stop)

    @property
    def iteration(self) -> int:
        """The last finished iteration."""
        return self.experiment.iteration

    def begin(self) -> None:
        """Goes on from the newest checkpoint, or evaluates the untrained policy."""
        total = self._config.training.num_iterations
        snapshot, self._start = self._start, None
        if snapshot is not None:
            for note in self.experiment.restore(snapshot):
                self._warn(note)
            if self._best_store is not None:
                self._best_store.discard_after(self.iteration)
            self._display.message(f"going on after iteration {self.iteration} of {total}")
        else:
            row = self.experiment.begin()
            self._tell_damage(row)
            self._display.row(0, total, row)
            self._keep_best()
            self.save()
        self._tracker.wake()

    def advance(self) -> dict[str, Any] | None:
        """Iterates up to the next evaluation and returns its row; None if there is none to come or it was interrupted.

        Whatever ends it, a checkpoint of the last finished iteration is on the disk.
        """
        try:
            while not self.experiment.is_over:
                self._stop.check()
                row = self._iterate()
                if is_evaluation(row):
                    return row
        except (KeyboardInterrupt, RolloutInterruptedError):
            self._stop.note()
        except BaseException:
            with suppress(OSError, RunError):  # what failed first is what a person must hear of
                self.save()
            raise
        self.save()
        return None

    def _find_start(self) -> Snapshot | None:
        """The checkpoint to go on from, before anything expensive is started.

        Raises:
            RunError: there is a history but no checkpoint: beginning from zero is for a person to decide.
        """
        snapshot = self._store.newest()
        if snapshot is None and self._folder.has_history:
            raise RunError(
                f"{self._folder.path} has metric rows or rollout tables but no checkpoint to go on from; "
                "--start-over begins anew and puts what is there aside",
                safe=f"all that is in {self._folder.path}",
            )
        return snapshot

    def save(self) -> None:
        """Writes a checkpoint of the last finished iteration, unless there is one or nothing was finished yet."""
        if self.experiment.has_state:
            self._folder.require_presence()
            with self._stop.polled():
                self._store.save(self.experiment.save, self.iteration)

    def take_over(self, folder: Path) -> None:
        """Goes on from the state of another training of the same kind, at its iteration."""
        self.experiment.adopt(folder)
        self._store.discard_after(self.iteration - 1)
        if self._best_store is not None:
            self._best_store.discard_after(-1)
        self.save()

    def finish(self) -> None:
        """Export, comparison, summary, report; all of it is made again if the command was killed in between."""
        experiment, display = self.experiment, self._display
        self._stop.check()
        self._folder.require_presence()
        if self._config.checkpoints.final == "best":
            experiment.choose(self._best_snapshot())
        experiment.export()
        display.message("comparing with controls and baselines:")

        def tell(row: Row) -> None:
            display.message(f"  FD {row.evaluation.mean(FD_A):.3f}  {row.title}")
            self._stop.check()
            self._folder.require_presence()

        comparison = experiment.compare(tell)
        write_report(self._folder)
        summary = json.dumps(summarise(experiment, comparison), indent=1, ensure_ascii=False)
        write_atomically(self._folder.summary_file, summary, parents=False)

    def close(self) -> None:
        """Ends runners and reward actors."""
        with self._stop.polled():
            self.experiment.close()

    def _best_snapshot(self) -> Snapshot | None:
        """The state of the best evaluation; None where none was counted yet.

        Raises:
            RunError: its checkpoint is missing or damaged.
        """
        best = self.experiment.best
        if best is None:
            self._warn("no evaluation was counted as the best one yet: the last policy is compared and exported")
            return None
        found, problems = newest_readable(self._folder.best_checkpoints)
        if found is None or found.iteration != best[ITERATION]:
            problem = f" ({problems[0]})" if problems else ""
            raise RunError(
                f"the checkpoint of the best evaluation, iteration {best[ITERATION]:.0f}, is missing or damaged"
                f"{problem}; compare and export the last policy by checkpoints.final=last"
            )
        return found

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
            with self._stop.polled():
                self._best_store.save(self.experiment.save, self.iteration)

    def _tell_damage(self, row: Mapping[str, Any]) -> None:
        for reason in self.experiment.new_damage(row):
            self._warn(f"damaged image, another was taken in its place: {reason}")

    def _warn(self, text: str) -> None:
        self._display.warning(text)


def _run(
    config: ExperimentConfig,
    folder: RunFolder,
    again: str,
    display: Display,
    tracker: Tracker,
    stop: StopRequest,
) -> int:
    workers = config.resources
    display.message(
        f"run folder {folder.path}: starting {workers.num_env_runners} env runners, "
        f"{workers.num_reward_actors * len(config.reward.kinds)} reward actors, {workers.num_learners} learner actors"
    )
    training: Training | None = None
    try:
        training = Training(config, folder, display, tracker, stop)
        training.begin()
        while training.advance() is not None:
            pass
        stop.check()
        training.finish()
        with stop.polled():
            tracker.finish("FINISHED")
        _show_result(folder, display)
    except (KeyboardInterrupt, RolloutInterruptedError):
        stop.note()
        if training is not None:
            training.save()
        tracker.finish("KILLED")
        display.message(f"{_stopped(folder)}; go on with: {again}")
        return stop.exit_status
    finally:
        if training is not None:
            training.close()
    return 0


def _stopped(folder: RunFolder) -> str:
    found = checkpoint_folders(folder.checkpoints)
    return (
        f"stopped after iteration {max(found)}, checkpoint written" if found else "stopped before the first iteration"
    )


def _what_is_safe(folder: RunFolder) -> str:
    found = checkpoint_folders(folder.checkpoints)
    return f"checkpoint after iteration {max(found)} in {folder.checkpoints}" if found else "nothing yet"


def summarise(experiment: Experiment, comparison: Comparison) -> dict[str, Any]:
    """What a run comes to, in a few numbers."""
    progress = experiment.progress
    return {
        "name": experiment.config.name,
        "iterations": progress.iteration,
        "trajectories": progress.num_trajectories,
        "nat_passes": progress.num_passes,
        "train_seconds": progress.train_seconds,
        "policy": comparison.policy.evaluation.summary(),
        "best_during_training": progress.best,
        "stopped_early": experiment.has_stalled,
        "num_stale_evaluations": progress.num_stale_evaluations,
        "policy_of_iteration": experiment.chosen_iteration,
        "verdict": comparison.verdict.sentence if comparison.verdict is not None else None,
    }


def is_complete(config: ExperimentConfig, folder: RunFolder) -> bool:
    """Whether the run has all its iterations and its results; what was damaged is made again."""
    summary = _read_object(folder.summary_file)
    if summary is None:
        return False
    try:
        read_comparison(folder.evaluation_file)
        iterations = int(summary["iterations"])
        num_stale = summary.get("num_stale_evaluations")
        patience = config.evaluation.early_stop_patience
        stalled = bool(summary.get("stopped_early", False)) and patience is not None
        if stalled and num_stale is not None:
            stalled = int(num_stale) >= int(patience or 0)
    except (KeyError, TypeError, ValueError):
        return False
    return stalled or iterations >= config.training.num_iterations


def _read_object(file: Path) -> dict[str, Any] | None:
    """A JSON object; None while it is not there, or where it is damaged."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):  # what else may be wrong with the folder, `prepare` says
        return None
    return content if isinstance(content, dict) else None


def _show_result(folder: RunFolder, display: Display) -> None:
    comparison = read_comparison(folder.evaluation_file)
    display.table(comparison)
    for sentence in panel_sentences(comparison):
        display.message(sentence)
    if comparison["verdict"] is not None:
        display.message(comparison["verdict"]["sentence"])
    display.message(f"report: {folder.report_file}")
    display.message(f"policy: {folder.policy}")
