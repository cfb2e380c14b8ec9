"""Images of an evaluation drawn by the env runners: the same images as in the driver, spread over the cluster."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np
import ray
import torch

from adanat_rl.evaluation.drawing import EvaluationSet, join_drawings
from adanat_rl.generation.generator import Generator
from adanat_rl.generation.noise import ImageNoise
from adanat_rl.generation.policies.base import Drawing, GenerationPolicy, draw
from adanat_rl.rl.dealer import ShardDealer
from adanat_rl.rl.shards import ShardKey

_EVALUATION = -1  # stands where keys of shards have an iteration


@dataclass(frozen=True)
class DrawnImages:
    """What a runner brings: finished images of one batch, columns as in `Drawing`, on the CPU."""

    key: ShardKey
    weights_digest: str
    sample: np.ndarray
    decisions: np.ndarray
    num_passes: np.ndarray


@dataclass(frozen=True)
class DrawOrder:
    """What is drawn with.

    Args:
        digest: unique. policy: decides. base_schedule: `[T, K]` around which the runner's generator draws.
    """

    digest: str
    policy: GenerationPolicy
    base_schedule: np.ndarray


@torch.no_grad()
def draw_batch(
    generator: Generator, order: DrawOrder, policy: GenerationPolicy, key: ShardKey, images: EvaluationSet
) -> DrawnImages:
    """Draws a batch in the process of a runner."""
    device = generator.device
    generator = generator.with_base_schedule(order.base_schedule)
    drawing = draw(generator, policy.to(device), images.context.to(device), ImageNoise(images.seeds.to(device)))
    return DrawnImages(
        key,
        order.digest,
        drawing.sample.cpu().numpy().astype(generator.sample_spec.storage_dtype),
        drawing.decisions.cpu().numpy(),
        drawing.num_passes.cpu().numpy(),
    )


class DrawOnRunners:
    """A `DrawSet` over the runners of an algorithm.

    Args:
        dealer: of the runners. batch_size: images of one piece of work. check: called while waiting; may raise.
        aside: runs what may hang, and comes back even then.
    """

    def __init__(
        self,
        dealer: ShardDealer,
        batch_size: int,
        check: Callable[[], None] = lambda: None,
        aside: Callable[[Callable[[], Any]], Any] = lambda work: work(),
    ) -> None:
        self._dealer = dealer
        self._batch_size = batch_size
        self._check = check
        self._aside = aside

    def __call__(self, generator: Generator, policy: GenerationPolicy, images: EvaluationSet) -> Drawing:
        """Finished images in the order of the set, on the CPU."""
        drawing: Drawing = self._aside(lambda: self._draw(generator, policy, images))
        return drawing

    def _draw(self, generator: Generator, policy: GenerationPolicy, images: EvaluationSet) -> Drawing:
        batches = torch.arange(len(images.context)).split(self._batch_size)
        sent = copy.deepcopy(policy).to(torch.device("cpu"))  # runners may have no GPU
        order = DrawOrder(uuid4().hex, sent, generator.decision_space.base_schedule.cpu().numpy())
        self._check()  # to put something into the store of a raylet that is dead ends the process
        shared = ray.put(order)  # a network goes into the object store once, not once a batch
        keys = [ShardKey(0, _EVALUATION, number) for number in range(len(batches))]

        def ask(runner: Any, key: ShardKey) -> Any:
            rows = batches[key.number]
            own = policy.for_images(rows)
            piece = EvaluationSet(images.context[rows], images.seeds[rows])
            return runner.draw_images.remote(shared, None if own is policy else own, key, piece)

        parts: list[DrawnImages] = self._dealer.deal(order.digest, ask, keys, self._check)
        dtype = generator.sample_spec.dtype
        return join_drawings(
            [
                Drawing(
                    torch.from_numpy(_signed(part.sample)).to(dtype),
                    torch.tensor(part.decisions),
                    torch.tensor(part.num_passes),
                )
                for part in parts
            ]
        )


def _signed(samples: np.ndarray) -> np.ndarray:
    """Integers in a type that every torch has."""
    return samples.astype(np.int64) if samples.dtype.kind in "iu" else samples
