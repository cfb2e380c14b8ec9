"""Variance split, intervals and gains against an independent computation and simulated truth."""

from __future__ import annotations

import numpy as np
import pytest

from adanat_rl.evaluation.probe_statistics import (
    best_level_bound,
    bootstrap_weights,
    chosen_gain,
    cross_predict,
    estimates,
    explained,
    own_choice_gain,
    shrink,
    split_variance,
)


def test_parts_add_up_and_equal_a_plain_analysis_of_variance() -> None:
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(3, 5, 4, 2)) + rng.normal(size=(3, 5, 1, 2)) + rng.normal(size=(3, 1, 1, 2))
    parts = split_variance(effects, np.ones((1, 3, 5)))
    for level in range(2):
        e = effects[..., level]
        noise = sum(e[c, i].var(ddof=1) for c in range(3) for i in range(5)) / 15
        within = sum(e[c].mean(axis=1).var(ddof=1) for c in range(3)) / 3
        class_means = [e[c].mean() for c in range(3)]
        assert parts.noise[0, level] == pytest.approx(noise)
        assert parts.images[0, level] == pytest.approx(within - noise / 4)
        assert parts.classes[0, level] == pytest.approx(np.var(class_means) - within / 5 * 2 / 3)
        assert parts.mean[0, level] == pytest.approx(e.mean() ** 2 - within / 15)
        together = parts.mean + parts.classes + parts.images + parts.noise
        assert together[0, level] == pytest.approx((e**2).mean())


TRUTH = {"mean": 0.09, "classes": 0.14, "images": 0.25, "noise": 1.0}
_CLASS_EFFECTS = np.array([-0.5, 0.1, 0.4])


def simulate(rng: np.random.Generator, per_class: int, repeats: int) -> np.ndarray:
    fixed = 0.3 + _CLASS_EFFECTS - _CLASS_EFFECTS.mean()
    images = rng.normal(0, 0.5, (3, per_class, 1, 1))
    return fixed[:, None, None, None] + images + rng.normal(0, 1, (3, per_class, repeats, 1))


def test_the_split_is_unbiased() -> None:
    rng = np.random.default_rng(1)
    found = [split_variance(simulate(rng, 4, 3), np.ones((1, 3, 4))) for _ in range(4000)]
    for part, truth in TRUTH.items():
        values = np.array([getattr(parts, part)[0, 0] for parts in found])
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(len(values)), part
    assert min(parts.images[0, 0] for parts in found) < 0, "small true parts come out negative now and then"


def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(2)
    weights = bootstrap_weights(3, 25, 300, rng)
    hits = dict.fromkeys(TRUTH, 0)
    for _ in range(200):
        parts = split_variance(simulate(rng, 25, 4), weights)
        for part, truth in TRUTH.items():
            found = estimates(getattr(parts, part))[0]
            hits[part] += found.low <= truth <= found.high
    assert all(175 <= count <= 200 for count in hits.values()), hits


def test_a_choice_counts_by_what_it_achieves_and_no_change_is_a_choice() -> None:
    expected = np.array([[-0.1, -0.2], [0.1, 0.3], [0.2, -1.0]])
    achieved = np.array([[5.0, 5.0], [1.0, 2.0], [-3.0, 7.0]])
    assert chosen_gain(expected, achieved).tolist() == [0.0, 2.0, -3.0]


def test_the_bound_of_the_best_level_holds_and_is_met() -> None:
    rng = np.random.default_rng(3)
    sds = np.array([0.5, 1.0, 2.0])
    draws = rng.normal(size=(100_000, 3)) * sds
    gain = np.maximum(draws.max(axis=1), 0).mean()
    bound = best_level_bound(sds[None] ** 2)[0]
    assert 0.5 * bound < gain < bound
    two = rng.choice([-1.0, 1.0], 10_000)  # one level, worth 1 or -1: half of the bound's square root of 1/2
    assert np.maximum(two, 0).mean() < best_level_bound(np.ones((1, 1)))[0]


def test_knowing_images_that_do_not_differ_gains_nothing() -> None:
    rng = np.random.default_rng(4)
    gains = [own_choice_gain(rng.normal(0, 1, (3, 20, 6, 2))).mean() for _ in range(60)]
    assert abs(np.mean(gains)) < 4 * np.std(gains) / np.sqrt(60)


def test_predictions_come_from_other_images_alone() -> None:
    rng = np.random.default_rng(5)
    features, effects = rng.normal(size=(3, 10, 6)), rng.normal(size=(3, 10, 2))
    before = cross_predict(features, effects, np.random.default_rng(0))
    changed = effects.copy()
    changed[1, 4] += 100.0
    after = cross_predict(features, changed, np.random.default_rng(0))
    for name in ("overall", "by_class", "by_features"):
        np.testing.assert_array_equal(getattr(before, name)[1, 4], getattr(after, name)[1, 4])
        assert not np.array_equal(getattr(before, name), getattr(after, name))


def test_what_features_explain_is_the_true_part_and_no_noise() -> None:
    rng = np.random.default_rng(6)
    features = rng.normal(size=(4, 200, 8))
    told = features[..., :1] @ np.array([[0.5, 0.0]])
    effects = told + rng.normal(size=(4, 1, 2)) + rng.normal(size=(4, 200, 2))
    lowered = explained(effects, cross_predict(features, effects, rng)).mean(axis=(0, 1))
    assert lowered[0] == pytest.approx(0.25, abs=0.07)
    assert lowered[1] == pytest.approx(0.0, abs=0.02)


def test_class_means_shrink_by_how_much_of_them_is_error() -> None:
    means = np.array([[[1.0, 1.0]], [[3.0, 3.0]]])  # variance 2 each
    np.testing.assert_allclose(shrink(means, np.array([0.0, 0.5]))[:, 0], [[1.0, 1.25], [3.0, 2.75]])
    np.testing.assert_allclose(shrink(means, np.array([2.0, 5.0])), np.full((2, 1, 2), 2.0))
    np.testing.assert_allclose(shrink(means[:1], np.ones(2)), means[:1]), "one class is its own mean"
