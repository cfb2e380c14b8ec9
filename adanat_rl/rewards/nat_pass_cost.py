"""A price for every NAT pass, so that a policy can learn where guidance is not worth its second pass.

It is a part of a composite reward: alone it is best paid for by drawing carelessly.
"""

from __future__ import annotations

from typing import ClassVar

from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.rewards.base import RewardBatch, RewardModel, RewardOutput


class PassCostReward(RewardModel):
    """Minus the price of an image's NAT passes; an unconditional pass counts as one.

    Args:
        price: of a pass, in units of the score that it is added to.
    """

    sees_images: ClassVar[bool] = False

    def __init__(self, price: float = 1.0) -> None:
        self._price = price

    def score(self, batch: RewardBatch) -> RewardOutput:
        """`-price · passes`."""
        if batch.num_passes is None:
            raise ValueError("the NAT passes of these images were not counted (num_passes is None)")
        return RewardOutput(-self._price * batch.num_passes.float())


def from_config(config: ExperimentConfig, device: str) -> RewardModel:
    """The price of a configuration."""
    return PassCostReward(config.reward.nat_pass_cost.price)
