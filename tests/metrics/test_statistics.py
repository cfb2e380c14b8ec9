from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import linalg

from adanat_rl.config.errors import UserError
from adanat_rl.metrics.accumulation import FeatureSet, ImageSetHash, Moments, part, ranks, under
from adanat_rl.metrics.frechet import FrechetDistance
from adanat_rl.metrics.statistics import (
    FeatureStatistics,
    FrechetReference,
    frechet_distance,
    load_statistics,
    save_statistics,
)


def correlated(seed: int, count: int, width: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + rng.normal(size=width))


def moments(features: torch.Tensor, batch_size: int = 100) -> Moments:
    result = Moments(features.shape[1])
    for batch in features.split(batch_size):
        result.add(batch)
    return result


def statistics(features: torch.Tensor, convention: str = "vendored") -> FeatureStatistics:
    return moments(features).statistics(convention)


# Moments


@pytest.mark.parametrize("count", [2, 511, 512, 1300])
def test_moments_are_numpys_mean_and_covariance(count: int) -> None:
    features = correlated(0, count, 9)
    found = statistics(features)
    assert found.count == count
    np.testing.assert_allclose(found.mean, features.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(features.T), rtol=1e-9, atol=1e-12)
    assert torch.equal(found.covariance, found.covariance.T)


def test_a_large_offset_costs_no_precision() -> None:
    features = correlated(1, 1500, 6)
    found = statistics(features + 1e7)
    np.testing.assert_allclose(found.covariance, np.cov(features.T), rtol=1e-6)


def test_batches_of_any_size_give_the_same_bits() -> None:
    features = correlated(2, 1700, 7).float()
    expected = moments(features, 1700).statistics("")
    for batch_size in (1, 64, 511, 513):
        found = moments(features, batch_size).statistics("")
        assert torch.equal(found.mean, expected.mean)
        assert torch.equal(found.covariance, expected.covariance)


def test_a_stored_state_goes_on_to_the_same_bits() -> None:
    features = correlated(3, 1400, 7).float()
    whole, half = moments(features), moments(features[:700])
    resumed = Moments.from_state(half.state())
    half.add(features[700:800])  # the state is not changed by what follows
    for batch in features[700:].split(33):
        resumed.add(batch)
    assert torch.equal(resumed.statistics("").covariance, whole.statistics("").covariance)


def test_looking_at_the_statistics_changes_nothing() -> None:
    features = correlated(4, 900, 4).float()
    watched = Moments(4)
    for batch in features.split(70):
        watched.add(batch)
        watched.statistics("")
    assert torch.equal(watched.statistics("").covariance, statistics(features).covariance)


def test_parts_of_several_workers_join_to_the_whole() -> None:
    features = correlated(5, 2000, 6)
    parts = [moments(rows) for rows in features.split([3, 1200, 0, 797])]
    joined = Moments(6)
    for each in parts:
        before = each.statistics("").mean if each.count > 1 else None
        joined.merge(each)
        assert before is None or torch.equal(each.statistics("").mean, before)
    found = joined.statistics("")
    assert found.count == 2000
    np.testing.assert_allclose(found.mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(features.T), rtol=1e-9)


