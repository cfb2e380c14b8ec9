"""What the platform costs: an iteration on Ray in one process against the plain loop, interleaved in one run.

    python -m benchmarks.overhead

Both draw, score, learn and train the discriminator with the same networks on one thread; the platform also writes its
rollout table and its row of metrics.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from adanat_rl.config.loading import resolve
from adanat_rl.experiment.cluster import connect
from adanat_rl.experiment.experiment import Experiment
from adanat_rl.experiment.run_folder import RunFolder
from benchmarks.common import print_ratios, seconds, write_result
from benchmarks.reference_loop import ReferenceLoop

ROUNDS = {512: 30, 4096: 8}  # of each, by trajectories per iteration
LIMIT = 1.25
IN_PROCESS = (
    "resources.num_env_runners=0",
    "resources.num_reward_actors=0",
    "resources.driver_threads=1",
    "evaluation.interval_iterations=100000",
    "evaluation.num_images=64",
    "tracking.enabled=false",
)


def measure(num_trajectories: int, rounds: int) -> dict[str, float]:
    """Medians in seconds and their ratio."""
    config = resolve(overrides=[*IN_PROCESS, f"training.trajectories_per_iteration={num_trajectories}"])
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch) / "run")
        folder.prepare(config)
        experiment = Experiment(config, folder)
        loop = ReferenceLoop(config)
        experiment.begin()
        loop.warm_up()
        experiment.step()
        loop.iterate()
        platform, plain = [], []
        for _ in range(rounds):
            platform.append(seconds(experiment.step))
            plain.append(seconds(loop.iterate))
        experiment.close()
        folder.release()
    medians = {"platform_s": statistics.median(platform), "plain_loop_s": statistics.median(plain)}
    return {**medians, "ratio": medians["platform_s"] / medians["plain_loop_s"], "rounds": rounds}


def main() -> None:
    with connect(resolve(overrides=IN_PROCESS).resources):
        measured = {count: measure(count, rounds) for count, rounds in ROUNDS.items()}
    write_result("overhead", {"command": "python -m benchmarks.overhead", "iterations": measured, "limit": LIMIT})
    columns = {"platform_s": "platform, s", "plain_loop_s": "plain loop, s", "ratio": f"ratio (at most {LIMIT})"}
    print_ratios("An iteration, in one process, medians, interleaved", columns, measured)


if __name__ == "__main__":
    main()
