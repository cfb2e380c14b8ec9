"""The experiment: one object that owns algorithm, evaluation and run folder, with `step`, `save`, `load` and `close`.

`train` loops over it; a trial of a sweep is the same object. It is built from one resolved configuration, and
everything that decides the next iteration is in what `save` writes.
"""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Mapping
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
from adanat_rl.evaluation.evaluator import IMAGES_PER_SECOND
from adanat_rl.evaluation.hacking import find_hacking, hacking_row
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
from adanat_rl.rewards.damage import DAMAGED_IMAGES, damaged_images
from adanat_rl.rl.algorithm import learner_metrics


class Experiment:
    """A training run; Ray must be running.

    Args:
        config: resolved. folder: prepared, with its lock held.
        interrupted: asked at safe points whether to stop; see `GenerationPPO`.
    """

    def __init__(
        self, config: ExperimentConfig, folder: RunFolder, interrupted: Callable[[], bool] = lambda: False
    ) -> None:
        self.config = config
        self.folder = folder
        self.iteration = 0
        self.scene = build_scene(config)
        self.metrics = MetricsLog(folder.metrics_file)
        self._spec = PolicySpec.of(config.policy, self.scene.generator)
        self._algorithm, self._rewards = build_algorithm(config, self.scene, interrupted)
        self._evaluator = self.scene.evaluator.drawing_by(self._draw_set())
        self._num_passes = 0.0
        self._num_trajectories = 0
        self.best: dict[str, float] | None = None
        self._num_stale = 0
        self.warning = ""  # of the last evaluation: that the reward is being hacked
        self._known_damage: tuple[float, tuple[str, ...]] = (0.0, ())  # how many in the last row, and which
        self._chosen: Snapshot | None = None
        self._train_seconds = 0.0

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
        row |= self._evaluate()
        row |= self._look_for_hacking(row)
        return self._record(row)

    def step(self) -> dict[str, Any]:
        """One iteration, with its evaluation when due; returns the row that was written."""
        start = time.perf_counter()
        result = self._algorithm.train()
        self.iteration += 1
        row = self._row(result)
        rollout_table.write_rollout_table(self.folder.rollouts, self.iteration, self._algorithm.last_rollout)
        seconds = time.perf_counter() - start
        self._train_seconds += seconds
        row[keys.ITERATION_SECONDS] = seconds
        row[keys.TRAIN_SECONDS_TOTAL] = self._train_seconds
        if self.evaluation_is_due:
            row |= self._evaluate()
            row |= self._look_for_hacking(row)
        return self._record(row)

    def save(self, folder: Path) -> None:
        """Writes everything that decides the next iteration into an empty folder."""
        self.metrics.sync()
        tensors = {"learner": self._algorithm.training_state(), "reward": self._rewards.state()}
        write_snapshot(folder, Snapshot(tensors, self._state()))

    def load(self, folder: Path) -> None:
        """Goes on from what `save` wrote."""
        self.restore(read_snapshot(folder))

    def restore(self, snapshot: Snapshot) -> None:
        """Goes on from a snapshot; rows and tables of later iterations are dropped, they will be made again."""
        state = snapshot.state
        self.iteration = snapshot.iteration
        self._num_passes = state["num_passes"]
        self._num_trajectories = state["num_trajectories"]
        self.best = state["best"]
        self._num_stale = state.get("num_stale_evaluations", 0)
        self._train_seconds = state["train_seconds"]
        self._algorithm.load_training_state(snapshot.tensors["learner"], self.iteration)
        self._rewards.load_state(snapshot.tensors["reward"], state["reward_version"])
        self.metrics.cut_after(self.iteration)
        rollout_table.cut_after(self.folder.rollouts, self.iteration)

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
            report=report,
        )
        write_comparison(self.folder, result, self.chosen_iteration)
        shutil.rmtree(self.folder.pieces, ignore_errors=True)
        write_gallery(self.folder.samples / "gallery.npz", self.pipeline(), evaluation.num_grid_contexts)
        return result

    def export(self) -> None:
        """Writes the policy as it is now to `policy/`."""
        snapshot = self._chosen
        learner = self._algorithm.training_state() if snapshot is None else snapshot.tensors["learner"]
        state = self._state() if snapshot is None else snapshot.state
        save_policy(self.folder.policy, exported_policy(self.config, self._spec, learner, state))

    def close(self) -> None:
        """Ends runners and reward actors."""
        self._rewards.close()
        self._algorithm.stop()

    # --- how far it is

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to train."""
        return self.iteration >= self.config.training.num_iterations or self.has_stalled

    @property
    def has_stalled(self) -> bool:
        """Whether the last evaluations were all no better than the best one, as many as early stopping waits for."""
        patience = self.config.evaluation.early_stop_patience
        return patience is not None and self._num_stale >= patience

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

    @property
    def is_whole(self) -> bool:
        """Whether the state is that of the last finished iteration; not while the learner is at work."""
        return self._algorithm.is_whole

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

    @property
    def evaluation_is_due(self) -> bool:
        """Whether the current iteration ends with an evaluation."""
        return (
            self.iteration % self.config.evaluation.interval_iterations == 0
            or self.iteration == self.config.training.num_iterations
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

    def _state(self) -> dict[str, Any]:
        return {
            "iteration": self.iteration,
            "num_passes": self._num_passes,
            "num_trajectories": self._num_trajectories,
            "best": self.best,
            "num_stale_evaluations": self._num_stale,
            "train_seconds": self._train_seconds,
            "reward_version": self._rewards.version,
        }

    def _actor(self) -> nn.Module:
        if self._chosen is not None:
            return averaged_actor(self._spec, self._chosen.tensors["learner"])
        actor = self._spec.build_actor()
        actor.load_state_dict(self._algorithm.averaged_actor())
        return actor.eval()

    # --- rows

    def _row(self, result: dict[str, Any]) -> dict[str, Any]:
        numbers = result["generation"]
        learner = learner_metrics(result)
        self._num_trajectories += int(numbers["rollout"]["num_trajectories"])
        self._num_passes += float(numbers["rollout"]["nat_passes_per_image"]) * int(
            numbers["rollout"]["num_trajectories"]
        )
        counters = self._algorithm.dealer_counters
        row: dict[str, Any] = {keys.ITERATION: self.iteration, keys.UNIX_TIME: time.time()}
        row[keys.REWARD_MEAN] = float(numbers["reward"]["mean"])
        row[keys.REWARD_STD] = float(numbers["reward"]["std"])
        row[keys.REWARD_VERSION] = int(numbers["reward"]["version"])
        row |= {keys.REWARD_INFO + name: float(value) for name, value in numbers.get("reward_info", {}).items()}
        reward_model = numbers.get("reward_model", {})  # RLlib drops an empty dict on the way
        row |= {keys.REWARD_MODEL + name: float(value) for name, value in reward_model.items()}
        row |= {keys.LEARNER + name: float(learner[name]) for name in keys.LEARNER_METRICS}
        row[keys.NAT_PASSES_PER_IMAGE] = float(numbers["rollout"]["nat_passes_per_image"])
        row[keys.NAT_PASSES_TOTAL] = self._num_passes
        row[keys.TRAJECTORIES_TOTAL] = self._num_trajectories
        row[keys.BATCH_HASH] = self._algorithm.last_rollout.batch_hash
        row |= {keys.TIME + name: float(value) for name, value in numbers["time"].items()}
        row[keys.CLUSTER + "lost_env_runners"] = counters.lost_runners
        row[keys.CLUSTER + "redealt_shards"] = counters.redealt_shards
        row[keys.CLUSTER + "replaced_reward_actors"] = self._rewards.num_replaced_actors
        return row

    def _evaluate(self) -> dict[str, Any]:
        """Numbers of the mean-action policy on the fixed evaluation seed; writes the sample grid."""
        start = time.perf_counter()
        numbers, drawing = self._evaluator.evaluate_once(self.policy(), self.config.evaluation.seed)
        shutil.rmtree(self.folder.pieces, ignore_errors=True)
        grid = self.folder.samples / f"iteration_{self.iteration:06d}.png"
        write_sample_grid(grid, self.pipeline(), self.config.evaluation.num_grid_contexts)
        decisions = drawing.decisions.cpu().numpy()
        space = self.scene.generator.decision_space
        write_decision_figure(
            self.folder.figures / f"decisions_iteration_{self.iteration:06d}.png",
            space.names,
            decisions,
            space.effective,
            space.base_schedule.numpy(),
            title=f"Decisions after {self.iteration} iterations",
        )
        row: dict[str, Any] = {}
        for name, value in numbers.items():
            row[(keys.TIME if name == IMAGES_PER_SECOND else keys.EVAL) + name] = value
        for step, name, column in self._decision_columns(decisions):
            row[keys.decision_key(step, name, "mean")] = float(column.mean())
            row[keys.decision_key(step, name, "sd")] = float(column.std())
        self._compare_with_best(numbers)
        row[keys.EVALUATION_SECONDS] = time.perf_counter() - start
        return row

    def _look_for_hacking(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Whether the reward has been rising while the judge found the images worse."""
        evaluation = self.config.evaluation
        rows = [*self.metrics.rows(), row]
        found = find_hacking(
            rows, evaluation.hacking_window, evaluation.hacking_tolerance, rewarded_judges(self.config)
        )
        is_new = found is not None and found.iteration == self.iteration
        self.warning = found.describe(self._evaluator.judge.names) if found is not None and is_new else ""
        return hacking_row(found)

    def _compare_with_best(self, numbers: Mapping[str, float]) -> None:
        evaluation = self.config.evaluation
        value = numbers[evaluation.metric]
        if self.best is None or value < self.best[evaluation.metric] - evaluation.early_stop_min_delta:
            self.best, self._num_stale = {keys.ITERATION: self.iteration, evaluation.metric: value}, 0
        else:
            self._num_stale += 1

    def _decision_columns(self, decisions: np.ndarray) -> list[tuple[int, str, np.ndarray]]:
        names = self.scene.generator.decision_space.names
        return [(t, name, decisions[:, t, k]) for t in range(decisions.shape[1]) for k, name in enumerate(names)]

    def _record(self, row: dict[str, Any]) -> dict[str, Any]:
        bad = [name for name, value in row.items() if isinstance(value, float) and not np.isfinite(value)]
        if bad:
            raise RunError(f"iteration {self.iteration}: {', '.join(bad)} not finite: training has diverged")
        self.metrics.append(row)
        return row


def write_comparison(folder: RunFolder, comparison: Comparison, iteration: int) -> None:
    """Writes the table and the decisions behind it."""
    content = {keys.ITERATION: iteration, **comparison.as_dict()}
    write_atomically(folder.evaluation_file, json.dumps(content, indent=1, ensure_ascii=False))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, decisions=comparison.decisions.astype(np.float32), context=comparison.context)
    write_atomically(folder.samples / "decisions.npz", buffer.getvalue())
