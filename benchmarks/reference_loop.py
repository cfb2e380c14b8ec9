"""The same training as one plain file of PyTorch: no Ray, no RLlib, no environment, no actors.

What a researcher would write for the digits. It is the yardstick for the platform's overhead, and its first iterations
must equal the platform's to float tolerance (`tests/rl/test_reference_loop.py`). It takes networks and weights from the
package and writes everything else itself: sampling, PPO, discriminator updates.

    python -m benchmarks.reference_loop --iterations 20
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from adanat_rl.config.loading import resolve
from adanat_rl.config.paths import resolve_path
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.data.digits import load_digits_dataset
from adanat_rl.generation.build import NAT_CLASSES, TOKENIZER_CLASSES
from adanat_rl.generation.masked.schedules import hand_made_schedule
from adanat_rl.generation.noise import ShardNoise, Stream
from adanat_rl.generation.policies.network import PolicyNet
from adanat_rl.generation.seeding import Purpose, philox, seeded
from adanat_rl.generation.weights import load_network
from adanat_rl.rewards.discriminator import PatchDiscriminator

EFFECT = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1]])


@dataclass
class Batch:
    """One train batch; lists over the steps, tensors over the images."""

    context: Tensor
    features: list[Tensor] = field(default_factory=list)
    actions: list[Tensor] = field(default_factory=list)
    log_probs: list[Tensor] = field(default_factory=list)
    tokens: Tensor | None = None


class ReferenceLoop:
    """Holds what training changes; `iterate` does one iteration and returns its numbers."""

    def __init__(self, config: ExperimentConfig) -> None:
        self.config = config
        dataset = load_digits_dataset()
        self.nat = load_network(resolve_path(config.generator.nat, "nat"), NAT_CLASSES)
        self.tokenizer = load_network(resolve_path(config.generator.tokenizer, "tokenizer"), TOKENIZER_CLASSES)
        self.labels = dataset.labels
        self.real = self.tokenizer.decode(self.tokenizer.encode(dataset.images))
        self.horizon = config.generator.horizon
        self.base = self._base_schedule()
        with torch.no_grad():
            tokens = torch.full((11, 16), self.nat.mask_token_id)
            self.first_logits, self.first_features = self.nat(tokens, torch.arange(11))
        hidden = config.policy.hidden_size
        with seeded(Purpose.POLICY_WEIGHTS, config.seed):
            self.actor = PolicyNet(self.nat.width, 4, hidden, 4)
            self.critic = PolicyNet(self.nat.width, 1, hidden, 4)
        parameters = [*self.actor.parameters(), *self.critic.parameters()]
        self.optimizer = torch.optim.Adam(parameters, config.ppo.lr, betas=config.ppo.adam_betas)
        adversarial = config.reward.adversarial
        with seeded(Purpose.DISCRIMINATOR_WEIGHTS, config.seed):
            self.discriminator = PatchDiscriminator(10, adversarial.channels)
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminator.parameters(), adversarial.lr, betas=adversarial.adam_betas
        )
        self.iteration = 0
        self.gradients: list[dict[str, Tensor]] = []  # of the last iteration: what each step gave to the optimizer

    def warm_up(self) -> None:
        """Trains the discriminator on images of the untrained policy."""
        batch = self._rollout(0)
        self._train_discriminator(batch, 0, self.config.reward.adversarial.num_warmup_updates)

    def iterate(self) -> dict[str, float]:
        """Rollout, reward, PPO, discriminator."""
        self.iteration += 1
        batch = self._rollout(self.iteration)
        rewards = self._rewards(batch)
        returns = rewards.double().repeat_interleave(self.horizon)
        returns = (returns - returns.mean()) / (returns.std() + 1e-7)
        losses = self._update_policy(batch, returns.float())
        self._train_discriminator(batch, self.iteration, self.config.reward.adversarial.num_updates)
        return {"reward": float(rewards.mean()), **losses}

    @property
    def std(self) -> float:
        """Action noise of the current iteration."""
        e = self.config.exploration
        return max(e.std - e.decay * (max(self.iteration - 1, 0) // e.decay_interval_iterations), min(e.min_std, e.std))

    def _base_schedule(self) -> Tensor:
        """Pre-activations `[T, 4]`."""
        base = self.config.decisions.base
        schedule = hand_made_schedule(
            self.horizon,
            base.curve,
            curve_power=base.curve_power,
            confidence_temperature=base.confidence_temperature,
            sampling_temperature=base.sampling_temperature,
            guidance_scale=base.guidance_scale,
        )
        floor = self.config.decisions.base_floor
        ratio = schedule[:, :1].clip(floor / 5, 1 - floor / 5)
        rest = schedule[:, 1:].clip(floor)
        pre = np.concatenate([np.log(ratio / (1 - ratio)), np.log(np.expm1(rest))], axis=1)
        return torch.from_numpy(pre).float()

    @torch.no_grad()
    def _rollout(self, iteration: int) -> Batch:
        training = self.config.training
        shards = [
            self._rollout_shard((self.config.seed, iteration, number))
            for number in range(training.trajectories_per_iteration // training.shard_size)
        ]
        batch = Batch(torch.cat([shard.context for shard in shards]))
        batch.tokens = torch.cat([shard.tokens for shard in shards])
        for step in range(self.horizon):
            batch.features.append(torch.cat([shard.features[step] for shard in shards]))
            batch.actions.append(torch.cat([shard.actions[step] for shard in shards]))
            batch.log_probs.append(torch.cat([shard.log_probs[step] for shard in shards]))
        return batch

    def _rollout_shard(self, key: tuple[int, int, int]) -> Batch:
        size, mask_id = self.config.training.shard_size, self.nat.mask_token_id
        noise = ShardNoise(key, size)
        context = torch.from_numpy(noise.choice(Stream.CONTEXTS, self.labels.numpy()))
        null = torch.full_like(context, 10)
        tokens = torch.full((size, 16), mask_id)
        batch = Batch(context)
        for step in range(self.horizon):
            if step == 0:
                logits, features = self.first_logits[context], self.first_features[context]
                unconditional = self.first_logits[null]
            else:
                both, features = self.nat(torch.cat([tokens, tokens]), torch.cat([context, null]))
                logits, unconditional, features = both[:size], both[size:], features[:size]
            mean = self.actor(features, torch.full_like(context, step))
            action = mean + self.std * noise.normal(step, Stream.ACTIONS, (4,))
            batch.features.append(features)
            batch.actions.append(action)
            batch.log_probs.append(self._log_prob(action, mean, step))
            pre = self.base[step] + action
            ratio = torch.sigmoid(pre[:, 0])
            temperature, sampling, guidance = functional.softplus(pre[:, 1:]).unbind(1)
            guided = logits + guidance[:, None, None] * (logits - unconditional)
            scaled = guided / sampling.clamp(min=self.config.decisions.sampling_temperature_floor)[:, None, None]
            drawn = (scaled - noise.exponential(step, Stream.TOKENS, (16, self.nat.vocab_size)).log()).argmax(-1)
            drawn = torch.where(tokens == mask_id, drawn, tokens)
            if step < self.horizon - 1:
                confidence = guided.log_softmax(-1).gather(-1, drawn[..., None])[..., 0]
                confidence -= temperature[:, None] * noise.exponential(step, Stream.CONFIDENCE, (16,)).log()
                confidence[tokens != mask_id] = torch.inf
                count = (ratio * 16).floor().clamp(max=15).long()
                cut = confidence.sort(1).values.gather(1, count[:, None])
                drawn = torch.where(confidence < cut, mask_id, drawn)
            tokens = drawn
        batch.tokens = tokens
        return batch

    def _log_prob(self, action: Tensor, mean: Tensor, step: int | Tensor) -> Tensor:
        normal = torch.distributions.Normal(mean, self.std)
        return (normal.log_prob(action) * EFFECT[step]).sum(-1)

    @torch.no_grad()
    def _rewards(self, batch: Batch) -> Tensor:
        self.discriminator.eval()
        logits = self.discriminator(self.tokenizer.decode(batch.tokens), batch.context)
        return torch.sigmoid(logits.mean(dim=1))

    def _update_policy(self, batch: Batch, returns: Tensor) -> dict[str, float]:
        ppo = self.config.ppo
        features = torch.stack(batch.features, dim=1).flatten(0, 1)
        actions = torch.stack(batch.actions, dim=1).flatten(0, 1)
        old = torch.stack(batch.log_probs, dim=1).flatten()
        step = torch.arange(self.horizon).repeat(len(batch.context))
        with torch.no_grad():
            advantages = returns - self.critic(features, step)[:, 0]
        if ppo.normalize_advantages:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-7)
        losses: dict[str, list[float]] = {"policy_loss": [], "value_loss": [], "entropy": []}
        self.gradients = []
        for epoch in range(ppo.num_epochs):
            for rows in self._minibatches(len(step), epoch):
                new = self._log_prob(actions[rows], self.actor(features[rows], step[rows]), step[rows])
                ratio = (new - old[rows]).exp()
                clipped = ratio.clamp(1 - ppo.clip, 1 + ppo.clip)
                policy_loss = -torch.minimum(ratio * advantages[rows], clipped * advantages[rows]).mean()
                value_loss = functional.mse_loss(self.critic(features[rows], step[rows])[:, 0], returns[rows])
                self.optimizer.zero_grad()
                entropy = (torch.distributions.Normal(0.0, self.std).entropy() * EFFECT[step[rows]]).sum(-1).mean()
                (policy_loss + ppo.value_coefficient * value_loss - ppo.entropy_coefficient * entropy).backward()
                if ppo.grad_clip is not None:
                    groups = self.optimizer.param_groups[0]["params"]
                    torch.nn.utils.clip_grad_norm_(groups, ppo.grad_clip)
                self.gradients.append(self._named_gradients())
                self.optimizer.step()
                for name, loss in (("policy_loss", policy_loss), ("value_loss", value_loss), ("entropy", entropy)):
                    losses[name].append(float(loss.detach()))
        return {name: float(np.mean(values)) for name, values in losses.items()}

    def _named_gradients(self) -> dict[str, Tensor]:
        networks = (("actor", self.actor), ("critic", self.critic))
        return {
            f"{network}.{name}": parameter.grad.clone()
            for network, module in networks
            for name, parameter in module.named_parameters()
            if parameter.grad is not None
        }

    def _minibatches(self, size: int, epoch: int) -> Iterator[Tensor | slice]:
        minibatch = self.config.ppo.minibatch_size
        if minibatch is None or minibatch >= size:
            yield slice(None)
            return
        order = philox(Purpose.SHUFFLE, self.config.seed, self.iteration, epoch).permutation(size)
        yield from torch.from_numpy(order).split(minibatch)

    def _train_discriminator(self, batch: Batch, iteration: int, steps: int) -> None:
        settings = self.config.reward.adversarial
        generator = philox(Purpose.REWARD_UPDATE, self.config.seed, iteration)
        images = self.tokenizer.decode(batch.tokens)
        target = torch.full((settings.batch_size,), settings.real_target)
        self.discriminator.train()
        for _ in range(steps):
            fake = torch.from_numpy(generator.integers(0, len(images), settings.batch_size))
            real = torch.from_numpy(generator.integers(0, len(self.real), settings.batch_size))
            real_logit = self.discriminator(self.real[real], self.labels[real]).mean(dim=1)
            fake_logit = self.discriminator(images[fake], batch.context[fake]).mean(dim=1)
            loss = functional.binary_cross_entropy_with_logits(real_logit, target)
            loss = loss + functional.binary_cross_entropy_with_logits(fake_logit, torch.zeros_like(fake_logit))
            self.discriminator_optimizer.zero_grad()
            loss.backward()
            self.discriminator_optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("overrides", nargs="*", help="settings of the digits preset, such as ppo.lr=1e-4")
    arguments = parser.parse_args()
    config = resolve(overrides=arguments.overrides)
    torch.set_num_threads(config.resources.torch_threads)
    loop = ReferenceLoop(config)
    loop.warm_up()
    for _ in range(arguments.iterations):
        start = time.perf_counter()
        row = loop.iterate()
        print(json.dumps({"iteration": loop.iteration, **row, "seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    main()
