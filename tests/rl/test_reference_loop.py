"""The platform trains as one plain file of PyTorch does: same rewards, losses and weights to float tolerance."""

from __future__ import annotations

import torch

from adanat_rl.config.loading import resolve
from adanat_rl.rl.algorithm import learner_metrics
from benchmarks.reference_loop import ReferenceLoop
from tests.tiny import IN_PROCESS, OVERRIDES

ITERATIONS = 4
LEARNING_RATE = 3e-4
SETTINGS = (f"ppo.lr={LEARNING_RATE}", "exploration.decay=0.1", "exploration.decay_interval_iterations=2")


def test_platform_and_plain_loop_learn_the_same(build) -> None:
    loop = ReferenceLoop(resolve(overrides=[*OVERRIDES, *IN_PROCESS, *SETTINGS]))
    algorithm, rewards = build(*IN_PROCESS, *SETTINGS)
    loop.warm_up()
    algorithm.warm_up()
    first_actor = {name: value.clone() for name, value in loop.actor.state_dict().items()}
    for iteration in range(ITERATIONS):
        plain = loop.iterate()
        result = algorithm.train()
        assert abs(result["generation"]["reward"]["mean"] - plain["reward"]) < 1e-6
        # The first gradient of the critic's bias is the mean of standardised returns, nought but rounding, which Adam
        # scales up to the learning rate: from then on the mean advantage differs by about as much.
        tolerance = 1e-6 if iteration == 0 else 5 * LEARNING_RATE
        assert abs(learner_metrics(result)["policy_loss"] - plain["policy_loss"]) < tolerance
    state = algorithm.inference_state()
    for name, value in loop.actor.state_dict().items():
        ours = torch.from_numpy(state[f"actor.{name}"])
        torch.testing.assert_close(ours, value, atol=2e-5, rtol=1e-4)
    moved = max(float((loop.actor.state_dict()[name] - value).abs().max()) for name, value in first_actor.items())
    assert moved > 1e-3, "something was learned"
    for name, value in loop.discriminator.state_dict().items():
        torch.testing.assert_close(rewards.state()[f"discriminator.{name}"], value, atol=1e-5, rtol=1e-4)
