"""The sweep as phases: prepare the folder, connect, let Tune run what is left, report."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.metric_keys import ITERATION
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.config.side_thread import SideThread
from adanat_rl.config.sweep_settings import SweepConfig
from adanat_rl.experiment.build import complete_inputs
from adanat_rl.experiment.cluster import connect, in_ray_job, is_private, this_machine
from adanat_rl.experiment.environment import git_revision
from adanat_rl.experiment.progress import Display, open_display
from adanat_rl.experiment.run_folder import disk_error
from adanat_rl.experiment.sweep.folder import FAILED, PENDING, SweepFolder, TrialState
from adanat_rl.experiment.sweep.plan import TrialSpec, plan_trials
from adanat_rl.experiment.sweep.population import Population, population_space
from adanat_rl.experiment.sweep.resources import check_room, trial_bundles
from adanat_rl.experiment.sweep.searchers import TRIAL, OptunaTrials, PlannedTrials
from adanat_rl.experiment.sweep.trial import (
    SWEEP_FOLDER,
    TRACKING_ENVIRONMENT,
    TRACKING_URI,
    WORKING_FOLDER,
    Trial,
    replays,
)
from adanat_rl.stopping import StopRequest
from adanat_rl.tracking.destinations import tracking_environment
from adanat_rl.tracking.sweep_run import SweepRun

_PENDING_TRIALS = 8  # that may wait for room at once, so that a cluster that grows knows how much to


def run_sweep(
    sweep: SweepConfig,
    path: Path,
    overrides: Sequence[str],
    again: str,
    stop: StopRequest,
    *,
    quiet: bool = False,
    log_json: bool = False,
) -> int:
    """Runs or goes on with the sweep of a folder; returns the exit status.

    Args:
        overrides: settings of all trials that win over those of the file. again: the command to name in messages.
        stop: heard in every phase.
    """
    if in_ray_job() and not path.is_absolute():
        raise UserError(
            f"run_dir: {path} is relative, but a Ray job runs in a folder that is deleted; give an absolute path"
        )
    path = path.resolve()
    configs = check_trials(sweep, tuple(overrides))
    if is_private(configs[0].resources):
        for config in configs:
            check_room(trial_bundles(sweep, config), this_machine(), "this machine")
    folder = SweepFolder(path)
    safe = f"the trials in {path / 'trials'}, each with its checkpoints"
    try:
        folder.prepare(sweep, overrides)
        with open_display(sweep.name, quiet=quiet, log_json=log_json) as display:
            return _Sweep(sweep, folder, tuple(overrides), configs[0], display, again, stop).run()
    except OSError as error:
        raise disk_error(error, path, safe, again) or error from error
    except RunError as error:
        raise error.advised(safe, again) from error
    finally:
        folder.release()


def check_trials(
    sweep: SweepConfig,
    overrides: tuple[str, ...],
    complete: Callable[[ExperimentConfig], ExperimentConfig] = complete_inputs,
) -> list[ExperimentConfig]:
    """The configuration of one trial of each arm, with all that can be wrong before a launch checked.

    Args:
        complete: takes files in and checks them.

    Raises:
        UserError: naming arm and setting.
    """
    specs = plan_trials(sweep) or [_middle_trial(sweep)]
    found = []
    for arm in dict.fromkeys(spec.arm for spec in specs):
        try:
            of_arm = [spec.config(sweep, overrides) for spec in specs if spec.arm == arm]
            found.append(complete(of_arm[0]))
        except UserError as error:
            raise UserError(f"arm {arm!r}: {error}") from None
    return found


def _middle_trial(sweep: SweepConfig) -> TrialSpec:
    """Some trial of those that Optuna will propose."""
    arm, settings = next(iter(sweep.arms.items()), ("all", {}))
    values = {key: parameter.values[0] for key, parameter in sweep.parameters.items()}
    return TrialSpec(0, arm, sweep.seeds[0], {**settings, **values})


class _Sweep:
    """One start of a sweep."""

    def __init__(
        self,
        sweep: SweepConfig,
        folder: SweepFolder,
        overrides: tuple[str, ...],
        config: ExperimentConfig,
        display: Display,
        again: str,
        stop: StopRequest,
    ) -> None:
        self._stop = stop
        self._sweep = sweep
        self._folder = folder
        self._overrides = overrides
        self._config = config
        self._display = display
        self._again = again
        self._specs = plan_trials(sweep) or folder.noted_trials()
        self._is_planned = bool(plan_trials(sweep))
        revision = git_revision(Path(__file__).parents[2])
        self._parent = SweepRun(config, folder.path, sweep.name, display.warning, revision)

    def run(self) -> int:
        """Runs what is left, then reports."""
        states = self._folder.write_trials(self._sweep, self._specs, is_over=True)
        num_done = sum(state.is_done for state in states)
        if num_done:
            self._display.message(f"{num_done} of {self._num_trials} trials are done; going on with the others")
        try:
            if num_done < self._num_trials:
                self._parent.begin({"trials": self._num_trials, "metric": self._sweep.metric, **self._params()})
                with connect(self._config.resources, check=self._stop.check):
                    self._stop.install()  # Ray has taken SIGTERM
                    self._stop.check()
                    with self._stop.polled():
                        self._tune(states)
            self._stop.check()
        except KeyboardInterrupt:
            self._stop.note()
            return self._stopped()
        states = self._folder.write_trials(self._sweep, self._specs, is_over=True)
        return self._report(states)

    def _stopped(self) -> int:
        """What is told of a sweep that somebody stopped; returns the exit status."""
        with self._stop.polled():
            states = self._folder.write_trials(self._sweep, self._specs, is_over=True)
            self._parent.finish("KILLED", {}, {}, "")
        done = sum(state.is_done for state in states)
        self._display.message(f"stopped with {done} of {self._num_trials} trials done; go on with: {self._again}")
        return self._stop.exit_status

    @property
    def _num_trials(self) -> int:
        return len(self._specs) if self._is_planned else self._sweep.search.num_samples

    def _params(self) -> dict[str, Any]:
        sweep = self._sweep
        params = {f"parameter.{key}": f"{value.kind} {list(value.values)}" for key, value in sweep.parameters.items()}
        return {"seeds": len(sweep.seeds), "arms": ", ".join(sweep.arms) or "all", **params}

    def _begin(self, spec: TrialSpec) -> None:
        """A trial is about to start: its note is what the trial reads."""
        if not self._is_planned and spec not in self._specs:
            self._specs = [known for known in self._specs if known.number != spec.number] + [spec]
        state = self._folder.read_trial(spec)
        if not state.is_done:
            self._folder.write_trial(state.spec, PENDING)
        self._folder.write_trials(self._sweep, self._specs, is_over=False)

    def _tune(self, states: Sequence[TrialState]) -> None:
        """Hands the trials that are left to Tune."""
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
        os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
        os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new display prints whatever its verbosity is
        os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # a trial that is told to stop may have no number yet
        # A sampler that learns is asked late.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(_PENDING_TRIALS if self._is_planned else 1)
        import ray
        from ray import tune
        from ray.tune.error import TuneError

        for logger in ("ray.tune", "ray.air", "ray.train"):
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        shutil.rmtree(self._folder.scheduler_folder, ignore_errors=True)
        random.seed(self._sweep.scheduler.seed)  # Tune's population draws from the global generator
        room = min(
            check_room(trial_bundles(self._sweep, self._config_of(state.spec)), ray.cluster_resources(), "the cluster")
            for state in states or [TrialState(_middle_trial(self._sweep), PENDING)]
        )
        at_once = min(room, self._sweep.resources.max_concurrent or room)
        self._display.message(f"sweep folder {self._folder.path}: {self._num_trials} trials, {at_once} at once")
        from adanat_rl.experiment.sweep.watching import FrozenTrials, StopWhen, Watcher

        searcher, population, num_samples = self._proposals(states)
        timeout_s = self._config.resources.cluster_timeout_s
        frozen = FrozenTrials(timeout_s)
        watcher = Watcher(
            self._folder, self._sweep, self._display, lambda: self._specs, self._num_trials, self._stop, frozen
        )
        tuner = tune.Tuner(
            tune.with_resources(Trial, partial(_placement, self._sweep, self._overrides, self._folder.path)),
            param_space={
                SWEEP_FOLDER: str(self._folder.path),
                WORKING_FOLDER: str(Path.cwd()),
                TRACKING_URI: self._config.tracking.uri,
                TRACKING_ENVIRONMENT: tracking_environment(),
                **population,
            },
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=_scheduler(self._sweep, self._config),
                num_samples=num_samples,
                max_concurrent_trials=self._sweep.resources.max_concurrent,
            ),
            run_config=tune.RunConfig(
                name=self._folder.scheduler_folder.name,
                storage_path=str(self._folder.path),
                stop=StopWhen(self._stop, self._folder, lambda: self._specs),
                callbacks=[watcher],
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        try:
            _fit(tuner, timeout_s, frozen)
        except TuneError as error:  # with the traceback of what failed in the driver as its text
            raise RunError(f"the driver of the sweep failed: {str(error).strip().splitlines()[-1]}") from error
        finally:
            shutil.rmtree(self._folder.scheduler_folder, ignore_errors=True)

    def _proposals(self, states: Sequence[TrialState]) -> tuple[Any, dict[str, Any], int]:
        """Who proposes trials, the space of a population, and how many trials that makes."""
        left = [state.spec for state in states if not state.is_done or replays(self._sweep)]
        if self._sweep.scheduler.kind == "pbt":  # Tune lets nobody else propose the trials of a population
            population = population_space(self._sweep, left)
            for spec in left:
                self._begin(spec)
            return None, population, 1
        if self._is_planned:
            return PlannedTrials(left, self._begin), {}, len(left)
        searcher = OptunaTrials(self._sweep, self._specs, self._begin, self._sweep.metric)
        return searcher, {}, self._sweep.search.num_samples

    def _config_of(self, spec: TrialSpec) -> ExperimentConfig:
        return spec.config(self._sweep, self._overrides)

    def _report(self, states: Sequence[TrialState]) -> int:
        """Summary, report and the parent run."""
        from adanat_rl.plots.ablation.report import write_ablation_report  # takes a second to import

        folder = self._folder.path
        found = write_ablation_report(folder)
        failed = [state for state in states if state.status == FAILED]
        files = {name: folder / name for name in ("sweep.yaml", "trials.json", "summary.csv", "report.html")}
        self._parent.finish("FAILED" if failed else "FINISHED", found.metrics, files, found.sentence)
        self._display.message(found.sentence)
        self._display.message(f"report: {folder / 'report.html'}; numbers: {folder / 'summary.csv'}")
        if failed:
            first = failed[0]
            raise RunError(
                f"{len(failed)} of {len(states)} trials failed, such as {first.spec.name}: {first.reason}",
                safe=f"the other trials and the report in {folder}; log: trials/{first.spec.name}/trial.log",
                resume=f"{self._again}   (tries the failed trials again, from their checkpoints)",
            )
        return 0


def _fit(tuner: Any, timeout_s: float, frozen: Any) -> None:
    """Runs the trials; Tune would wait without end for a Ray that is gone, or for a trial that is stopped."""
    from adanat_rl.rl.cluster_watch import ClusterWatch

    with closing(ClusterWatch(timeout_s)) as watch, warnings.catch_warnings():
        # A trial that takes over is a new process on purpose.
        warnings.filterwarnings("ignore", message="Consider boosting PBT performance")

        def check() -> None:
            watch()
            frozen.look()

        SideThread("adanat-rl sweep").run(tuner.fit, check=check)


def _placement(sweep: SweepConfig, overrides: tuple[str, ...], path: Path, settings: Mapping[str, Any]) -> Any:
    """The placement group of a trial that has begun; Tune keeps a copy of this, so it looks into the folder."""
    from ray.tune import PlacementGroupFactory

    spec = next(spec for spec in SweepFolder(path).noted_trials() if spec.number == settings[TRIAL])
    return PlacementGroupFactory(trial_bundles(sweep, spec.config(sweep, overrides)))


def _scheduler(sweep: SweepConfig, config: ExperimentConfig) -> Any:
    """Tune's scheduler; results come once per evaluation and are timed by their iteration."""
    from ray.tune.schedulers import AsyncHyperBandScheduler

    settings = sweep.scheduler
    if settings.kind == "asha":
        return AsyncHyperBandScheduler(
            time_attr=ITERATION,
            metric=sweep.metric,
            mode="min" if sweep.minimises else "max",
            max_t=config.training.num_iterations,
            grace_period=settings.grace_iterations,
            reduction_factor=settings.reduction_factor,
            stop_last_trials=False,
        )
    if settings.kind == "pbt":
        return Population(sweep)
    return None


def read_trials(folder: Path) -> dict[str, Any]:
    """The book of a sweep's trials.

    Raises:
        UserError: this is no sweep folder.
    """
    try:
        content: dict[str, Any] = json.loads((folder / "trials.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{folder} is no sweep: it has no trials.json") from None
    return content
