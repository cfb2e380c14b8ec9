"""The smallest real run: settings that every test of the whole path starts from."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.forking import ForkedCommand

OVERRIDES = (
    "training.num_iterations=4",
    "training.trajectories_per_iteration=64",
    "training.shard_size=16",
    "generator.block_rows=16",
    "policy.hidden_size=16",
    "reward.adversarial.num_warmup_updates=3",
    "reward.adversarial.num_updates=2",
    "reward.adversarial.batch_size=32",
    "reward.adversarial.channels=8",
    "evaluation.interval_iterations=2",
    "evaluation.num_images=64",
    "evaluation.num_seeds=2",
    "evaluation.reference=null",
    "checkpoints.interval_iterations=1",
    "tracking.enabled=false",
)
IN_PROCESS = ("resources.num_env_runners=0", "resources.num_reward_actors=0")


def start(command: str, *arguments: str, cwd: Path | None = None, **environment: str) -> ForkedCommand:
    """Starts `adanat-rl COMMAND`."""
    return ForkedCommand(command, arguments, cwd or Path.cwd(), {**os.environ, **environment})


def run(command: str, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `adanat-rl COMMAND` to its end."""
    process = start(command, *arguments, cwd=cwd, **environment)
    output, errors = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode or 0, output, errors)


def train(run_dir: Path, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A tiny training."""
    return run("train", *OVERRIDES, *overrides, "--run-dir", str(run_dir), **environment)
