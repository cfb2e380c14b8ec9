from __future__ import annotations

import numpy as np
import pytest
import torch

from adanat_rl.config.errors import UserError
from adanat_rl.metrics.reference_set import ReferenceSet
from tests.metrics.fake_extractor import FakeExtractor

IMAGES = torch.rand(30, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def gathered(index: np.ndarray | None = None, num_kept: int = 7) -> ReferenceSet:
    reference = ReferenceSet(FakeExtractor(), 30, num_kept, batch_size=4)
    rows = np.arange(30) if index is None else index
    reference.add(IMAGES[rows], rows)
    return reference


def test_statistics_are_those_of_the_features_and_say_where_they_come_from() -> None:
    found = gathered().statistics()
    features = FakeExtractor()(IMAGES)
    np.testing.assert_allclose(found.mean, features.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.covariance, np.cov(features.T), rtol=1e-4, atol=1e-7)
    assert (found.count, found.convention) == (30, "vendored")
    assert found.extractor_hash == FakeExtractor().content_hash()
    assert found.features is not None
    assert found.features.shape == (7, 6)
    assert gathered(num_kept=0).statistics().features is None


def test_images_in_another_order_give_the_statistics_of_the_whole() -> None:
    found, whole = gathered(np.random.default_rng(0).permutation(30)).statistics(), gathered().statistics()
    assert found.data_hash == whole.data_hash
    torch.testing.assert_close(found.covariance, whole.covariance)
    torch.testing.assert_close(found.features, whole.features)


def test_a_saved_set_goes_on(tmp_path) -> None:
    first = gathered(np.arange(13))
    first.save(tmp_path / "state.npz")
    again = ReferenceSet(FakeExtractor(), 30, 7, batch_size=4)
    again.restore(tmp_path / "state.npz")
    assert again.missing().tolist() == list(range(13, 30))
    again.add(IMAGES[13:])
    first.add(IMAGES[13:])
    assert torch.equal(again.statistics().covariance, first.statistics().covariance)
    assert again.statistics().data_hash == gathered().statistics().data_hash


def test_a_damaged_image_may_be_left_out() -> None:
    kept = np.delete(np.arange(30), 11)
    found = gathered(kept).statistics()
    assert found.count == 29
    np.testing.assert_allclose(found.mean, FakeExtractor()(IMAGES[kept]).mean(0), rtol=1e-5)
    assert found.data_hash != gathered().statistics().data_hash


def test_a_state_of_another_extractor_or_size_is_refused(tmp_path) -> None:
    gathered().save(tmp_path / "state.npz")
    for other in (ReferenceSet(FakeExtractor(seed=1), 30, 7), ReferenceSet(FakeExtractor(), 31, 7)):
        with pytest.raises(UserError, match="was made for fake features"):
            other.restore(tmp_path / "state.npz")
