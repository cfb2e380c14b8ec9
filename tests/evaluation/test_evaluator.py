from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adanat_rl.config.errors import UserError
from adanat_rl.evaluation.clip_judge import ClipJudge
from adanat_rl.evaluation.drawing import DrawAndKeep, DrawHere, DrawSet, draw_set, evaluation_set
from adanat_rl.evaluation.evaluator import IMAGES_PER_SECOND, NAT_PASSES, Evaluation, Evaluator
from adanat_rl.evaluation.inception_judge import InceptionJudge
from adanat_rl.evaluation.judge import ACCURACY, FD_A, FD_B, PRECISION, QUALITY_METRICS, RECALL, Judge, load_judge
from adanat_rl.generation.noise import ImageNoise
from adanat_rl.generation.policies.base import ActorPolicy, FixedDecisionsPolicy, SchedulePolicy, draw
from adanat_rl.generation.policies.network import PolicyNet
from adanat_rl.generation.seeding import seeded
from adanat_rl.metrics.frechet import FrechetDistance
from adanat_rl.metrics.reference_set import ReferenceSet
from adanat_rl.metrics.statistics import FeatureStatistics
from tests.fakes import CostJudge, PointGenerator, ReadingActor, point_dataset
from tests.metrics.fake_extractor import FakeExtractor


@pytest.fixture(scope="module")
def judge(digits):
    return load_judge(digits)


def test_mean_and_sd_are_those_of_numpy() -> None:
    values = [0.3, 0.5, 0.1, 0.9]
    evaluation = Evaluation({"a": list(values), "b": [2.0] * len(values)})
    assert evaluation.mean("a") == pytest.approx(np.mean(values))
    assert evaluation.sd("a") == pytest.approx(np.sqrt(sum((v - 0.45) ** 2 for v in values) / 3))
    assert evaluation.summary()["b"] == {"mean": 2.0, "sd": 0.0}
    assert evaluation.metrics["a"] == values


def test_a_single_seed_has_no_spread() -> None:
    assert Evaluation({"a": [3.0]}).summary() == {"a": {"mean": 3.0, "sd": 0.0}}


def test_the_evaluation_set_takes_the_real_labels_in_turn(digits) -> None:
    images = evaluation_set(digits.labels, 2000, 5)
    assert torch.equal(images.context[:1797], digits.labels)
    assert torch.equal(images.context[1797:], digits.labels[:203])
    assert images.context.dtype == images.seeds.dtype == torch.int64


def test_a_set_smaller_than_the_data_is_spread_over_all_of_them() -> None:
    labels = torch.arange(1000).repeat_interleave(1280)  # sorted by class, as image folders are
    counts = torch.bincount(evaluation_set(labels, 5000, 1).context, minlength=1000)
    assert (counts == 5).all()


def test_the_evaluation_set_depends_on_seed_and_index_alone(digits) -> None:
    first, again, other, longer = (
        evaluation_set(digits.labels, count, seed) for count, seed in ((50, 1), (50, 1), (50, 2), (900, 1))
    )
    assert torch.equal(first.seeds, again.seeds)
    assert torch.equal(first.seeds, longer.seeds[:50])
    assert not (first.seeds == other.seeds).any()
    assert torch.equal(first.context, other.context)
    assert len(set(longer.seeds.tolist())) == 900


@pytest.mark.parametrize("batch_size", [1, 7, 30, 64])
def test_a_drawn_set_does_not_depend_on_the_batch_size(digits, digits_generator, batch_size: int) -> None:
    with seeded(1):
        actor = PolicyNet(96, 4, hidden_size=16, grid_size=4)
        with torch.no_grad():
            for parameter in actor.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    policy = ActorPolicy(actor, digits_generator.decision_space, 64)
    images = evaluation_set(digits.labels, 30, 3)
    whole = draw(digits_generator, policy, images.context, ImageNoise(images.seeds))
    parts = draw_set(digits_generator, policy, images, batch_size)
    assert torch.equal(parts.sample, whole.sample)
    assert torch.equal(parts.decisions, whole.decisions)
    assert torch.equal(parts.num_passes, whole.num_passes)


