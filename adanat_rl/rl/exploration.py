"""The schedule of the action noise."""

from __future__ import annotations

from adanat_rl.config.schema import ExplorationConfig


def action_std(config: ExplorationConfig, iteration: int) -> float:
    """Standard deviation in training iteration 1, 2, …: one decay less per finished interval, never below the
    minimum.
    """
    intervals = (iteration - 1) // config.decay_interval_iterations
    return max(config.std - config.decay * intervals, min(config.min_std, config.std))
