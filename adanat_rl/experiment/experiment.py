"""The experiment: one object that owns algorithm, evaluation and run folder, with `step`, `save`, `load` and `close`.

`train` loops over it; a trial of a sweep is the same object. It is built from one resolved configuration, and
everything that decides the next iteration is in what `save` writes.

An iteration is committed as one thing, last: table, row, counters and state count together or not at all. What fails or
is interrupted before that leaves the iteration before as the last one, and that is what `save` writes.
"""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from adanat_rl.config import metric_keys as keys
from adanat_rl.config.errors import RunError
from adanat_rl.config.files import write_atomically
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.evaluation.comparison import Comparison, Row, compare
from adanat_rl.evaluation.controls import possible_controls
from adanat_rl.evaluation.drawing import DrawAndKeep, DrawSet
from adanat_rl.evaluation.hacking import evaluation_rows, find_hacking, hacking_row
from adanat_rl.evaluation.panel.standing import standing
from adanat_rl.evaluation.rewarded import rewarded_judges
from adanat_rl.experiment import rollout_table
from adanat_rl.experiment.build import build_algorithm, build_baselines, build_scene, draw_here
from adanat_rl.experiment.checkpoints import Snapshot, read_snapshot, write_snapshot
from adanat_rl.experiment.exporting import averaged_actor, exported_policy
from adanat_rl.experiment.gallery import write_gallery, write_sample_grid
from adanat_rl.experiment.metrics_log import MetricsLog
from adanat_rl.experiment.run_folder import RunFolder
from adanat_rl.generation.pipeline import GenerationPipeline
from adanat_rl.generation.policies.base import ActorPolicy
from adanat_rl.generation.policies.build import PolicySpec
from adanat_rl.generation.policies.files import save_policy
from adanat_rl.plots.decisions import write_decision_figure
from adanat_rl.rewards.base import RewardError
from adanat_rl.rewards.damage import DAMAGED_IMAGES, damaged_images
from adanat_rl.rl.algorithm import learner_metrics
from adanat_rl.stopping import StopRequest


@dataclass(frozen=True)
class Progress:
    """How far a run is: what a checkpoint holds beside tensors.

    Args:
        iteration: the last finished one. num_passes, num_trajectories: of all training rollouts so far.
        best: iteration and value of the best evaluation. num_stale_evaluations: since then, none of them better.
        train_seconds: without evaluations. failures: what was repaired so far, by name.
    """

    iteration: int = 0
    num_passes: float = 0.0
    num_trajectories: int = 0
    best: Mapping[str, float] | None = None
    num_stale_evaluations: int = 0
    train_seconds: float = 0.0
    failures: Mapping[str, int] | None = None

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Progress:
        """Out of the state of a checkpoint, which may be of a version that knew less."""
        names = cls.__dataclass_fields__
        return cls(**{name: value for name, value in state.items() if name in names})


