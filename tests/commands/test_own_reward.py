"""The example of an own reward: a training with it raises it."""

from __future__ import annotations

from pathlib import Path

from adanat_rl.config.files import read_json_lines
from tests import tiny

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_example_reward_is_found_in_runners_and_actors_and_rises(tmp_path: Path) -> None:
    own = ("reward.kind=own_reward:InkReward", "reward.args.target=0.9", "ppo.lr=0.01", "training.num_iterations=12")
    workers = ("resources.num_env_runners=1", "resources.num_reward_actors=1")
    result = tiny.run(
        "train",
        *tiny.OVERRIDES,
        *own,
        *workers,
        "evaluation.interval_iterations=12",
        "--run-dir",
        str(tmp_path / "run"),
        cwd=EXAMPLES,
    )
    assert result.returncode == 0, result.stderr
    rewards = [row["reward/mean"] for row in read_json_lines(tmp_path / "run" / "metrics.jsonl")[1:]]
    assert sum(rewards[-3:]) > sum(rewards[:3])
    assert "PROBLEM" not in tiny.run("audit", "--run-dir", str(tmp_path / "run")).stdout
