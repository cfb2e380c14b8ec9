"""The RLModule: RLlib's wrapper around actor, critic and the action noise.

The frozen generator is not in it, or it would end up in the optimizer, in every weight sync and every checkpoint.
"""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.utils.annotations import override
from torch import Tensor

from adanat_rl.generation.policies.build import PolicySpec
from adanat_rl.generation.seeding import Purpose, seeded

FEATURES = "features"  # [N, L, D] float32 in a forward pass, smaller in a batch; absent for policies that do not look
FEATURE_ROWS = "feature_rows"  # [N] int64, rows of a feature file; stands for the column above
STEP = "step"  # [N] int64
CONTEXT = "context"  # [N] int64
RETURNS = "returns"  # [N] float32, standardised unless the configuration says otherwise
BASE_ACTIONS = "base_actions"  # [N, A] float32, actions whose decisions are the base schedule; only with a leash
EFFECT_MASK = "effect_mask"  # [N, A] float32, 1 where an action has an effect


class GenerationRLModule(TorchRLModule, ValueFunctionAPI, InferenceOnlyAPI):
    """Takes `model_config` with `policy` (the fields of `PolicySpec`), `seed` and `action_std`."""

    @override(TorchRLModule)
    def setup(self) -> None:
        """Builds the actor, and the critic unless for inference only; both from the seed alone."""
        super().setup()
        self.policy_spec = PolicySpec(**self.model_config["policy"])
        with seeded(Purpose.POLICY_WEIGHTS, self.model_config["seed"]):
            self.actor = self.policy_spec.build_actor()
            if not self.inference_only:
                self.critic = self.policy_spec.build_critic()
        self.register_buffer("action_std", torch.tensor(float(self.model_config["action_std"])))

    action_std: Tensor  # scalar; a buffer, so that it travels with the weights

    @override(InferenceOnlyAPI)
    def get_non_inference_attributes(self) -> list[str]:
        """The critic stays with the learner."""
        return ["critic"]

    @override(TorchRLModule)
    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """Mean and standard deviation of the action, concatenated `[N, 2A]`."""
        mean = self.actor(batch.get(FEATURES), batch[STEP], batch[CONTEXT])
        return {Columns.ACTION_DIST_INPUTS: torch.cat([mean, self.action_std.expand_as(mean)], dim=-1)}

    @override(ValueFunctionAPI)
    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """Values `[N]`."""
        values: Tensor = self.critic(batch.get(FEATURES), batch[STEP], batch[CONTEXT])
        return values[:, 0]
