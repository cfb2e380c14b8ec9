"""Sampling with two env runners against one, interleaved in one run on the same cluster.

python -m benchmarks.scaling
"""

from __future__ import annotations

import statistics
from functools import partial

from adanat_rl.config.loading import resolve
from adanat_rl.experiment.build import build_algorithm, build_scene
from adanat_rl.experiment.cluster import connect
from benchmarks.common import print_ratios, seconds, write_result

ROUNDS = {512: 20, 4096: 6}
LIMIT = 1.6
SETTINGS = ("resources.num_reward_actors=0", "resources.num_cpus_per_env_runner=0.4")


def measure(num_trajectories: int, rounds: int) -> dict[str, float]:
    """Medians in seconds and their ratio."""
    built = {}
    for count in (1, 2):
        overrides = [f"resources.num_env_runners={count}", f"training.trajectories_per_iteration={num_trajectories}"]
        config = resolve(overrides=[*SETTINGS, *overrides])
        built[count] = build_algorithm(config, build_scene(config), lambda: False)
    taken: dict[int, list[float]] = {1: [], 2: []}
    for iteration in range(rounds + 2):
        for count, (algorithm, _) in built.items():
            spent = seconds(partial(algorithm.sample, iteration))  # until all shards are in the driver
            if iteration >= 2:  # the first ones fill caches
                taken[count].append(spent)
    for algorithm, rewards in built.values():
        rewards.close()
        algorithm.stop()
    one, two = (statistics.median(taken[count]) for count in (1, 2))
    return {"one_runner_s": one, "two_runners_s": two, "ratio": one / two, "rounds": rounds}


def main() -> None:
    with connect(resolve(overrides=SETTINGS).resources):
        measured = {count: measure(count, rounds) for count, rounds in ROUNDS.items()}
    write_result("scaling", {"command": "python -m benchmarks.scaling", "sampling": measured, "limit": LIMIT})
    columns = {"one_runner_s": "1 runner, s", "two_runners_s": "2 runners, s", "ratio": f"ratio (at least {LIMIT})"}
    print_ratios("Sampling, medians, interleaved", columns, measured)


if __name__ == "__main__":
    main()
