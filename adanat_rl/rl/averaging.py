"""The moving average of an actor over iterations: an adversarial training fluctuates, its average does not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

ACTOR_PREFIX = "actor."
_COUNT = "num_updates"


class ActorAverage:
    """An exponential average of an actor's state, with little memory at first.

    Args:
        actor: its state now is the average's first value.
        decay: d; after n updates the old average keeps min(d, n / (n + 9)). 0 makes it the newest actor.
    """

    def __init__(self, actor: nn.Module, decay: float) -> None:
        self._decay = decay
        self._count = 0
        self._mean = {name: value.detach().clone() for name, value in actor.state_dict().items()}

    @torch.no_grad()
    def update(self, actor: nn.Module) -> None:
        """Takes in the actor as it is now."""
        self._count += 1
        keep = min(self._decay, self._count / (self._count + 9))
        for name, value in actor.state_dict().items():
            self._mean[name].lerp_(value, 1 - keep)

    def actor_state(self) -> dict[str, Tensor]:
        """The averaged state, on the CPU."""
        return {name: value.cpu().clone() for name, value in self._mean.items()}

    def state(self) -> dict[str, Tensor]:
        """Average and count, flat."""
        mean = {ACTOR_PREFIX + name: value for name, value in self.actor_state().items()}
        return {**mean, _COUNT: torch.tensor(self._count)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state` gave."""
        self._count = int(state[_COUNT])
        for name, mean in self._mean.items():
            mean.copy_(state[ACTOR_PREFIX + name])
