"""A trial: the training of a run folder as a Tune Trainable, from one evaluation to the next.

What a trial has done lies in its run folder and nowhere else. One that goes on first tells the scheduler what it had
reported before, from its metric rows, and then continues from its checkpoint.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ray.tune import Trainable

from adanat_rl.config.metric_keys import EVAL, ITERATION, REWARD_MEAN
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.config.secrets import has_hidden_secret
from adanat_rl.config.sweep_settings import SweepConfig
from adanat_rl.experiment.cluster import quiet_environment
from adanat_rl.experiment.sweep.folder import FAILED, FINISHED, INTERRUPTED, RUNNING, SweepFolder
from adanat_rl.experiment.sweep.plan import TrialSpec
from adanat_rl.experiment.sweep.searchers import TRIAL
from adanat_rl.stopping import StopRequest

SWEEP_FOLDER, WORKING_FOLDER = "sweep_folder", "working_folder"
TRACKING_URI, TRACKING_ENVIRONMENT = "tracking_uri", "tracking_environment"  # as they were typed, not as saved
NEWS = "news"  # key of what a trial's result has to say beside numbers
_ORIGIN = "origin.json"


class Trial(Trainable):
    """What Tune runs; its configuration holds the trial's number, the folders, and the parameters."""

    def setup(self, config: dict[str, Any]) -> None:
        """Reads what the trial is; the training is built when it is first needed."""
        quiet_environment()
        if Path(config[WORKING_FOLDER]).is_dir():
            os.chdir(config[WORKING_FOLDER])
        self._folder = SweepFolder(Path(config[SWEEP_FOLDER]))
        self._sweep, self._overrides = self._folder.saved()
        self._spec = next(spec for spec in self._folder.noted_trials() if spec.number == config[TRIAL])
        self._tracking_uri = config[TRACKING_URI]
        for name, value in config[TRACKING_ENVIRONMENT].items():
            os.environ.setdefault(name, value)
        self._exit = ExitStack()
        self._stop = StopRequest()
        self._training: Any = None
        self._last: dict[str, Any] = {}
        self._news = ""
        self._take_parameters(config)
        state = self._folder.read_trial(self._spec)
        self._was_done = state.is_done
        self._recorded = self._recorded_results() if self._sweep.scheduler.kind != "pbt" or state.is_done else []
        if not state.is_done:
            self._folder.write_trial(self._spec, RUNNING)

    def step(self) -> dict[str, Any]:
        """Up to the next evaluation; the last one with the final comparison."""
        if self._recorded:
            self._last = self._recorded.pop(0)
            return {**self._last, "done": self._was_done and not self._recorded}
        if self._was_done:
            return {**self._last, "done": True}
        try:
            with self._stop.watching(self._folder.stop_file):
                return self._train()
        except KeyboardInterrupt:  # its checkpoint is written
            self._stop.note()
            with self._stop.polled():
                return self._interrupted()
        except BaseException as error:
            self._note_failure(error)
            raise

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """For trials that take over: the whole state, and whose it is."""
        training = self._started()
        training.save()
        training.experiment.save(Path(checkpoint_dir) / "state")
        origin = {"trial": self._spec.number, ITERATION: training.iteration}
        (Path(checkpoint_dir) / _ORIGIN).write_text(json.dumps(origin))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Goes on from another trial's state; one's own lies in the run folder."""
        folder = Path(checkpoint_dir)
        origin = json.loads((folder / _ORIGIN).read_text(encoding="utf-8"))
        if origin["trial"] == self._spec.number:
            return
        self._started().take_over(folder / "state")
        settings = {key: self._spec.settings[key] for key in self._changing}
        self._folder.note_takeover(self._spec, origin["trial"], origin[ITERATION], settings)
        shown = ", ".join(f"{key}={_shown(value)}" for key, value in settings.items())
        self._news = f"goes on from trial {origin['trial']:03d} after iteration {origin[ITERATION]} with {shown}"

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """A trial with other parameters is a new process."""
        return False

    def cleanup(self) -> None:
        """Notes that a trial that is not at its end goes on later. That the scheduler has ended it, the driver notes:
        a driver that dies is none.
        """
        state = self._folder.read_trial(self._spec)
        if state.status == RUNNING and self._sweep.scheduler.kind != "pbt":
            self._folder.write_trial(self._spec, INTERRUPTED)
        self._close("KILLED")

    def _train(self) -> dict[str, Any]:
        self._stop.check()
        training = self._started()
        row = training.advance()
        if row is not None:
            self._last = result_of(row)
        news, self._news = self._news, ""
        if training.experiment.is_over:
            training.advance()  # writes the last checkpoint
            training.finish()
            self._close("FINISHED")
            self._folder.write_trial(self._spec, FINISHED)
            return {**self._last, NEWS: news, "done": True}
        if row is None:  # told to stop
            return self._interrupted()
        return {**self._last, NEWS: news, "done": False}

    def _interrupted(self) -> dict[str, Any]:
        """Told to stop: it goes on with the next start."""
        if self._training is not None:
            self._training.save()
        self._folder.write_trial(self._spec, INTERRUPTED)
        return {**self._last, NEWS: "", "done": True}

    def _started(self) -> Any:
        """The training, built now if it is not yet there."""
        if self._training is not None:
            return self._training
        from adanat_rl.experiment.build import complete_inputs
        from adanat_rl.experiment.progress import PlainDisplay
        from adanat_rl.experiment.run_folder import RunFolder
        from adanat_rl.experiment.training import Training
        from adanat_rl.tracking.mlflow_runs import run_uid
        from adanat_rl.tracking.mlflow_sink import open_tracker

        config = complete_inputs(self._config())
        folder = RunFolder(self._folder.trial(self._spec).path)
        folder.prepare(config, known_files=("trial.json", "trial.log"), may_change=tuple(self._changing))
        self._exit.callback(folder.release)
        log = self._exit.enter_context((folder.path / "trial.log").open("a", buffering=1))
        display = PlainDisplay(lambda text: print(text, file=log))
        parent = run_uid(self._folder.tracking_file)
        self._tracker = self._exit.enter_context(
            open_tracker(config, folder, display.warning, parent, self._folder.path)
        )
        self._training = Training(config, folder, display, self._tracker, self._stop)
        self._exit.callback(self._training.close)
        self._training.begin()
        return self._training

    def _config(self) -> ExperimentConfig:
        config = self._spec.config(self._sweep, self._overrides)
        tracking = config.tracking
        if tracking.uri is not None and self._tracking_uri is not None and has_hidden_secret(tracking.uri):
            tracking = tracking.model_copy(update={"uri": self._tracking_uri})
        folder = str(self._folder.trial(self._spec).path)
        return config.model_copy(update={"run_dir": folder, "tracking": tracking})

    @property
    def _changing(self) -> list[str]:
        """Settings that may be others than when the trial began."""
        return list(self._sweep.parameters) if self._sweep.scheduler.kind == "pbt" else []

    def _take_parameters(self, config: Mapping[str, Any]) -> None:
        """A population changes parameters on the way; the note of the trial follows."""
        changed = {key: config[key] for key in self._changing if config.get(key) != self._spec.settings.get(key)}
        if changed:
            settings = {**self._spec.settings, **changed}
            self._spec = TrialSpec(self._spec.number, self._spec.arm, self._spec.seed, settings)
            self._folder.write_trial(self._spec, RUNNING)

    def _recorded_results(self) -> list[dict[str, Any]]:
        """What was reported before, if anybody wants to hear it again."""
        from adanat_rl.config.files import read_json_lines

        if not replays(self._sweep):
            return []
        rows = read_json_lines(self._folder.trial(self._spec).metrics_file)
        return [result_of(row) for row in rows if EVAL + self._sweep.metric in row and row[ITERATION] > 0]

    def _note_failure(self, error: BaseException) -> None:
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0] if lines else ''}"
        self._folder.write_trial(self._spec, FAILED, reason)
        with (self._folder.trial(self._spec).path / "trial.log").open("a") as log:
            log.write("".join(traceback.format_exception(error)))
        self._close("FAILED")

    def _close(self, status: str) -> None:
        if self._training is not None:
            self._tracker.finish(status)
        self._training = None
        self._exit.close()


def replays(sweep: SweepConfig) -> bool:
    """Whether trials that are done are told again: to a scheduler or a sampler that learns from them."""
    return sweep.scheduler.kind == "asha" or sweep.search.method in {"tpe", "cmaes"}


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def result_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What Tune is told of an evaluation."""
    numbers = {key.removeprefix(EVAL): value for key, value in row.items() if key.startswith(EVAL)}
    return {ITERATION: row[ITERATION], "reward": row.get(REWARD_MEAN, 0.0), **numbers}
