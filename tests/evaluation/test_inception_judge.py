from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from adanat_rl.config.errors import UserError
from adanat_rl.evaluation.inception_judge import KID, Evaluated, InceptionJudge, Judged
from adanat_rl.evaluation.judge import FD_A, FD_B, INCEPTION_SCORE, PRECISION, RECALL
from adanat_rl.metrics.frechet import FrechetDistance
from adanat_rl.metrics.inception import InceptionExtractor, InceptionV3
from adanat_rl.metrics.manifold import precision_recall
from adanat_rl.metrics.reference_set import ReferenceSet
from adanat_rl.metrics.scores import inception_score, kernel_distance
from adanat_rl.metrics.statistics import FeatureStatistics, load_statistics, save_statistics
from tests.metrics.fake_extractor import FakeExtractor

GENERATOR = torch.Generator().manual_seed(0)
REAL = torch.rand(80, 3, 8, 8, generator=GENERATOR)
IMAGES = torch.rand(50, 3, 8, 8, generator=GENERATOR) ** 1.3
LABELS = torch.arange(50) % 10
SECOND = FakeExtractor(seed=1, name="other features")


def statistics(extractor: FakeExtractor, num_kept: int = 80) -> FeatureStatistics:
    reference = ReferenceSet(extractor, len(REAL), num_kept)
    reference.add(REAL)
    return reference.statistics()


def judge(extractor: FakeExtractor | None = None, **settings) -> InceptionJudge:
    extractor = extractor or FakeExtractor()
    return InceptionJudge(extractor, statistics(extractor), batch_size=7, **settings)


def full(**settings) -> InceptionJudge:
    """With everything that can be measured."""
    return judge(second=Judged(SECOND, statistics(SECOND)), num_kid_subsets=3, **settings)


def added(to: InceptionJudge, rows: slice, evaluated: Evaluated | None = None) -> Evaluated:
    evaluated = evaluated or to.begin(50)
    evaluated.add(IMAGES[rows], LABELS[rows])
    return evaluated


def test_numbers_are_those_of_all_features_at_once() -> None:
    row = full()(IMAGES, LABELS)
    features, logits = FakeExtractor().features_and_logits(IMAGES)
    real = FakeExtractor()(REAL)
    assert row[FD_A] == pytest.approx(FrechetDistance(real)(features), rel=1e-6)
    assert row[FD_B] == pytest.approx(FrechetDistance(SECOND(REAL))(SECOND(IMAGES)), rel=1e-6)
    assert row[INCEPTION_SCORE] == pytest.approx(inception_score(logits)[0], rel=1e-6)
    assert (row[PRECISION], row[RECALL]) == pytest.approx(precision_recall(real, features))
    assert 0 < row[PRECISION] < 1
    assert row[FD_A] > 0.1


def test_kid_is_that_of_the_kept_features() -> None:
    whole = full()
    kept = whole.real_features
    assert kept is not None
    order = np.random.RandomState(2020).permutation(50)
    features = FakeExtractor()(IMAGES)[torch.from_numpy(order)]
    assert whole(IMAGES, LABELS)[KID] == pytest.approx(kernel_distance(kept, features, 3)[0], rel=1e-6)


def test_the_distance_alone_is_that_of_the_row() -> None:
    assert judge().distance(IMAGES.split(30)) == pytest.approx(judge()(IMAGES, LABELS)[FD_A], rel=1e-8)


def test_what_cannot_be_measured_is_not_in_the_row() -> None:
    bare = InceptionJudge(FakeExtractor(), statistics(FakeExtractor(), num_kept=0))
    assert set(bare(IMAGES, LABELS)) == {FD_A, INCEPTION_SCORE} == set(bare.titles(50))
    assert (
        set(full()(IMAGES, LABELS)) == {FD_A, FD_B, INCEPTION_SCORE, PRECISION, RECALL, KID} == set(full().titles(50))
    )
    with pytest.raises(UserError, match="KID needs features of real images"):
        InceptionJudge(FakeExtractor(), statistics(FakeExtractor(), num_kept=0), num_kid_subsets=3)


@pytest.mark.parametrize("batch_size", [1, 9, 50])
def test_batches_of_a_stream_give_the_numbers_of_the_whole(batch_size: int) -> None:
    evaluated = full().begin(50)
    for images, labels in zip(IMAGES.split(batch_size), LABELS.split(batch_size), strict=True):
        evaluated.add(images, labels)
    assert evaluated.result() == pytest.approx(full()(IMAGES, LABELS), rel=1e-5)


def test_an_evaluation_goes_on_from_its_state_to_the_same_bits() -> None:
    whole = full(num_kept=20)
    first = added(whole, slice(0, 21))
    extractor = FakeExtractor()
    again = judge(extractor, second=Judged(SECOND, statistics(SECOND)), num_kid_subsets=3, num_kept=20)
    before = extractor.num_images
    resumed = again.begin(50)
    resumed.restore(first.state())
    assert resumed.count == 21
    for evaluated in (first, resumed):
        added(whole, slice(21, 50), evaluated)
    assert resumed.result() == first.result() == added(whole, slice(0, 50)).result()
    assert extractor.num_images - before == 29  # nothing was looked at twice


def test_an_evaluation_that_had_not_begun_is_resumed_as_well() -> None:
    resumed = judge().begin(50)
    resumed.restore(judge().begin(50).state())
    assert added(judge(), slice(0, 50), resumed).result() == judge()(IMAGES, LABELS)