def test_decisions_made_image_by_image_follow_the_images_through_the_batches(digits, digits_generator) -> None:
    images = evaluation_set(digits.labels, 25, 3)
    decisions = torch.rand(25, 4, 4, generator=torch.Generator().manual_seed(0)) + 0.1
    drawing = draw_set(digits_generator, FixedDecisionsPolicy(decisions), images, 8)
    assert torch.equal(drawing.decisions, decisions)


def test_the_evaluator_judges_what_it_draws(digits, digits_generator, judge) -> None:
    evaluator = Evaluator(digits_generator, digits.labels, judge, num_images=60, batch_size=25)
    policy = SchedulePolicy(digits_generator.decision_space.base_schedule)
    row, drawing = evaluator.evaluate_once(policy, 7)
    images = evaluation_set(digits.labels, 60, 7)
    expected = draw(digits_generator, policy, images.context, ImageNoise(images.seeds))
    assert torch.equal(drawing.sample, expected.sample)
    assert row[NAT_PASSES] == expected.num_passes.double().mean()
    assert set(QUALITY_METRICS) < row.keys()
    numbers = judge(digits_generator.decode(expected.sample), images.context)
    assert {name: row[name] for name in QUALITY_METRICS} == numbers
    assert evaluator.distance(policy, 7) == row[FD_A]
    assert evaluator.evaluate(policy, [7, 8]).metrics[FD_A][0] == row[FD_A]


def test_the_judge_measures_the_features_of_its_two_classifiers(digits, judge) -> None:
    half = digits.images[::2]
    numbers = judge(half, digits.labels[::2])
    first, second = judge._first, judge._second
    with torch.no_grad():
        assert numbers[FD_A] == pytest.approx(FrechetDistance(first(digits.images))(first(half)))
        assert numbers[FD_B] == pytest.approx(FrechetDistance(second(digits.images))(second(half)))
        right = first.logits(half).argmax(1) == digits.labels[::2]
    assert numbers[ACCURACY] == pytest.approx(right.double().mean().item())
    assert numbers[PRECISION] == 1  # real images lie in the real manifold
    assert 0.5 < numbers[RECALL] <= 1


