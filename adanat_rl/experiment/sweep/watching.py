"""What the driver of a sweep does while Tune runs: shows progress, keeps the book, and stops when told."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil
from ray.tune import Callback, Stopper

from adanat_rl.config.metric_keys import ITERATION
from adanat_rl.config.sweep_settings import SweepConfig
from adanat_rl.experiment.progress import Display
from adanat_rl.experiment.sweep.folder import FAILED, RUNNING, STOPPED, SweepFolder
from adanat_rl.experiment.sweep.plan import TrialSpec
from adanat_rl.experiment.sweep.searchers import TRIAL
from adanat_rl.experiment.sweep.trial import NEWS, Trial
from adanat_rl.rl.cluster_watch import servers_here
from adanat_rl.rl.ray_processes import LONGEST_LOOK_S, SERVERS, RayProcess, actors_of
from adanat_rl.stopping import StopRequest

_GRACE_S = 60.0  # for trials to write their checkpoints
_LOOK_INTERVAL_S = 0.5
# What Ray calls the process of a trial: our class, and while it trains the class that Tune makes of it for resources.
_TRIALS = (Trial.__name__, "ResourceTrainable")
_MOMENT_S = 30.0  # in which Tune hears that a process has ended


class StopWhen(Stopper):
    """Ends everything once a signal has come: the trials see a file, write their checkpoints and end by themselves;
    those that have not within the grace period are ended by Tune.

    Args:
        stop: knows of the signal. folder: with the file that the trials look for. specs: the trials that there are.
    """

    def __init__(self, stop: StopRequest, folder: SweepFolder, specs: Callable[[], Sequence[TrialSpec]]) -> None:
        self._stop = stop
        self._folder = folder
        self._specs = specs
        self._since: float | None = None

    def __call__(self, trial_id: str, result: Any) -> bool:
        """A single trial is never stopped here."""
        return False

    def stop_all(self) -> bool:
        """Whether a signal has come and no trial is still on its way to a checkpoint."""
        if not self._stop():
            return False
        if self._since is None:
            self._since = time.monotonic()
            self._folder.stop_file.touch()
        if time.monotonic() - self._since > _GRACE_S:
            return True
        return all(self._folder.read_trial(spec).status != RUNNING for spec in self._specs())


class FrozenTrials:
    """Ends trials on this machine whose process has been stopped for long: Tune would wait for them without end.

    Args:
        timeout_s: how long.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._raylets = [server.process for server in servers_here() if server.name == SERVERS["raylet"]]
        self._trials: dict[psutil.Process, RayProcess] = {}
        self._last_look = time.monotonic()
        self._reasons: list[tuple[float, str]] = []

    def __getstate__(self) -> dict[str, float]:
        """Tune keeps copies of its callbacks, which nobody reads; processes cannot be kept."""
        return {"timeout_s": self._timeout_s}

    def look(self) -> None:
        """To be called all the time."""
        passed = time.monotonic() - self._last_look
        if passed < _LOOK_INTERVAL_S:
            return
        self._last_look += passed
        here = [process for raylet in self._raylets for process in actors_of(raylet, *_TRIALS)]
        self._trials = {process: self._trials.get(process) or RayProcess("trial", process) for process in here}
        for process, trial in self._trials.items():
            trial.look(min(passed, LONGEST_LOOK_S))
            if trial.stopped_s > self._timeout_s:
                trial.stopped_s = 0.0
                reason = (
                    f"its process {process.pid} had been stopped for resources.cluster_timeout_s = "
                    f"{self._timeout_s:g} s and was ended"
                )
                self._reasons.append((time.monotonic(), reason))
                with contextlib.suppress(psutil.Error):
                    process.kill()

    def take_reason(self) -> str | None:
        """Why a trial has failed whose process was ended a moment ago; None if none was."""
        recent = [reason for at, reason in self._reasons if time.monotonic() - at < _MOMENT_S]
        self._reasons.clear()
        return recent[0] if recent else None


class Watcher(Callback):
    """Shows results and keeps the book.

    Args:
        specs: the trials that there are, as they are now. num_trials: that there will be.
        stop: tells trials that were ended from trials that are to go on. frozen: knows why a process was ended.
    """

    def __init__(
        self,
        folder: SweepFolder,
        sweep: SweepConfig,
        display: Display,
        specs: Callable[[], Sequence[TrialSpec]],
        num_trials: int,
        stop: StopRequest,
        frozen: FrozenTrials,
    ) -> None:
        self._frozen = frozen
        self._folder = folder
        self._sweep = sweep
        self._display = display
        self._specs = specs
        self._num_trials = num_trials
        self._stop = stop
        self._num_shown = 0

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """One evaluation of a trial."""
        spec = self._spec(trial)
        if spec is None or self._sweep.metric not in result:
            return
        if result.get(NEWS):
            self._display.message(f"{spec.name}  {result[NEWS]}")
        value = result[self._sweep.metric]
        ending = f"  {self._folder.read_trial(spec).status}" if result.get("done", False) else ""
        numbers = f"{self._sweep.metric} {value:.3f}  reward {result['reward']:.3f}"
        self._display.message(f"{spec.name}  iteration {result[ITERATION]}  {numbers}{ending}")
        self._show()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has ended in good order: by itself, which it notes, or because the scheduler ended it."""
        spec = self._spec(trial)
        if spec is not None and not self._stop():
            state = self._folder.read_trial(spec)
            if state.status == RUNNING:
                self._folder.write_trial(state.spec, STOPPED)
        self._show()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has failed, by itself or with its process."""
        spec = self._spec(trial)
        if spec is None:
            return
        state = self._folder.read_trial(spec)
        if state.status != FAILED:
            told = self._frozen.take_reason() or str(getattr(trial, "error_msg", None) or "").strip()
            self._folder.write_trial(state.spec, FAILED, told.splitlines()[-1] if told else "its process died")
        reason = self._folder.read_trial(spec).reason
        self._display.warning(f"trial {spec.name} failed: {reason}; the others go on")
        self._show()

    def _show(self) -> None:
        states = self._folder.write_trials(self._sweep, self._specs(), is_over=False)
        done = sum(state.is_done for state in states)
        if done > self._num_shown:
            self._num_shown = done
            self._display.row(done, self._num_trials, {})

    def _spec(self, trial: Any) -> TrialSpec | None:
        number = trial.config.get(TRIAL)
        return next((spec for spec in self._specs() if spec.number == number), None)