def test_features_that_are_not_finite_or_too_few_are_refused() -> None:
    several = Moments(2)
    with pytest.raises(ValueError, match="not finite"):
        several.add(torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(ValueError, match=r"\[1, 3\], expected \[N, 2\]"):
        several.add(torch.ones(1, 3))
    several.add(torch.ones(1, 2))
    with pytest.raises(ValueError, match="2 images or more on either side; features are of 1"):
        several.statistics("")


# Sets of indexed images


def test_kept_features_depend_on_the_images_alone() -> None:
    features = correlated(6, 50, 3).float()
    orders = (np.arange(50), np.random.default_rng(0).permutation(50))
    found = []
    for order in orders:
        images = FeatureSet(50, 3, num_kept=8)
        for rows in np.array_split(order, 7):
            images.add(features[rows], images.claim(len(rows), rows))
        found.append(images.kept())
    first = [int(np.flatnonzero(ranks(50) == place)[0]) for place in range(8)]
    assert torch.equal(found[0], features[first])
    assert torch.equal(found[1], found[0])


def test_the_shuffle_is_a_fixed_permutation() -> None:
    assert sorted(ranks(100)) == list(range(100))
    assert np.array_equal(ranks(100), np.argsort(np.random.RandomState(2020).permutation(100)))


def test_resumption_gathers_the_same_set() -> None:
    features = correlated(7, 60, 3).float()
    whole, first = FeatureSet(60, 3, num_kept=20), FeatureSet(60, 3, num_kept=20)
    whole.add(features, whole.claim(60))
    first.add(features[::2], first.claim(30, np.arange(0, 60, 2)))
    resumed = FeatureSet.from_state(part(under("x", first.state()), "x"))
    assert resumed.missing().tolist() == list(range(1, 60, 2))
    resumed.add(features[1::2], resumed.claim(30))
    assert torch.equal(resumed.kept(), whole.kept())
    assert len(resumed.missing()) == 0
    torch.testing.assert_close(resumed.moments.statistics("").mean, whole.moments.statistics("").mean)


def test_an_image_out_of_place_is_refused() -> None:
    images = FeatureSet(10, 2, num_kept=4)
    images.add(torch.ones(3, 2), images.claim(3))
    with pytest.raises(ValueError, match="came twice"):
        images.claim(2, np.array([5, 2]))
    with pytest.raises(ValueError, match="came twice"):
        images.claim(2, np.array([5, 5]))
    with pytest.raises(ValueError, match="of 10"):
        images.claim(1, np.array([10]))
    with pytest.raises(ValueError, match="8 images for the places"):
        images.claim(8)


def test_the_hash_of_a_set_knows_its_images_and_not_their_order() -> None:
    images = torch.rand(9, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    whole, first = ImageSetHash(), ImageSetHash()
    whole.add(images)
    first.add(images[4:].flip(0))
    joined = ImageSetHash.from_hexdigest(first.hexdigest())
    joined.add((images[:4] * 255).round().byte())
    assert joined.hexdigest() == whole.hexdigest()
    assert len(whole.hexdigest()) == 64
    other = ImageSetHash()
    other.add(torch.cat([images[:8], 1 - images[8:]]))
    turned = ImageSetHash()
    turned.add(images.reshape(9, 3, 4, 5))
    assert len({whole.hexdigest(), other.hexdigest(), turned.hexdigest()}) == 3


# Distances


@pytest.mark.parametrize(("num_real", "num_generated", "width"), [(300, 200, 12), (50, 2000, 5), (120, 90, 30)])
def test_distance_agrees_with_the_matrix_square_root_and_torchmetrics(
    num_real: int, num_generated: int, width: int
) -> None:
    real, generated = correlated(0, num_real, width), correlated(1, num_generated, width)
    root = linalg.sqrtm(np.cov(real.T) @ np.cov(generated.T))
    shift = real.numpy().mean(0) - generated.numpy().mean(0)
    by_root = shift @ shift + np.trace(np.cov(real.T)) + np.trace(np.cov(generated.T)) - 2 * np.trace(root).real
    found = frechet_distance(statistics(real), statistics(generated))
    assert found == pytest.approx(by_root, rel=1e-8)
    assert found == pytest.approx(FrechetDistance(real)(generated), rel=1e-8)


def test_distance_does_not_depend_on_the_order_and_is_zero_to_itself() -> None:
    first, second = statistics(correlated(0, 300, 20)), statistics(correlated(1, 12, 20))  # second: rank deficient
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-6)
    for each in (first, second):
        assert frechet_distance(each, each) == pytest.approx(0, abs=1e-5)


def test_a_shift_adds_its_squared_length() -> None:
    real = correlated(2, 400, 3)
    moved = statistics(real + torch.tensor([1.0, -2.0, 0.5]))
    assert FrechetReference(statistics(real)).distance(moved) == pytest.approx(5.25, rel=1e-8)


def test_sets_that_do_not_compare_are_refused() -> None:
    real = replace(statistics(correlated(0, 50, 4)), extractor_hash="a" * 64)
    reference = FrechetReference(real)
    with pytest.raises(UserError, match="resize convention of one is vendored, of the other torch_fidelity"):
        reference.distance(replace(real, convention="torch_fidelity"))
    with pytest.raises(UserError, match="extractor of one is aaaaaaaaaaaa, of the other b"):
        reference.distance(replace(real, extractor_hash="b" * 64))
    with pytest.raises(UserError, match="features per image of one is 4, of the other 3"):
        reference.distance(statistics(correlated(0, 50, 3)))
    assert reference.distance(replace(real, extractor_hash="")) == pytest.approx(0, abs=1e-6)


# Files


@pytest.fixture
def full() -> FeatureStatistics:
    features = correlated(8, 40, 5)
    return moments(features).statistics("torch_fidelity", "e" * 64, "d" * 64, features[:6].float())


def test_a_file_gives_back_everything(tmp_path, full: FeatureStatistics) -> None:
    save_statistics(tmp_path / "a.npz", full)
    found = load_statistics(tmp_path / "a.npz")
    assert (found.count, found.convention) == (40, "torch_fidelity")
    assert (found.extractor_hash, found.data_hash) == ("e" * 64, "d" * 64)
    assert found.features is not None
    for ours, theirs in ((found.mean, full.mean), (found.covariance, full.covariance), (found.features, full.features)):
        assert torch.equal(ours, theirs)
    save_statistics(tmp_path / "b.npz", found)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_others_read_our_file_by_its_usual_names(tmp_path, full: FeatureStatistics) -> None:
    save_statistics(tmp_path / "a.npz", full)
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file["mu"], full.mean)
        np.testing.assert_array_equal(file["sigma"], full.covariance)


