"""Tries a reward on images of a configuration, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adanat_rl.config.apart import check_apart
from adanat_rl.config.errors import RunError, UserError
from adanat_rl.config.findings import Finding
from adanat_rl.config.loading import validate
from adanat_rl.config.schema import ExperimentConfig

_OF_THE_REWARD = ("score", "update")  # the other phases are those that a worker's start has


def check_in_process(config: ExperimentConfig, num_images: int | None) -> list[Finding]:
    """Findings of the reward of a configuration.

    Args:
        num_images: generated images to score; None for 48, or a shard for a reward of sets.

    Raises:
        UserError: a setting or a file is wrong. RunError: the check itself failed.
    """

    def limit_of(phase: str) -> tuple[str, float]:
        if phase in _OF_THE_REWARD:
            return "resources.reward_timeout_s", config.resources.reward_timeout_s
        return "resources.start_timeout_s", config.resources.start_timeout_s

    order = {"config": config.model_dump(mode="json"), "num_images": num_images}
    return check_apart("adanat_rl.rewards.checking:try_reward", order, limit_of, "reward")


def try_reward(order: Any, begin: Callable[[str], None]) -> list[Finding]:
    """What runs in the process."""
    import torch

    from adanat_rl.rewards.build import build_reward_parts, reward_class
    from adanat_rl.rewards.conformance import check_reward, constructor_failed

    config, num_images = validate(order["config"]), order["num_images"]
    torch.set_num_threads(config.resources.torch_threads)
    cls = reward_class(config)
    count = num_images or (config.training.shard_size if cls.set_valued else 48)
    begin("constructor")
    try:
        parts = build_reward_parts(config)
    except (UserError, RunError):
        raise
    except (Exception, SystemExit) as error:  # whatever a user's constructor does
        return [constructor_failed(error)]
    begin("drawing")
    batch = _draw(config, parts, count)
    return check_reward(lambda: build_reward_parts(config).model, batch, parts.real, begin=begin)


def _draw(config: ExperimentConfig, parts: Any, count: int) -> Any:
    """Images of the untrained policy for contexts of the data, as a reward actor would see them."""
    import torch

    from adanat_rl.evaluation.drawing import draw_set, evaluation_set
    from adanat_rl.generation.build import build_generator
    from adanat_rl.generation.policies.base import SchedulePolicy
    from adanat_rl.rewards.worker import DecodedLater

    generator = build_generator(config, parts.device)
    contexts = torch.arange(generator.context_spec.num_contexts)
    images = evaluation_set(contexts, count, config.seed)
    policy = SchedulePolicy(generator.decision_space.base_schedule.float())
    drawing = draw_set(generator, policy, images, count)
    samples = drawing.sample.cpu().numpy().astype(generator.sample_spec.storage_dtype)
    return DecodedLater(parts, samples, images.context.numpy(), drawing.num_passes.cpu().numpy()).batch()
