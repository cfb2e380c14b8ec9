"""What the judge decides in a training: when it ends early, which checkpoint is kept and exported, and that a reward is
being hacked.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file

from adanat_rl.config.files import read_json_lines
from tests import tiny

BROKEN = """
from adanat_rl.rewards.base import RewardModel, RewardOutput


class Broken(RewardModel):
    num_updates = 1

    def __init__(self):
        self.calls = 0

    def score(self, batch):
        self.calls += len(batch)
        scores = -batch.images.mean(dim=(1, 2, 3))
        if self.calls > 3 * 64:  # of the fourth iteration
            scores[2] = float("nan")
        return RewardOutput(scores)

    def update(self, generated, real, generator, num_updates):
        return {}
"""


@pytest.fixture
def own_rewards(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "broken.py").write_text(BROKEN)
    return {"PYTHONPATH": str(tmp_path)}


def summary_of(run_dir: Path) -> dict:
    return json.loads((run_dir / "summary.json").read_text())


def test_a_training_that_gets_no_better_ends_early_and_exports_its_best_policy(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    settings = ["training.num_iterations=40", "evaluation.early_stop_patience=2", "evaluation.early_stop_min_delta=9"]
    settings += ["checkpoints.keep_best=true", "checkpoints.final=best", *tiny.IN_PROCESS]
    result = tiny.train(run_dir, *settings)
    assert result.returncode == 0, result.stderr
    summary = summary_of(run_dir)
    assert summary["iterations"] == 4, "two evaluations without a better one, every second iteration"
    assert summary["stopped_early"]
    assert summary["policy_of_iteration"] == 0
    assert json.loads((run_dir / "evaluation.json").read_text())["iteration"] == 0
    best = run_dir / "checkpoints" / "best"
    assert [path.name for path in best.iterdir()] == ["iteration_000000"]
    kept = load_file(best / "iteration_000000" / "learner.safetensors")
    newest = load_file(run_dir / "checkpoints" / "iteration_000004" / "learner.safetensors")
    exported = load_file(run_dir / "policy" / "policy.safetensors")
    name = next(iter(exported))
    found = [key for key in kept if key.startswith("average.actor.") and key.endswith(name.removeprefix("actor."))]
    assert len(found) == 1
    assert exported[name].equal(kept[found[0]])
    assert any(not newest[key].equal(kept[key]) for key in kept if key.startswith("average.actor."))

    again = tiny.train(run_dir, *settings)
    assert again.returncode == 0, again.stderr
    assert "is complete" in again.stdout


def test_the_best_checkpoint_is_that_of_the_least_distance_and_quiet_is_quiet(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    settings = ["checkpoints.keep_best=true", "evaluation.metric=fd_b", "evaluation.interval_iterations=1"]
    result = tiny.train(run_dir, *settings, *tiny.IN_PROCESS, "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    rows = read_json_lines(run_dir / "metrics.jsonl")
    best = min(rows, key=lambda row: row["eval/fd_b"])["iteration"]
    assert [path.name for path in (run_dir / "checkpoints" / "best").iterdir()] == [f"iteration_{best:06d}"]
    assert summary_of(run_dir)["policy_of_iteration"] == 4, "kept, but the last one is exported"


def test_a_reward_that_is_hacked_is_told_in_rows_output_and_mlflow(tmp_path: Path) -> None:
    """A classifier's confidence: the clearest digits, again and again."""
    run_dir = tmp_path / "runs" / "clear"
    settings = ["reward.kind=classifier", "ppo.lr=0.003", "training.num_iterations=16", "policy.average_decay=0"]
    settings += ["training.trajectories_per_iteration=256", "training.shard_size=64", "generator.block_rows=64"]
    settings += ["evaluation.interval_iterations=4", "evaluation.num_images=256", "tracking.enabled=true"]
    settings += ["tracking.system_metrics=false", *tiny.IN_PROCESS]
    result = tiny.train(run_dir, *settings)
    assert result.returncode == 0, result.stderr
    rows = [row for row in read_json_lines(run_dir / "metrics.jsonl") if "eval/fd_a" in row]
    assert rows[0]["hacking/detected"] == 0
    assert rows[-1]["hacking/detected"] == 1
    seen = int(rows[-1]["hacking/iteration"])
    assert f"warning: Reward hacking, seen at iteration {seen}" in result.stdout
    assert f"reward hacked since iteration {seen}" in result.stdout
    assert f"seen at iteration {seen}" in (run_dir / "report.html").read_text()
    client = MlflowClient(f"sqlite:///{run_dir.parent / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("adanat-rl").experiment_id])
    assert run.data.tags["adanat_rl.reward_hacking"] == f"seen at iteration {seen}"


def test_a_score_that_is_no_number_stops_the_run_behind_a_checkpoint(
    tmp_path: Path, own_rewards: dict[str, str]
) -> None:
    run_dir = tmp_path / "run"
    settings = ["reward.kind=broken:Broken", "checkpoints.interval_iterations=100", *tiny.IN_PROCESS]
    result = tiny.train(run_dir, *settings, **own_rewards)
    assert result.returncode == 1
    assert "reward broken:Broken returned 1 of 16 scores that are NaN or infinite" in result.stderr
    assert "000004-00000-00002" in result.stderr, "iteration, shard and row of the image"
    assert "context" in result.stderr
    assert "safe: checkpoint after iteration 3" in result.stderr
    assert [row["iteration"] for row in read_json_lines(run_dir / "metrics.jsonl")] == [0, 1, 2, 3]
