"""A generation policy in, numbers out: quality, cost and speed, as mean ± standard deviation over seeds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.config.metric_keys import IMAGES_PER_SECOND
from adanat_rl.evaluation.drawing import DrawAndKeep, DrawHere, DrawSet, EvaluationSet, evaluation_set
from adanat_rl.evaluation.judge import Judge, Judgement
from adanat_rl.generation.generator import Generator
from adanat_rl.generation.policies.base import Drawing, GenerationPolicy
from adanat_rl.metrics.statistics import read_arrays, write_arrays

NAT_PASSES = "nat_passes_per_image"

_SECONDS = "seconds"  # in files of judged images: what drawing and decoding them took


@dataclass(frozen=True)
class Judged:
    """What was found of one seed.

    Args:
        row: a number for each metric. drawing: what was judged. replicates: as `Evaluation` has them, of this seed.
    """

    row: dict[str, float]
    drawing: Drawing
    replicates: dict[str, list[float]]


@dataclass(frozen=True)
class Evaluation:
    """Numbers of one policy, one entry per seed.

    Args:
        metrics: values by name, `[S]` each.
        replicates: for values that a verdict counts, numbers of parts of the images of all seeds, as
            `Judgement.replicates` has them.
    """

    metrics: dict[str, list[float]]
    replicates: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, judged: Sequence[Judged]) -> Evaluation:
        """Joins what was found of each seed."""
        rows, parts = [one.row for one in judged], [one.replicates for one in judged]
        return cls(
            {name: [row[name] for row in rows] for name in rows[0]},
            {name: [number for part in parts for number in part[name]] for name in parts[0]},
        )

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
        generator: with the horizon of the policies that come. labels: of the real images, `[M]`. judge: made for them.
        num_images: N of each seed. batch_size: images decoded and judged at once. draw_set: draws the images of a set.
    """

    def __init__(
        self,
        generator: Generator,
        labels: Tensor,
        judge: Judge,
        num_images: int,
        batch_size: int,
        draw_set: DrawSet | None = None,
    ) -> None:
        self.generator = generator
        self.labels = labels
        self.judge = judge
        self.num_images = num_images
        self.batch_size = batch_size
        self._draw_set: DrawSet = draw_set if draw_set is not None else DrawHere(batch_size)

    def with_generator(self, generator: Generator) -> Evaluator:
        """The same evaluation of another generator."""
        return Evaluator(generator, self.labels, self.judge, self.num_images, self.batch_size, self._draw_set)

    def drawing_by(self, draw_set: DrawSet) -> Evaluator:
        """The same evaluation with images drawn by other means."""
        return Evaluator(self.generator, self.labels, self.judge, self.num_images, self.batch_size, draw_set)

    def of_images(self, num_images: int) -> Evaluator:
        """The same evaluation of another number of images."""
        return Evaluator(self.generator, self.labels, self.judge, num_images, self.batch_size, self._draw_set)

    def evaluate(self, policy: GenerationPolicy, seeds: Sequence[int]) -> Evaluation:
        """Numbers of a policy over seeds."""
        return Evaluation.of([self.judge_once(policy, seed) for seed in seeds])

    def evaluate_once(self, policy: GenerationPolicy, seed: int) -> tuple[dict[str, float], Drawing]:
        """Numbers and drawing of one seed."""
        judged = self.judge_once(policy, seed, replicated=False)
        return judged.row, judged.drawing

    def judge_once(self, policy: GenerationPolicy, seed: int, *, replicated: bool = True) -> Judged:
        """What is found of one seed.

        Args:
            replicated: whether the judge is asked for numbers of parts of the images too.
        """
        images = evaluation_set(self.labels, self.num_images, seed)
        start = time.perf_counter()
        drawing = self._draw_set(self.generator, policy, images)
        judgement, seconds = self._gathered(policy, images, drawing.sample, time.perf_counter() - start)
        row = judgement.result()
        row[NAT_PASSES] = float(drawing.num_passes.float().mean())
        row[IMAGES_PER_SECOND] = self.num_images / seconds
        return Judged(row, drawing, judgement.replicates() if replicated else {})

    def _gathered(
        self, policy: GenerationPolicy, images: EvaluationSet, sample: Tensor, seconds: float
    ) -> tuple[Judgement, float]:
        """The judge with all images, and the seconds of drawing and decoding; goes on behind what was judged before an
        interruption.
        """
        judgement = self.judge.begin(self.num_images)
        keep = self._draw_set if isinstance(self._draw_set, DrawAndKeep) else None
        file = None if keep is None else keep.judged_file(self.generator, policy, images)
        if file is not None and file.is_file():
            seconds = _go_on(judgement, file)
        num_kept = judgement.count
        for part, context in self._batches(sample[num_kept:], images.context[num_kept:]):
            start = time.perf_counter()
            decoded = self.generator.decode(part.to(self.generator.device))
            seconds += time.perf_counter() - start
            judgement.add(decoded, context)
            is_last = judgement.count == self.num_images
            if keep is not None and file is not None and (is_last or judgement.count - num_kept >= keep.judged_size):
                write_arrays(file, {**judgement.state(), _SECONDS: np.array(seconds)})
                num_kept = judgement.count
        return judgement, seconds

    def _batches(self, *columns: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Columns `[N, …]` in batches: images of a large set would not fit into memory."""
        if len(columns[0]):
            yield from zip(*(column.split(self.batch_size) for column in columns), strict=True)

    def distance(self, policy: GenerationPolicy, seed: int) -> float:
        """Fréchet distance by extractor A of one seed: what searches minimise."""
        images = evaluation_set(self.labels, self.num_images, seed)
        drawing = self._draw_set(self.generator, policy, images)
        device = self.generator.device
        return self.judge.distance(self.generator.decode(part.to(device)) for (part,) in self._batches(drawing.sample))


def _go_on(judgement: Judgement, file: Path) -> float:
    """Goes on from a file; returns the seconds of drawing and decoding so far."""
    try:
        state = read_arrays(file)
        judgement.restore(state)
    except UserError as error:
        raise UserError(f"{file}: {error}; without this file the images are judged again") from None
    return float(state[_SECONDS])
