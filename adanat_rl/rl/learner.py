"""The learner: PPO of the paper on train batches made of shards, with a state that fits into safetensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.annotations import override
from torch import Tensor

from adanat_rl.config.metric_keys import (
    ACTION_STD,
    APPROX_KL,
    CLIP_FRACTION,
    ENTROPY,
    EXPLAINED_VARIANCE,
    GRADIENT_NORM,
    LEASH,
    POLICY_LOSS,
    VALUE_LOSS,
)
from adanat_rl.generation.precision import autocast, matmul_precision
from adanat_rl.generation.seeding import Purpose, philox
from adanat_rl.generation.threads import settle_process, torch_threads
from adanat_rl.rl.averaging import ActorAverage
from adanat_rl.rl.connectors import ShardsToBatch, with_features
from adanat_rl.rl.feature_file import FeatureFile
from adanat_rl.rl.losses import (
    PPOLoss,
    explained_variance,
    gaussian_entropy,
    gaussian_log_prob,
    leash_distance,
    ppo_loss,
)
from adanat_rl.rl.rl_module import BASE_ACTIONS, EFFECT_MASK, RETURNS
from adanat_rl.rl.shards import Shard


class GenerationPPOLearner(PPOTorchLearner):
    """Replaces RLlib's minibatching (keyed, without copies) and loss (effect mask); the rest is the host's."""

    @override(PPOTorchLearner)
    def build(self) -> None:
        """Builds the host's learner with the configured number of threads."""
        torch.set_num_threads(self.config.learner_config_dict["torch_threads"])
        super().build()
        settle_process()
        self._sums: dict[str, Tensor] = {}
        self._num_gradient_steps = 0
        self._part = 1.0  # of the train batch, that a micro-batch is
        self._average = ActorAverage(self._unwrapped.actor, self.config.learner_config_dict["average_decay"])
        self._advantages: np.ndarray = np.zeros((0, 0), np.float32)

    @override(Learner)
    def update(self, *args: Any, **kwargs: Any) -> Any:
        """The host's update, with more threads than drawing has: its bits need to agree with nobody else's."""
        settings = self.config.learner_config_dict
        with torch_threads(settings["driver_threads"]), matmul_precision(settings["precision"]):
            return super().update(*args, **kwargs)

    @override(TorchLearner)
    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Adam with the configured decay rates."""
        params = self.get_parameters(self._module[module_id])
        optimizer = torch.optim.Adam(params, betas=self.config.learner_config_dict["adam_betas"])
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=params, lr_or_lr_schedule=config.lr)

    @override(Learner)
    def _create_iterator_if_necessary(
        self, *, training_data: Any, num_epochs: int = 1, minibatch_size: int | None = None, **kwargs: Any
    ) -> Iterator[MultiAgentBatch]:
        """All minibatches of all epochs; the whole batch is handed out without a copy when there is one minibatch."""
        shards: list[Shard] = training_data.episodes
        batch = self._make_batch_if_necessary(training_data=training_data)[DEFAULT_MODULE_ID]
        self._begin_update(batch, np.concatenate([shard.has_effect for shard in shards]))
        size = len(batch[RETURNS])
        for epoch in range(num_epochs):
            if minibatch_size is None or minibatch_size >= size:
                yield MultiAgentBatch({DEFAULT_MODULE_ID: batch}, size)
                continue
            key = shards[0].key
            order = torch.from_numpy(philox(Purpose.SHUFFLE, key.seed, key.iteration, epoch).permutation(size))
            for rows in order.split(minibatch_size):
                part = SampleBatch({name: column[rows] for name, column in batch.items()})
                yield MultiAgentBatch({DEFAULT_MODULE_ID: part}, len(rows))

    @override(TorchLearner)
    def _uncompiled_update(self, batch: dict[str, Any], **kwargs: Any) -> tuple[Any, Any, dict[str, Any]]:
        """One gradient step; gradients of micro-batches are added up, which gives those of the whole batch."""
        whole = batch[DEFAULT_MODULE_ID]
        count = len(whole[RETURNS])
        size = self.config.learner_config_dict["micro_batch_size"] or count
        for optimizer in self._optimizer_parameters:
            optimizer.zero_grad(set_to_none=True)
        result, total = {}, torch.zeros((), device=self._device)
        for start in range(0, count, size):
            part = {name: column[start : start + size] for name, column in whole.items()}
            part = with_features(part, self._feature_file, self._device)
            self._part = len(part[RETURNS]) / count
            with autocast(self.config.learner_config_dict["precision"], self._device.type):
                result = self.module.forward_train({DEFAULT_MODULE_ID: part})
                losses = self.compute_losses(fwd_out=result, batch={DEFAULT_MODULE_ID: part})
            loss = losses[DEFAULT_MODULE_ID] * self._part
            loss.backward()
            total = total + loss.detach()
        gradients = {name: parameter.grad for name, parameter in self._params.items() if parameter.grad is not None}
        self.apply_gradients(self.postprocess_gradients(gradients))
        return result, {DEFAULT_MODULE_ID: total}, {}

    @override(PPOTorchLearner)
    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Tensor], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        """The clipped loss over the action entries that have an effect; a critic that is not learned stays out."""
        module = self.module[module_id].unwrapped()
        mean, std = fwd_out[Columns.ACTION_DIST_INPUTS].chunk(2, dim=-1)
        settings, mask = self.config.learner_config_dict, batch[EFFECT_MASK]
        leash = None
        if settings["leash"] != "none":
            leash = leash_distance(mean, batch[BASE_ACTIONS], std, mask, settings["leash"])
        loss = ppo_loss(
            gaussian_log_prob(batch[Columns.ACTIONS], mean, std, mask),
            batch[Columns.ACTION_LOGP],
            batch[Columns.ADVANTAGES],
            module.compute_values(batch) if settings["learns_critic"] else None,
            batch[RETURNS],
            gaussian_entropy(std, mask),
            leash,
            clip=config.clip_param,
            value_coefficient=config.vf_loss_coeff,
            entropy_coefficient=config.entropy_coeff,
            leash_coefficient=settings["leash_coefficient"],
        )
        self._add_up(loss)
        return loss.total

    @override(Learner)
    def postprocess_gradients(self, gradients_dict: dict[Any, Tensor]) -> dict[Any, Tensor]:
        """Counts the step and its norm before the host clips."""
        self._num_gradient_steps += 1
        norms = torch.stack([gradient.norm() for gradient in gradients_dict.values()])
        self._sums[GRADIENT_NORM] = self._sums.get(GRADIENT_NORM, torch.zeros(())) + norms.norm()
        return dict(super().postprocess_gradients(gradients_dict))

    @override(PPOTorchLearner)
    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Averages the actor and logs the means of the update."""
        super().after_gradient_based_update(timesteps=timesteps)
        self._average.update(self._unwrapped.actor)
        means = {name: float(total) / self._num_gradient_steps for name, total in self._sums.items()}
        self.metrics.log_dict({**means, **self._before}, key=DEFAULT_MODULE_ID, window=1)

    def last_advantages(self) -> np.ndarray:
        """Advantages `[trajectories, T]` of the last train batch, in the order of its shards; 0 behind the end of an
        image.
        """
        return self._advantages

    def set_action_std(self, std: float) -> None:
        """Sets the noise of the coming rollout."""
        self._unwrapped.action_std.fill_(std)

    def inference_state(self) -> dict[str, np.ndarray]:
        """What an env runner needs: everything but the critic, as arrays of their own."""
        state = self._unwrapped.state_dict()
        return {name: np.array(value.cpu()) for name, value in state.items() if not name.startswith("critic.")}

    def averaged_actor(self) -> dict[str, Tensor]:
        """State of the actor's moving average: the policy to evaluate and to export."""
        return self._average.actor_state()

    def training_state(self) -> dict[str, Tensor]:
        """Module, optimizer and average as a flat dict of tensors."""
        state = {f"module.{name}": value.detach().cpu().clone() for name, value in self._unwrapped.state_dict().items()}
        for name, slots in self._optimizer_slots():
            for slot, value in slots.items():
                state[f"optimizer.{slot}.{name}"] = value.detach().cpu().clone()
        state |= {f"average.{name}": value for name, value in self._average.state().items()}
        return state

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `training_state` gave."""
        module = self._unwrapped
        module.load_state_dict(
            {name.removeprefix("module."): value for name, value in state.items() if name.startswith("module.")}
        )
        names = dict(module.named_parameters())
        optimizer = self.get_optimizer(DEFAULT_MODULE_ID)
        optimizer.state.clear()
        for key, value in state.items():
            if not key.startswith("optimizer."):
                continue
            slot, _, name = key.removeprefix("optimizer.").partition(".")
            parameter = names[name]
            moved = value.clone() if slot == "step" else value.clone().to(parameter.device)
            optimizer.state[parameter][slot] = moved
        self._average.load_state(
            {name.removeprefix("average."): value for name, value in state.items() if name.startswith("average.")}
        )

    @property
    def _feature_file(self) -> FeatureFile | None:
        """Where the connector has put the features of the train batch."""
        for connector in self._learner_connector.connectors:
            if isinstance(connector, ShardsToBatch):
                return connector.feature_file
        return None

    @property
    def _unwrapped(self) -> Any:
        return self.module[DEFAULT_MODULE_ID].unwrapped()

    def _optimizer_slots(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        optimizer = self.get_optimizer(DEFAULT_MODULE_ID)
        for name, parameter in self._unwrapped.named_parameters():
            if parameter in optimizer.state:
                yield name, optimizer.state[parameter]

    def _begin_update(self, batch: Mapping[str, Tensor], has_effect: np.ndarray) -> None:
        """Args:
        has_effect: `[trajectories, T]` bool: the steps that the rows of the batch are.
        """
        self._advantages = np.zeros(has_effect.shape, np.float32)
        self._advantages[has_effect] = batch[Columns.ADVANTAGES].cpu().numpy()
        values = batch.get(Columns.VF_PREDS)  # none without a critic
        self._before = {
            EXPLAINED_VARIANCE: 0.0 if values is None else float(explained_variance(values, batch[RETURNS])),
            ACTION_STD: float(self._unwrapped.action_std),
        }
        self._sums, self._num_gradient_steps = {}, 0

    def _add_up(self, loss: PPOLoss) -> None:
        parts = {
            POLICY_LOSS: loss.policy,
            VALUE_LOSS: loss.value,
            ENTROPY: loss.entropy,
            LEASH: loss.leash,
            APPROX_KL: loss.approx_kl,
            CLIP_FRACTION: loss.clip_fraction,
        }
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, torch.zeros(())) + self._part * value.detach()