def test_the_judge_knows_noise_from_digits(digits, judge) -> None:
    noise = torch.rand(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    numbers, real = judge(noise, digits.labels[:400]), judge(digits.images[:400], digits.labels[:400])
    assert numbers[FD_A] > 20 * real[FD_A]
    assert numbers[FD_B] > 20 * real[FD_B]
    assert numbers[PRECISION] < 0.1 < real[PRECISION]
    assert numbers[ACCURACY] < 0.3 < real[ACCURACY]


def test_a_generator_of_another_kind_is_evaluated_the_same_way() -> None:
    generator, dataset = PointGenerator(), point_dataset()
    evaluator = Evaluator(generator, dataset.labels, CostJudge(), num_images=150, batch_size=40)
    reading = ActorPolicy(ReadingActor(0.8, 0.0), generator.decision_space, 16)
    evaluation = evaluator.evaluate(reading, [1, 2, 3])
    blind = evaluator.evaluate(SchedulePolicy(generator.decision_space.base_schedule), [1, 2, 3])
    assert evaluation.mean(FD_A) < blind.mean(FD_A) - 0.3
    assert evaluation.mean(NAT_PASSES) == 3
    assert evaluator.with_generator(PointGenerator(horizon=2)).evaluate(reading, [1]).mean(NAT_PASSES) == 2


class InterruptedDecodingError(Exception):
    pass


class CountingGenerator(PointGenerator):
    """Counts decoded images, and stops where it is told."""

    num_decoded = 0
    stop_at: int | None = None

    def decode(self, sample: torch.Tensor) -> torch.Tensor:
        if self.num_decoded == self.stop_at:
            raise InterruptedDecodingError
        self.num_decoded += len(sample)
        return super().decode(sample)


class ColourExtractor(FakeExtractor):
    """Takes the two channels of points for pictures in colour."""

    def features_and_logits(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().features_and_logits(_colour(images))


def _colour(points: torch.Tensor) -> torch.Tensor:
    return points[:, :, :, [0, 1, 0, 1, 0, 1, 0, 1]].expand(-1, 3, 8, -1)


def statistics() -> FeatureStatistics:
    real = ReferenceSet(FakeExtractor(), 40, num_kept=30)
    real.add(torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    return real.statistics()


def inception_judge(extractor: FakeExtractor) -> InceptionJudge:
    return InceptionJudge(extractor, statistics(), num_kept=30, batch_size=16)


def row_of(judge: Judge, draw_set: DrawSet, generator: CountingGenerator, num_images: int = 90) -> dict[str, float]:
    evaluator = Evaluator(generator, torch.arange(4), judge, num_images, batch_size=10, draw_set=draw_set)
    row, _ = evaluator.evaluate_once(SchedulePolicy(generator.decision_space.base_schedule), 5)
    return {name: value for name, value in row.items() if name != IMAGES_PER_SECOND}


@pytest.mark.parametrize("with_captions", [False, True])
def test_an_interrupted_judgement_goes_on_to_the_same_bits(tmp_path: Path, with_captions: bool) -> None:
    extractor = ColourExtractor()
    judge: Judge = inception_judge(extractor)
    if with_captions:
        judge = ClipJudge(judge, lambda images, captions: images.mean(dim=(1, 2, 3)), ["a"] * 4)
    whole = row_of(judge, DrawHere(10), CountingGenerator())
    keep = DrawAndKeep(tmp_path, DrawHere(10), piece_size=45, judged_size=20)
    generator = CountingGenerator()
    generator.stop_at = 70
    with pytest.raises(InterruptedDecodingError):
        row_of(judge, keep, generator)
    generator, before = CountingGenerator(), extractor.num_images
    assert row_of(judge, keep, generator) == whole
    assert generator.num_decoded == extractor.num_images - before == 30, "60 of 90 images were kept"
    assert row_of(judge, keep, generator) == whole
    assert generator.num_decoded == 30, "a finished evaluation is not judged again"


def test_what_the_classifiers_gathered_is_kept_as_well(tmp_path: Path) -> None:
    keep, generator = DrawAndKeep(tmp_path, DrawHere(10), judged_size=10), CountingGenerator()
    generator.stop_at = 50
    with pytest.raises(InterruptedDecodingError):
        row_of(CostJudge(), keep, generator)
    again = CountingGenerator()
    assert row_of(CostJudge(), keep, again) == row_of(CostJudge(), DrawHere(10), CountingGenerator())
    assert again.num_decoded == 40


def test_judged_images_of_another_set_are_not_taken(tmp_path: Path) -> None:
    keep, generator = DrawAndKeep(tmp_path, DrawHere(10)), CountingGenerator()
    row_of(CostJudge(), keep, generator)
    assert row_of(CostJudge(), keep, generator, 80) == row_of(CostJudge(), DrawHere(10), CountingGenerator(), 80)
    assert generator.num_decoded == 170


def test_judged_images_of_another_judge_are_refused(tmp_path: Path) -> None:
    keep = DrawAndKeep(tmp_path, DrawHere(10))
    row_of(inception_judge(ColourExtractor()), keep, CountingGenerator())
    other = InceptionJudge(ColourExtractor(), replace(statistics(), features=None), batch_size=16)
    with pytest.raises(UserError, match=r"judged_\w+\.npz: images so far are of .* 30 kept; .* judged again"):
        row_of(other, keep, CountingGenerator())


def test_speed_is_that_of_drawing_and_decoding_not_of_reading_what_was_kept(tmp_path: Path) -> None:
    generator = CountingGenerator()
    keep = DrawAndKeep(tmp_path, DrawHere(10))
    evaluator = Evaluator(generator, torch.arange(4), CostJudge(), 50, batch_size=10, draw_set=keep)
    policy = SchedulePolicy(generator.decision_space.base_schedule)
    speeds = [evaluator.evaluate_once(policy, 5)[0][IMAGES_PER_SECOND] for _ in range(2)]
    assert speeds[0] == speeds[1] > 0