def test_a_state_of_another_evaluation_is_refused() -> None:
    state = judge().begin(50).state()
    judge().begin(50).restore(state)
    for other, num_images in (
        (judge(), 60),
        (judge(FakeExtractor(seed=2)), 50),
        (judge(FakeExtractor(convention="torch_fidelity")), 50),
        (judge(num_kept=3), 50),
    ):
        with pytest.raises(
            UserError, match=r"images so far are of fake features .*50 images, 5000 kept; this evaluation is"
        ):
            other.begin(num_images).restore(state)


def test_missing_or_surplus_images_are_refused() -> None:
    whole = judge()
    evaluated = added(whole, slice(0, 30))
    with pytest.raises(ValueError, match="20 of 50 images are still to come"):
        evaluated.result()
    with pytest.raises(ValueError, match="3 images for 2 labels"):
        evaluated.add(IMAGES[:3], LABELS[:2])
    added(whole, slice(30, 50), evaluated)
    with pytest.raises(ValueError, match="of 50"):
        evaluated.add(IMAGES[:3], LABELS[:3])
    with pytest.raises(ValueError, match="2 images or more"):
        whole.begin(1)


def test_statistics_of_another_convention_or_network_are_refused() -> None:
    extractor = FakeExtractor()
    with pytest.raises(UserError, match="convention of one is torch_fidelity, of the other vendored"):
        InceptionJudge(extractor, replace(statistics(extractor), convention="torch_fidelity"))
    with pytest.raises(UserError, match="extractor of one is"):
        InceptionJudge(extractor, statistics(FakeExtractor(seed=3)))


def test_titles_say_network_convention_and_counts() -> None:
    titles = full().titles(50_000)
    assert titles[FD_A] == "FD (features of fake features, vendored resize; 80 real), 50,000 generated"
    assert titles[FD_B].startswith("FD (features of other features")
    assert titles[INCEPTION_SCORE] == "Inception score (fake features, vendored resize), 50,000 generated, 10 splits"
    assert titles[PRECISION] == "Precision (fake features, vendored resize), 5,000 generated, 80 real"
    assert titles[KID] == "KID (fake features, vendored resize), 5,000 generated, 80 real, 3 subsets"
    assert judge().names.fd_b == ""


def test_the_inception_network_alone_makes_it_fid(tmp_path) -> None:
    extractor = InceptionExtractor(InceptionV3())
    reference = ReferenceSet(extractor, 4, num_kept=4)
    reference.add(REAL[:4])
    save_statistics(tmp_path / "real.npz", reference.statistics())
    inception = InceptionJudge(extractor, load_statistics(tmp_path / "real.npz"))
    assert inception.names.fd_a == "FID (Inception-v3, torch_fidelity resize; 4 real)"
    unknown = replace(inception.real, count=None)
    assert "an unknown number of real images" in InceptionJudge(extractor, unknown).names.fd_a
    evaluated = inception.begin(5)
    evaluated.add(IMAGES[:5], LABELS[:5])
    row = evaluated.result()
    assert set(row) == {FD_A, INCEPTION_SCORE, PRECISION, RECALL}
    assert all(np.isfinite(value) for value in row.values())


def grouped(num_images: int = 230) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(num_images, 3, 8, 8, generator=generator) ** 1.3, torch.arange(num_images) * 7 % 10


def judged(images: torch.Tensor, labels: torch.Tensor) -> Evaluated:
    whole = full()
    evaluated = whole.begin(len(images))
    evaluated.add(images, labels)
    return evaluated


def test_replicates_are_a_jackknife_over_groups_that_hold_each_class_evenly() -> None:
    images, labels = grouped()
    evaluated = judged(images, labels)
    found, row = evaluated.replicates(), evaluated.result()
    group, seen, order = np.zeros(len(labels), int), {}, []
    for place, label in enumerate(labels.tolist()):
        order += [label] if label not in order else []
        seen[label] = seen.get(label, -1) + 1
        group[place] = (order.index(label) + seen[label]) % 4
    assert all(5 <= int(((group == g) & (labels.numpy() == k)).sum()) <= 6 for g in range(4) for k in range(10))
    for key, extractor in ((FD_A, FakeExtractor()), (FD_B, SECOND)):
        real, drawn = extractor(REAL), extractor(images)
        without = np.array([FrechetDistance(real)(drawn[torch.from_numpy(group != g)]) for g in range(4)])
        expected = FrechetDistance(real)(drawn) - 3 * (without - without.mean())
        assert found[key] == pytest.approx(expected.tolist(), rel=1e-5)
        assert np.mean(found[key]) == pytest.approx(row[key])
    assert len(found[INCEPTION_SCORE]) == 10
    assert np.mean(found[INCEPTION_SCORE]) == pytest.approx(row[INCEPTION_SCORE])
    assert found.keys() == {FD_A, FD_B, INCEPTION_SCORE}


def test_replicates_go_on_from_a_state_to_the_same_bits() -> None:
    images, labels = grouped()
    first, second = full().begin(230), full().begin(230)
    first.add(images[:77], labels[:77])
    second.restore(first.state())
    for evaluated in (first, second):
        evaluated.add(images[77:], labels[77:])
    assert first.replicates() == second.replicates() == judged(images, labels).replicates()


def test_images_that_are_few_or_fewer_than_features_have_no_replicates() -> None:
    assert judged(IMAGES, LABELS).replicates() == {}
    wide = FakeExtractor()
    wide.num_features = 180
    assert judge().groups(wide, 230) is None
    assert judge().groups(wide, 250) is not None
