"""A generation policy in, numbers out: quality, cost and speed, as mean ± standard deviation over seeds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adanat_rl.data.digits import ImageDataset
from adanat_rl.evaluation.judge import Judge
from adanat_rl.generation.generator import Generator
from adanat_rl.generation.noise import ImageNoise
from adanat_rl.generation.policies.base import Drawing, GenerationPolicy, draw
from adanat_rl.generation.seeding import Purpose, philox
from adanat_rl.generation.threads import map_in_threads

NAT_PASSES = "nat_passes_per_image"
IMAGES_PER_SECOND = "images_per_s"


@dataclass(frozen=True)
class EvaluationSet:
    """What an evaluation draws: contexts as in the real data, one seed per image.

    Args:
        context: `[N]` int64. seeds: `[N]` int64.
    """

    context: Tensor
    seeds: Tensor


def evaluation_set(dataset: ImageDataset, num_images: int, seed: int) -> EvaluationSet:
    """N contexts, taken from the real labels in turn, and N image seeds that depend on `seed` and the index alone."""
    index = np.arange(num_images)
    context = dataset.labels[torch.from_numpy(index % len(dataset.labels))]
    seeds = philox(Purpose.EVALUATION, seed).integers(0, 2**63, num_images)
    return EvaluationSet(context, torch.from_numpy(seeds))


def draw_set(
    generator: Generator, policy: GenerationPolicy, images: EvaluationSet, batch_size: int, num_threads: int = 1
) -> Drawing:
    """Draws the set in batches, some at once; the result depends on neither number."""

    def draw_rows(rows: Tensor) -> Drawing:
        noise = ImageNoise(images.seeds[rows].to(generator.device))
        return draw(generator, policy.for_images(rows), images.context[rows].to(generator.device), noise)

    parts = map_in_threads(draw_rows, torch.arange(len(images.context)).split(batch_size), num_threads)
    return Drawing(
        sample=torch.cat([part.sample for part in parts]),
        decisions=torch.cat([part.decisions for part in parts]),
        num_passes=torch.cat([part.num_passes for part in parts]),
    )


@dataclass(frozen=True)
class Evaluation:
    """Numbers of one policy, one entry per seed.

    Args:
        metrics: values by name, `[S]` each.
    """

    metrics: dict[str, list[float]]

    @classmethod
    def of(cls, rows: Sequence[dict[str, float]]) -> Evaluation:
        """Joins one row of numbers per seed."""
        return cls({name: [row[name] for row in rows] for name in rows[0]})

    def mean(self, name: str) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.metrics[name]))

    def sd(self, name: str) -> float:
        """Standard deviation over the seeds (n - 1); 0 for a single one."""
        values = self.metrics[name]
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    def summary(self) -> dict[str, dict[str, float]]:
        """`{"mean": …, "sd": …}` by name."""
        return {name: {"mean": self.mean(name), "sd": self.sd(name)} for name in self.metrics}


class Evaluator:
    """Draws and judges.

    Args:
        generator: with the horizon of the policies that come. dataset: the real images. judge: made for it.
        num_images: N of each seed. batch_size: images drawn at once. num_threads: batches drawn at once.
    """

    def __init__(
        self,
        generator: Generator,
        dataset: ImageDataset,
        judge: Judge,
        num_images: int,
        batch_size: int,
        num_threads: int = 1,
    ) -> None:
        self.generator = generator
        self.dataset = dataset
        self.judge = judge
        self.num_images = num_images
        self.batch_size = batch_size
        self.num_threads = num_threads

    def with_generator(self, generator: Generator) -> Evaluator:
        """The same evaluation of another generator."""
        return Evaluator(generator, self.dataset, self.judge, self.num_images, self.batch_size, self.num_threads)

    def evaluate(self, policy: GenerationPolicy, seeds: Sequence[int]) -> Evaluation:
        """Numbers of a policy over seeds."""
        return Evaluation.of([self.evaluate_once(policy, seed)[0] for seed in seeds])

    def evaluate_once(self, policy: GenerationPolicy, seed: int) -> tuple[dict[str, float], Drawing]:
        """Numbers and drawing of one seed."""
        images = evaluation_set(self.dataset, self.num_images, seed)
        start = time.perf_counter()
        drawing = draw_set(self.generator, policy, images, self.batch_size, self.num_threads)
        elapsed = time.perf_counter() - start
        judgement = self.judge.begin()
        for sample, context in self._batches(drawing.sample, images.context):
            start = time.perf_counter()
            decoded = self.generator.decode(sample)
            elapsed += time.perf_counter() - start
            judgement.add(decoded, context)
        row = judgement.result()
        row[NAT_PASSES] = float(drawing.num_passes.float().mean())
        row[IMAGES_PER_SECOND] = self.num_images / elapsed
        return row, drawing

    def _batches(self, *columns: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Columns `[N, …]` in batches: images of a large set would not fit into memory."""
        yield from zip(*(column.split(self.batch_size) for column in columns), strict=True)

    def distance(self, policy: GenerationPolicy, seed: int) -> float:
        """Fréchet distance by extractor A of one seed: what searches minimise."""
        images = evaluation_set(self.dataset, self.num_images, seed)
        drawing = draw_set(self.generator, policy, images, self.batch_size, self.num_threads)
        return self.judge.distance(self.generator.decode(drawing.sample).cpu())