def test_a_file_of_others_needs_its_convention_named(tmp_path, full: FeatureStatistics) -> None:
    path = tmp_path / "fid_stats.npz"
    np.savez(path, mu=full.mean.numpy(), sigma=full.covariance.numpy(), extra=np.zeros(3))
    with pytest.raises(UserError, match="does not say its resize convention; name it: torch_fidelity or vendored"):
        load_statistics(path)
    found = load_statistics(path, "vendored")
    assert (found.convention, found.count, found.extractor_hash, found.data_hash) == ("vendored", None, "", "")
    assert found.features is None
    assert torch.equal(found.covariance, full.covariance)
    with pytest.raises(UserError, match="accepted: torch_fidelity, vendored"):
        load_statistics(path, "other")


def test_single_precision_and_pickled_neighbours_do_not_hinder(tmp_path, full: FeatureStatistics) -> None:
    path = tmp_path / "fid_stats.npz"
    sigma = full.covariance.float().numpy()
    sigma[0, 1] *= 1 + 1e-6
    np.savez(path, mu=full.mean.float().numpy(), sigma=sigma, notes=np.array({"any": "object"}, dtype=object))
    found = load_statistics(path, "vendored")
    assert found.covariance.dtype == torch.float64
    assert torch.equal(found.covariance, found.covariance.T)
    torch.testing.assert_close(found.covariance, full.covariance, rtol=1e-5, atol=1e-5)


def test_a_file_of_another_convention_is_refused(tmp_path, full: FeatureStatistics) -> None:
    save_statistics(tmp_path / "a.npz", full)
    with pytest.raises(UserError, match="made with the resize convention torch_fidelity, not vendored"):
        load_statistics(tmp_path / "a.npz", "vendored")


EYE = np.eye(3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(3)}, "holds no Fréchet statistics"),
        ({"mu": np.zeros(4), "sigma": EYE}, r"mu is \[4\] and sigma \[3, 3\]"),
        ({"mu": np.zeros((2, 3)), "sigma": EYE}, r"mu is \[2, 3\]"),
        ({"mu": np.zeros(3), "sigma": np.eye(3, dtype=int)}, "expected floats"),
        ({"mu": np.array([0, np.nan, 0]), "sigma": EYE}, "not finite"),
        ({"mu": np.zeros(3), "sigma": EYE + np.eye(3, k=1)}, "not symmetric"),
        ({"mu": np.zeros(3), "sigma": -EYE}, "negative on its diagonal"),
        ({"mu": np.array([None] * 3), "sigma": EYE}, "damaged or no .npz of plain arrays"),
        ({"mu": np.zeros(3), "sigma": EYE, "features": np.zeros((2, 4))}, r"expected float \[M, 3\]"),
        ({"mu": np.zeros(3), "sigma": EYE, "format": np.array("later")}, "is of format 'later'"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path, arrays: dict, message: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=message):
        load_statistics(tmp_path / "x.npz", "vendored")


@pytest.mark.parametrize("shape", [(1, 3), (3, 1)])
def test_a_mean_written_as_a_row_or_a_column_is_read(tmp_path, shape: tuple[int, int]) -> None:
    np.savez(tmp_path / "x.npz", mu=np.array([1.0, 2, 3]).reshape(shape), sigma=EYE)
    assert load_statistics(tmp_path / "x.npz", "vendored").mean.tolist() == [1, 2, 3]


def test_a_variance_below_zero_by_rounding_counts_as_zero(tmp_path) -> None:
    np.savez(tmp_path / "x.npz", mu=np.zeros(3), sigma=np.diag([1.0, 2.0, -1e-17]))
    assert load_statistics(tmp_path / "x.npz", "vendored").covariance.diagonal().tolist() == [1, 2, 0]


def test_a_missing_or_damaged_file_is_one_line(tmp_path, full: FeatureStatistics) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_statistics(tmp_path / "none.npz")
    path = tmp_path / "a.npz"
    save_statistics(path, full)
    whole = path.read_bytes()
    for damaged in (b"", b"text", whole[: len(whole) // 2], whole[:200] + b"\xff\x00" + whole[202:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            load_statistics(path)