class Experiment:
    """A training run; Ray must be running.

    Args:
        config: resolved. folder: prepared, with its lock held.
        stop: asked at safe points whether to stop; see `GenerationPPO`.
    """

    def __init__(self, config: ExperimentConfig, folder: RunFolder, stop: StopRequest | None = None) -> None:
        self.config = config
        self.folder = folder
        self._stop = stop or StopRequest()
        self.progress = Progress()
        self._committed: Snapshot | None = None
        self.scene = build_scene(config)
        self.metrics = MetricsLog(folder.metrics_file, folder.damaged_rows_file)
        self._spec = PolicySpec.of(config.policy, self.scene.generator)
        self._algorithm, self._rewards = build_algorithm(config, self.scene, self._stop)
        self._evaluator = self.scene.evaluator.drawing_by(self._draw_set())
        self.warning = ""  # of the last evaluation: that the reward is being hacked
        self._failures_before: dict[str, int] = {}
        self._known_damage: tuple[float, tuple[str, ...]] = (0.0, ())  # how many in the last row, and which
        self._chosen: Snapshot | None = None

    # --- life of a run

    def begin(self) -> dict[str, Any]:
        """A fresh start: warms up the reward model and evaluates the untrained policy; returns the row of iteration
        0.
        """
        self.metrics.cut_after(-1)
        rollout_table.cut_after(self.folder.rollouts, -1)
        start = time.perf_counter()
        warm_up = self._algorithm.warm_up()
        row: dict[str, Any] = {keys.ITERATION: 0, keys.UNIX_TIME: time.time()}
        row |= {keys.REWARD_MODEL + name: float(value) for name, value in warm_up.items()}
        row[keys.ITERATION_SECONDS] = time.perf_counter() - start
        numbers = self._evaluate(row, 0)
        return self._commit(row, self._with_evaluation(self.progress, numbers))

    def step(self) -> dict[str, Any]:
        """One iteration, with its evaluation when due; returns the row that was written.

        Raises:
            RunError: training has diverged, or something failed; the last finished iteration is as it was.
        """
        start = time.perf_counter()
        result = self._algorithm.train()
        row, progress = self._row(result)
        self._require_finite(row)
        self.folder.require_presence()
        row[keys.TABLE_SHA256] = rollout_table.write_rollout_table(
            self.folder.rollouts, progress.iteration, self._algorithm.last_rollout
        )
        seconds = time.perf_counter() - start
        progress = replace(progress, train_seconds=progress.train_seconds + seconds)
        row[keys.ITERATION_SECONDS] = seconds
        row[keys.TRAIN_SECONDS_TOTAL] = progress.train_seconds
        if self._evaluation_is_due(progress.iteration):
            progress = self._with_evaluation(progress, self._evaluate(row, progress.iteration))
        return self._commit(row, progress)

    def save(self, folder: Path) -> None:
        """Writes everything that decides the next iteration into an empty folder, as the last finished one left it."""
        if self._committed is None:
            raise RuntimeError("nothing has been finished yet")
        self.metrics.sync()
        write_snapshot(folder, self._committed)

    def load(self, folder: Path) -> None:
        """Goes on from what `save` wrote."""
        self.restore(read_snapshot(folder))

    def restore(self, snapshot: Snapshot) -> list[str]:
        """Goes on from a snapshot; rows and tables of later iterations are dropped, they will be made again.

        Returns:
            What a person should know: rows that are damaged or missing, a best evaluation that is counted anew.
        """
        notes = []
        progress = Progress.of(snapshot.state)
        metric = self.config.evaluation.metric
        if progress.best is not None and metric not in progress.best:
            progress = replace(progress, best=None, num_stale_evaluations=0)
            notes.append(f"evaluation.metric is {metric} now: the best evaluation is counted anew from here")
        try:
            self._algorithm.load_training_state(snapshot.tensors["learner"], progress.iteration)
            self._rewards.load_state(snapshot.tensors["reward"], snapshot.state["reward_version"])
        except (RuntimeError, KeyError, ValueError, RewardError) as error:
            raise RunError(
                f"the checkpoint of iteration {progress.iteration} does not fit these settings: "
                f"{(str(error).splitlines() or [type(error).__name__])[0]}; sizes of networks cannot be accepted as "
                "changed: give those of the run"
            ) from error
        notes += [f"metrics.jsonl: {problem}" for problem in self.metrics.cut_after(progress.iteration)]
        rollout_table.cut_after(self.folder.rollouts, progress.iteration)
        self.progress = progress
        self._failures_before = dict(progress.failures or {})
        self._committed = Snapshot(snapshot.tensors, self._state(progress, snapshot.state["reward_version"]))
        return notes

    def adopt(self, folder: Path) -> None:
        """Goes on from the state of another training of the same kind; its best evaluation is not ours."""
        self.load(folder)
        self.progress = replace(self.progress, best=None, num_stale_evaluations=0)
        assert self._committed is not None
        state = {**self._committed.state, **asdict(self.progress)}
        self._committed = Snapshot(self._committed.tensors, state)

    def compare(self, report: Callable[[Row], None] | None = None) -> Comparison:
        """The final evaluation: policy, controls, baselines; written to `evaluation.json` and
        `samples/decisions.npz`.
        """
        evaluation = self.config.evaluation
        seeds = range(evaluation.seed + 1, evaluation.seed + 1 + evaluation.num_seeds)
        controls = possible_controls(self.scene.generator) if self._spec.needs_features else ()
        title = f"{self.config.policy.kind} policy, T = {self.scene.generator.horizon} (this run)"
        result = compare(
            self._evaluator.of_images(evaluation.num_final_images or evaluation.num_images),
            self.policy(),
            title,
            build_baselines(self.config),
            list(seeds),
            controls=controls,
            rewarded=rewarded_judges(self.config),
            report=report,
        )
        write_comparison(self.folder, result, self.chosen_iteration)
        shutil.rmtree(self.folder.pieces, ignore_errors=True)
        write_gallery(self.folder.samples / "gallery.npz", self.pipeline(), evaluation.num_grid_contexts)
        return result

    def export(self) -> None:
        """Writes the policy as it is now to `policy/`."""
        snapshot = self._chosen or self._committed
        if snapshot is None:
            raise RuntimeError("nothing has been finished yet")
        policy = exported_policy(self.config, self._spec, snapshot.tensors["learner"], snapshot.state)
        save_policy(self.folder.policy, policy)

    def close(self) -> None:
        """Ends runners and reward actors."""
        self._rewards.close()
        self._algorithm.stop()

    # --- how far it is

    @property
    def iteration(self) -> int:
        """The last finished iteration."""
        return self.progress.iteration

    @property
    def best(self) -> Mapping[str, float] | None:
        """Iteration and value of the best evaluation."""
        return self.progress.best

    @property
    def has_state(self) -> bool:
        """Whether there is something to save."""
        return self._committed is not None

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to train."""
        return self.iteration >= self.config.training.num_iterations or self.has_stalled

    @property
    def has_stalled(self) -> bool:
        """Whether the last evaluations were all no better than the best one, as many as early stopping waits for."""
        patience = self.config.evaluation.early_stop_patience
        return patience is not None and self.progress.num_stale_evaluations >= patience

    def new_damage(self, row: Mapping[str, Any]) -> list[str]:
        """Damaged real images that the row of this iteration knows and none before, each with what is wrong."""
        count = sum(value for name, value in row.items() if name.endswith(DAMAGED_IMAGES))
        known_count, known = self._known_damage
        if count == known_count:
            return []
        found = damaged_images(self._rewards.state())
        self._known_damage = count, tuple(found)
        return [reason for reason in found if reason not in known]

    @property
    def is_best(self) -> bool:
        """Whether the current iteration has the best evaluation."""
        return self.best is not None and self.best[keys.ITERATION] == self.iteration

    def choose(self, snapshot: Snapshot | None) -> None:
        """Compares and exports the policy of a snapshot instead of the newest one; the training stays as it is."""
        self._chosen = snapshot

    @property
    def chosen_iteration(self) -> int:
        """Iteration of the policy that is compared and exported."""
        return self.iteration if self._chosen is None else self._chosen.iteration

    # --- the policy as it is now

    def policy(self) -> ActorPolicy:
        """The mean-action policy with a copy of the averaged weights."""
        generator = self.scene.generator
        return ActorPolicy(
            self._actor().to(generator.device), generator.decision_space, self.config.generator.block_rows
        )

    def pipeline(self) -> GenerationPipeline:
        """The same, as the pipeline that users load."""
        return GenerationPipeline(self.scene.generator, self.policy(), self.config.evaluation.batch_size)

    def _evaluation_is_due(self, iteration: int) -> bool:
        """Whether an iteration ends with an evaluation."""
        return (
            iteration % self.config.evaluation.interval_iterations == 0
            or iteration == self.config.training.num_iterations
        )

    def _draw_set(self) -> DrawSet:
        """How images of evaluations are drawn: by the driver or by the env runners, kept on disk until it is done."""
        evaluation, resources = self.config.evaluation, self.config.resources
        draw: DrawSet | None = None
        if evaluation.on_env_runners:
            draw = self._algorithm.draw_on_runners(evaluation.batch_size)
        if draw is None:
            draw = draw_here(self.config)
        if not evaluation.keep_pieces:
            return draw
        piece_size = 4 * evaluation.batch_size * max(1, resources.num_env_runners)
        return DrawAndKeep(self.folder.pieces, draw, piece_size)

    def _state(self, progress: Progress, reward_version: int) -> dict[str, Any]:
        """What a checkpoint holds beside tensors."""
        identity = self.folder.identity
        return {
            **asdict(progress),
            "reward_version": reward_version,
            **(identity.state() if identity is not None else {}),
        }

    def _actor(self) -> nn.Module:
        if self._chosen is not None:
            return averaged_actor(self._spec, self._chosen.tensors["learner"])
        actor = self._spec.build_actor()
        actor.load_state_dict(self._algorithm.averaged_actor())
        return actor.eval()

    # --- rows

    def _row(self, result: dict[str, Any]) -> tuple[dict[str, Any], Progress]:
        """The row of the iteration that the algorithm has just been through, and how far the run is with it."""
        numbers = result["generation"]
        learner = learner_metrics(result)
        num_trajectories = int(numbers["rollout"]["num_trajectories"])
        before = self.progress
        progress = replace(
            before,
            iteration=before.iteration + 1,
            num_trajectories=before.num_trajectories + num_trajectories,
            num_passes=before.num_passes + float(numbers["rollout"]["nat_passes_per_image"]) * num_trajectories,
            failures=self._failures(),
        )
        row: dict[str, Any] = {keys.ITERATION: progress.iteration, keys.UNIX_TIME: time.time()}
        row[keys.REWARD_MEAN] = float(numbers["reward"]["mean"])
        row[keys.REWARD_STD] = float(numbers["reward"]["std"])
        row[keys.REWARD_VERSION] = int(numbers["reward"]["version"])
        row |= {keys.REWARD_INFO + name: float(value) for name, value in numbers.get("reward_info", {}).items()}
        reward_model = numbers.get("reward_model", {})  # RLlib drops an empty dict on the way
        row |= {keys.REWARD_MODEL + name: float(value) for name, value in reward_model.items()}
        row |= {keys.LEARNER + name: float(learner[name]) for name in keys.LEARNER_METRICS}
        row[keys.NAT_PASSES_PER_IMAGE] = float(numbers["rollout"]["nat_passes_per_image"])
        row[keys.NAT_PASSES_TOTAL] = progress.num_passes
        row[keys.TRAJECTORIES_TOTAL] = progress.num_trajectories
        row[keys.BATCH_HASH] = self._algorithm.last_rollout.batch_hash
        row |= {keys.TIME + name: float(value) for name, value in numbers["time"].items()}
        row |= {keys.CLUSTER + name: count for name, count in (progress.failures or {}).items()}
        return row, progress

    def _failures(self) -> dict[str, int]:
        """What was repaired since the run began, over all its starts."""
        now = {**self._algorithm.failure_counters(), **self._rewards.failure_counters()}
        return {name: count + self._failures_before.get(name, 0) for name, count in now.items()}

    def _evaluate(self, row: dict[str, Any], iteration: int) -> Mapping[str, float]:
        """Numbers of the mean-action policy on the fixed evaluation seed, which go into the row; writes the sample
        grid.
        """
        start = time.perf_counter()
        numbers, drawing = self._evaluator.evaluate_once(self.policy(), self.config.evaluation.seed)
        shutil.rmtree(self.folder.pieces, ignore_errors=True)
        self.folder.require_presence()
        grid = self.folder.samples / f"iteration_{iteration:06d}.png"
        write_sample_grid(grid, self.pipeline(), self.config.evaluation.num_grid_contexts)
        decisions = drawing.decisions.cpu().numpy()
        space = self.scene.generator.decision_space
        write_decision_figure(
            self.folder.figures / f"decisions_iteration_{iteration:06d}.png",
            space.names,
            decisions,
            space.effective,
            space.base_schedule.numpy(),
            title=f"Decisions after {iteration} iterations",
        )
        for name, value in numbers.items():
            row[(keys.TIME if name == keys.IMAGES_PER_SECOND else keys.EVAL) + name] = value
        for step, name, column in self._decision_columns(decisions):
            row[keys.decision_key(step, name, "mean")] = float(column.mean())
            row[keys.decision_key(step, name, "sd")] = float(column.std())
        row[keys.EVALUATION_SECONDS] = time.perf_counter() - start
        row |= self._standing(numbers)
        row |= self._look_for_hacking(row, iteration)
        return numbers

    def _standing(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """How many values of the panel are ahead of the first evaluation, and how many behind."""
        evaluated, values = evaluation_rows(self.metrics.rows()), self._evaluator.judge.values
        if not (evaluated and values):
            return {}
        first = evaluated[0]
        before = {value.key: first[keys.EVAL + value.key] for value in values if keys.EVAL + value.key in first}
        found = standing(values, numbers, before, rewarded_judges(self.config))
        return {keys.PANEL_AHEAD: float(len(found.ahead)), keys.PANEL_BEHIND: float(len(found.behind))}

    def _look_for_hacking(self, row: Mapping[str, Any], iteration: int) -> dict[str, Any]:
        """Whether the reward has been rising while the judge found the images worse."""
        evaluation = self.config.evaluation
        rows = [*self.metrics.rows(), row]
        found = find_hacking(
            rows, evaluation.hacking_window, evaluation.hacking_tolerance, rewarded_judges(self.config)
        )
        is_new = found is not None and found.iteration == iteration
        self.warning = found.describe(self._evaluator.judge.names) if found is not None and is_new else ""
        return hacking_row(found)

    def _with_evaluation(self, progress: Progress, numbers: Mapping[str, float]) -> Progress:
        """How far the run is after an evaluation: whether it was the best one, or how many were not."""
        evaluation = self.config.evaluation
        value, best = numbers[evaluation.metric], progress.best
        if best is None or value < best[evaluation.metric] - evaluation.early_stop_min_delta:
            found = {keys.ITERATION: progress.iteration, evaluation.metric: value}
            return replace(progress, best=found, num_stale_evaluations=0)
        return replace(progress, num_stale_evaluations=progress.num_stale_evaluations + 1)

    def _decision_columns(self, decisions: np.ndarray) -> list[tuple[int, str, np.ndarray]]:
        names = self.scene.generator.decision_space.names
        return [(t, name, decisions[:, t, k]) for t in range(decisions.shape[1]) for k, name in enumerate(names)]

    def _commit(self, row: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """Makes an iteration count: everything of it is there and finite, its row is written, and nothing tears that.

        Raises:
            RunError: something is not finite; the iteration before stays the last one.
        """
        self._require_finite(row)
        tensors = {"learner": self._algorithm.training_state(), "reward": self._rewards.state()}  # copies, both
        snapshot = Snapshot(tensors, self._state(progress, self._rewards.version))
        if bad := snapshot.non_finite():
            raise self._diverged(row[keys.ITERATION], bad)
        self.folder.require_presence()
        with self._stop.deferred():
            self.metrics.append(row)
            self.progress, self._committed = progress, snapshot
        return row

    def _require_finite(self, row: Mapping[str, Any]) -> None:
        bad = [name for name, value in row.items() if isinstance(value, float) and not np.isfinite(value)]
        if bad:
            raise self._diverged(row[keys.ITERATION], bad)

    def _diverged(self, iteration: int, names: list[str]) -> RunError:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return RunError(
            f"iteration {iteration}: {shown} not finite: training has diverged; with the same settings it will again: "
            "lower ppo.lr or the weight of the reward, in another --run-dir, or from the last finished iteration on "
            "by --accept-change"
        )


def write_comparison(folder: RunFolder, comparison: Comparison, iteration: int) -> None:
    """Writes the table and the decisions behind it."""
    content = {keys.ITERATION: iteration, **comparison.as_dict()}
    write_atomically(folder.evaluation_file, json.dumps(content, indent=1, ensure_ascii=False), parents=False)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        decisions=comparison.decisions.astype(np.float32),
        context=comparison.context,
        nat_passes=comparison.num_passes,
    )
    folder.samples.mkdir(exist_ok=True)
    write_atomically(folder.samples / "decisions.npz", buffer.getvalue(), parents=False)
