"""What an iteration costs in arithmetic: the calls of each network, measured once, times how often they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.experiment.measuring import Cost, measure
from adanat_rl.experiment.outline import META, Outline, on_meta
from adanat_rl.experiment.reward_outline import RewardOutline
from adanat_rl.generation.noise import ImageNoise, Stream, gumbel

JUDGED_ROWS = 64  # images in one pass of Inception
PHOTO_ROWS = 32  # images in one pass of DINOv2 or CLIP
_NOTHING = Cost(0.0, 0)


@dataclass(frozen=True)
class Costs:
    """Costs of single calls, each with the number of rows that a run gives it.

    Args:
        nat: `block_rows` images. decode, encode: `decode_rows` images of the tokenizer. judge: 64 images.
        photos: 32 images of DINOv2 and CLIP together, where they judge.
        act: `block_rows` images of the actor. value, update: `micro_rows` env steps of the critic, and of both with
            their gradients. score: `score_rows` images; update_reward: a batch of real and one of generated ones.
        noise: peak bytes of an image's draws in an evaluation.
    """

    nat: Cost
    decode: Cost
    encode: Cost
    act: Cost
    value: Cost
    update: Cost
    score: Cost
    update_reward: Cost
    judge: Cost
    photos: Cost
    noise: Cost
    block_rows: int
    decode_rows: int
    micro_rows: int
    score_rows: int


@dataclass(frozen=True)
class Work:
    """One iteration.

    Args:
        rollout_passes, feature_passes: NAT passes of the rollout, and of a learner that computes features again.
        rollout, features, learning: operations of drawing, of features for the learner, of actor and critic.
        decoding, scoring: of the images that are scored. reward_decoding, reward_update: of the reward's updates.
    """

    rollout_passes: int
    feature_passes: int
    rollout: float
    features: float
    learning: float
    decoding: float
    scoring: float
    reward_decoding: float
    reward_update: float

    @property
    def passes(self) -> int:
        """All NAT passes."""
        return self.rollout_passes + self.feature_passes

    @property
    def flops(self) -> float:
        """All operations."""
        return (
            self.rollout
            + self.features
            + self.learning
            + self.decoding
            + self.scoring
            + self.reward_decoding
            + self.reward_update
        )


def costs_of(config: ExperimentConfig, outline: Outline, reward: RewardOutline | None) -> Costs:
    """Measures every call."""
    rows, decode_rows, micro_rows = config.generator.block_rows, config.generator.decode_rows, micro_batch_rows(config)
    tokenizer = outline.tokenizer
    images = torch.empty(decode_rows, *outline.image_shape, device=META)
    encode: Callable[[Tensor], object] = getattr(tokenizer, "latents", tokenizer.encode)
    seeds = torch.empty(1, dtype=torch.long, device=META)
    shape = (outline.length, outline.vocab_size)
    act, value, update = _policy_costs(outline, rows, micro_rows)
    return Costs(
        nat=measure(lambda: outline.nat(outline.tokens(rows), outline.context(rows))),
        decode=measure(lambda: tokenizer.decode(outline.tokens(decode_rows))),
        encode=measure(lambda: encode(images)),
        act=act,
        value=value,
        update=update,
        score=_NOTHING if reward is None else measure(lambda: reward.score(reward.score_rows)),
        update_reward=_reward_update(reward),
        judge=_judge(config),
        photos=_photos(config),
        noise=measure(lambda: gumbel(ImageNoise(seeds), 0, Stream.TOKENS, shape)),
        block_rows=rows,
        decode_rows=decode_rows,
        micro_rows=micro_rows,
        score_rows=1 if reward is None else reward.score_rows,
    )


def work_of(config: ExperimentConfig, outline: Outline, costs: Costs, reward: RewardOutline | None) -> Work:
    """Counts the calls of an iteration."""
    trajectories, horizon = config.training.trajectories_per_iteration, config.generator.horizon
    samples = trajectories * horizon
    rollout_passes = trajectories * outline.passes_per_image
    again = outline.policy.needs_features and not config.keep_features
    feature_passes = trajectories * outline.feature_passes_per_image if again else 0
    nat, decode = costs.nat.flops / costs.block_rows, costs.decode.flops / costs.decode_rows
    update = costs.update.flops / costs.micro_rows
    reward_decoding, reward_update = 0.0, 0.0
    if reward is not None:
        encode = costs.encode.flops / costs.decode_rows
        shown = (encode + decode) * reward.reconstructed_per_update + decode * reward.decoded_per_update
        reward_decoding = reward.num_updates * shown
        reward_update = reward.num_updates * costs.update_reward.flops
    return Work(
        rollout_passes=rollout_passes,
        feature_passes=feature_passes,
        rollout=rollout_passes * nat + samples * costs.act.flops / costs.block_rows,
        features=feature_passes * nat,
        learning=samples * (config.ppo.num_epochs * update + costs.value.flops / costs.micro_rows),
        decoding=trajectories * decode,
        scoring=trajectories * costs.score.flops / costs.score_rows,
        reward_decoding=reward_decoding,
        reward_update=reward_update,
    )


def micro_batch_rows(config: ExperimentConfig) -> int:
    """Env steps that go through actor and critic at once."""
    whole = config.training.trajectories_per_iteration * config.generator.horizon
    gradient_step = min(config.ppo.minibatch_size or whole, whole)
    return min(config.ppo.micro_batch_size or gradient_step, gradient_step)


def evaluation_flops(outline: Outline, costs: Costs) -> tuple[float, float, float, float]:
    """Operations of one image: drawn, decoded, judged by Inception, by DINOv2 and CLIP."""
    steps = outline.space.horizon * costs.act.flops / costs.block_rows
    drawn = outline.passes_per_image * costs.nat.flops / costs.block_rows + steps
    judged = costs.judge.flops / JUDGED_ROWS
    return drawn, costs.decode.flops / costs.decode_rows, judged, costs.photos.flops / PHOTO_ROWS


def policy_networks(outline: Outline) -> tuple[nn.Module, nn.Module]:
    """Actor and critic on the meta device."""
    return on_meta(outline.policy.build_actor, frozen=False), on_meta(outline.policy.build_critic, frozen=False)


def _policy_costs(outline: Outline, rows: int, micro_rows: int) -> tuple[Cost, Cost, Cost]:
    """Actor, critic, and both with gradients; tables cost nothing to speak of."""
    if not outline.policy.needs_features:
        return _NOTHING, _NOTHING, _NOTHING
    actor, critic = policy_networks(outline)

    def both() -> Tensor:
        features, steps = outline.features(micro_rows), _steps(micro_rows)
        return actor(features, steps).sum() + critic(features, steps).sum()

    return (
        measure(lambda: actor(outline.features(rows), _steps(rows))),
        measure(lambda: critic(outline.features(micro_rows), _steps(micro_rows))),
        measure(both, with_gradients=True),
    )


def _steps(rows: int) -> Tensor:
    return torch.empty(rows, dtype=torch.long, device=META)


def _reward_update(reward: RewardOutline | None) -> Cost:
    if reward is None or reward.update is None:
        return _NOTHING
    return measure(reward.update, with_gradients=True)


def judge_network(config: ExperimentConfig) -> Any:
    """Inception-v3 without weights; None where small classifiers judge."""
    if config.evaluation.judge != "inception":
        return None
    from adanat_rl.metrics.inception import InceptionV3

    return on_meta(InceptionV3)


def photo_networks(config: ExperimentConfig) -> list[tuple[str, nn.Module, int]]:
    """DINOv2 and CLIP without weights, where they judge and their folders are there: name, network, side of its pixels.

    Raises:
        UserError: a folder holds another network.
    """
    if config.evaluation.judge != "inception":
        return []
    from adanat_rl.evaluation.panel.photos import PHOTO_NETWORKS

    encoders = [encoder for network in PHOTO_NETWORKS if (encoder := network.outline(config)) is not None]
    return [(encoder.name, encoder.outline(), encoder.image_size) for encoder in encoders]


def _photos(config: ExperimentConfig) -> Cost:
    """They take turns."""
    costs = [_photo_cost(network, size) for _, network, size in photo_networks(config)]
    return Cost(sum(cost.flops for cost in costs), max((cost.peak_bytes for cost in costs), default=0))


def _photo_cost(network: nn.Module, size: int) -> Cost:
    return measure(lambda: network(pixel_values=torch.empty(PHOTO_ROWS, 3, size, size, device=META)))


def _judge(config: ExperimentConfig) -> Cost:
    network = judge_network(config)
    if network is None:
        return _NOTHING
    return measure(lambda: network(torch.empty(JUDGED_ROWS, 3, 299, 299, device=META)))
