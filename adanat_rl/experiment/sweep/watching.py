"""What the driver of a sweep does while Tune runs: shows progress, keeps the book, and stops when told."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune import Callback, Stopper

from adanat_rl.config.metric_keys import ITERATION
from adanat_rl.config.sweep_settings import SweepConfig
from adanat_rl.experiment.progress import Display
from adanat_rl.experiment.sweep.folder import FAILED, RUNNING, STOPPED, SweepFolder
from adanat_rl.experiment.sweep.plan import TrialSpec
from adanat_rl.experiment.sweep.searchers import TRIAL
from adanat_rl.experiment.sweep.trial import NEWS
from adanat_rl.stopping import StopRequest

_GRACE_S = 60.0  # for trials to write their checkpoints


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


class Watcher(Callback):
    """Shows results and keeps the book.

    Args:
        specs: the trials that there are, as they are now. num_trials: that there will be.
        stop: tells trials that were ended from trials that are to go on.
    """

    def __init__(
        self,
        folder: SweepFolder,
        sweep: SweepConfig,
        display: Display,
        specs: Callable[[], Sequence[TrialSpec]],
        num_trials: int,
        stop: StopRequest,
    ) -> None:
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
        done = result.get("done", False)
        numbers = f"{self._sweep.metric} {value:.3f}  reward {result['reward']:.3f}"
        self._display.message(f"{spec.name}  iteration {result[ITERATION]}  {numbers}{'  finished' if done else ''}")
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
            lines = str(getattr(trial, "error_msg", None) or "its process died").strip().splitlines()
            self._folder.write_trial(state.spec, FAILED, lines[-1] if lines else "its process died")
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
