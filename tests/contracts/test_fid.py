from __future__ import annotations

import torch

from adanat_rl.metrics.frechet import FrechetDistance
from tests.contracts.parity import ParityModule

MODULE = ParityModule("fid")


def test_frechet_distance_is_the_official_one() -> None:
    generated, real = MODULE.tensor("feat_a"), MODULE.tensor("feat_b")
    distance = FrechetDistance(real)
    MODULE.check("fid", torch.tensor(distance(generated)))
    MODULE.check("fid_float64", torch.tensor(distance(generated), dtype=torch.float64))
    MODULE.check("fid_self", torch.tensor(distance(real)))


def test_frechet_distance_of_fewer_images_than_features_is_the_official_one() -> None:
    distance = FrechetDistance(MODULE.tensor("feat_b"))(MODULE.tensor("feat_a")[:40])
    MODULE.check("fid_rank_deficient", torch.tensor(distance))
