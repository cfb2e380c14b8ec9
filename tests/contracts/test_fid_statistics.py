from __future__ import annotations

import torch

from adanat_rl.metrics.accumulation import Moments
from adanat_rl.metrics.scores import inception_score
from adanat_rl.metrics.statistics import FeatureStatistics, frechet_distance
from tests.contracts.parity import ParityModule

MODULE = ParityModule("fid")


def statistics(features: torch.Tensor) -> FeatureStatistics:
    moments = Moments(features.shape[1])
    for batch in features.split(100):
        moments.add(batch)
    return moments.statistics("")


def test_distance_of_streamed_statistics_is_the_official_one() -> None:
    generated, real = statistics(MODULE.tensor("feat_a")), statistics(MODULE.tensor("feat_b"))
    MODULE.check("fid", torch.tensor(frechet_distance(real, generated)))
    MODULE.check("fid_float64", torch.tensor(frechet_distance(real, generated), dtype=torch.float64))
    MODULE.check("fid_self", torch.tensor(frechet_distance(real, real)))


def test_distance_of_fewer_images_than_features_is_the_official_one() -> None:
    few = statistics(MODULE.tensor("feat_a")[:40])
    MODULE.check("fid_rank_deficient", torch.tensor(frechet_distance(statistics(MODULE.tensor("feat_b")), few)))


def test_inception_score_is_the_official_one_with_and_without_its_shuffle() -> None:
    logits = MODULE.tensor("is_logits")
    MODULE.check("is", torch.tensor(inception_score(logits)[0], dtype=torch.float64))
    MODULE.check("is_noshuffle", torch.tensor(inception_score(logits, shuffle=False)[0], dtype=torch.float64))
    assert abs(float(MODULE["is"]) - float(MODULE["is_noshuffle"])) > 1e-3  # the two say something
