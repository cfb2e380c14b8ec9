"""Bytes per trajectory between processes, on the objects as Ray serialises them.

python -m benchmarks.traffic
"""

from __future__ import annotations

from typing import Any

import ray

from adanat_rl.config.loading import resolve
from adanat_rl.experiment.build import build_algorithm, build_scene
from adanat_rl.experiment.cluster import connect
from adanat_rl.rewards.service import Finished
from benchmarks.common import print_rows, write_result

LIMIT = 2000
SETTINGS = ("resources.num_env_runners=1", "resources.num_reward_actors=1")


def size(value: Any) -> int:
    """Bytes of an object in Ray's object store."""
    context = ray._private.worker.global_worker.get_serialization_context()  # no public way to see the size
    return int(context.serialize(value).total_bytes)


def main() -> None:
    config = resolve(overrides=SETTINGS)
    with connect(config.resources):
        scene = build_scene(config)
        algorithm, rewards = build_algorithm(config, scene, lambda: False)
        algorithm.warm_up()
        algorithm.train()
        rollout = algorithm.last_rollout
        shard, scores = rollout.shards[0], rollout.scores[0]
        finished = Finished(shard.final_samples, shard.context)
        count = shard.num_trajectories
        per_trajectory = {
            "runner → driver: a shard": size(shard) / count,
            "driver → reward actor: finished samples": size(finished) / count,
            "reward actor → driver: scores": size(scores) / count,
            "driver → reward actor: the update's samples": size(finished) / count,
            "driver → learner actor, if there is one: a shard with returns": size(shard) / count,
        }
        weights = size(algorithm.inference_state())
        length, width = scene.generator.feature_shape
        features = config.generator.horizon * length * width * 4  # float32
        rewards.close()
        algorithm.stop()
    total = sum(per_trajectory.values())
    content = {"per_trajectory": per_trajectory, "total": total, "policy_weights": weights, "limit": LIMIT}
    write_result("traffic", {"command": "python -m benchmarks.traffic", "shard_size": count, **content})
    rows = [[name, f"{value:.0f}"] for name, value in per_trajectory.items()]
    rows += [[f"all together (at most {LIMIT})", f"{total:.0f}"]]
    rows += [["for comparison: NAT features of a trajectory, which stay where they are", f"{features:,}"]]
    rows += [["policy weights, once per iteration, not per trajectory", f"{weights:,}"]]
    print_rows(f"Bytes per trajectory, T = {config.generator.horizon}, shards of {count}", ["what", "bytes"], rows)


if __name__ == "__main__":
    main()
