"""Actor and critic networks of a configuration, and what about a generator they have to know."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, with_config
from torch import nn

from adanat_rl.config.schema import PolicyConfig
from adanat_rl.generation.generator import Generator
from adanat_rl.generation.policies.network import PolicyNet
from adanat_rl.generation.policies.tables import ClassTable, StaticTable

_Count = Annotated[int, Field(ge=1)]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class PolicySpec:
    """Plain numbers from which actor and critic are built, in any process and without the generator."""

    kind: Literal["adaptive", "per_class", "static"]
    hidden_size: _Count
    horizon: _Count
    num_classes: Annotated[int, Field(ge=0)]
    num_actions: _Count
    feature_length: _Count
    feature_width: _Count

    @classmethod
    def of(cls, config: PolicyConfig, generator: Generator) -> PolicySpec:
        """The spec of a configured policy for a generator."""
        length, width = generator.feature_shape
        return cls(
            kind=config.kind,
            hidden_size=config.hidden_size,
            horizon=generator.horizon,
            num_classes=generator.context_spec.num_contexts,
            num_actions=generator.decision_space.num_actions,
            feature_length=length,
            feature_width=width,
        )

    @property
    def needs_features(self) -> bool:
        """Whether actor or critic look at the image."""
        return self.kind == "adaptive"

    def as_dict(self) -> dict[str, Any]:
        """The fields, JSON-ready."""
        return asdict(self)

    def build_actor(self) -> nn.Module:
        """`(features [N, L, D], step [N], context [N]) -> mean action [N, A]`, starting at zero."""
        if self.kind == "static":
            return StaticTable(self.horizon, self.num_actions)
        if self.kind == "per_class":
            return ClassTable(self.horizon, self.num_classes, self.num_actions)
        return self._network(self.num_actions)

    def build_critic(self) -> nn.Module:
        """The same inputs → value `[N, 1]`; a table per class for policies that are tables."""
        if self.kind == "adaptive":
            return self._network(1)
        return ClassTable(self.horizon, self.num_classes, 1)

    def _network(self, out_channels: int) -> PolicyNet:
        grid_size = math.isqrt(self.feature_length)
        if grid_size**2 != self.feature_length:
            raise ValueError(
                f"feature_length is {self.feature_length}, expected a square: the network wants a square map"
            )
        return PolicyNet(self.feature_width, out_channels, self.hidden_size, grid_size)
