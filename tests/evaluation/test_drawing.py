from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adanat_rl.evaluation.drawing import DrawAndKeep, DrawHere, evaluation_set
from adanat_rl.generation.policies.base import FixedDecisionsPolicy, SchedulePolicy
from tests.fakes import PointGenerator

LABELS = torch.arange(4)


class InterruptedDrawingError(Exception):
    pass


class Counting:
    """Draws, and stops after some pieces."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.sizes: list[int] = []
        self._stop_after = stop_after

    def __call__(self, generator, policy, images):
        if len(self.sizes) == self._stop_after:
            raise InterruptedDrawingError
        self.sizes.append(len(images.context))
        return DrawHere(7)(generator, policy, images)


@pytest.fixture
def generator() -> PointGenerator:
    return PointGenerator("per_image", 3)


def decisions(generator: PointGenerator, count: int, seed: int) -> torch.Tensor:
    space = generator.decision_space
    actions = torch.randn(count, space.num_actions, generator=torch.Generator().manual_seed(seed))
    return torch.stack([space.decide(actions, step)[0] for step in range(generator.horizon)], dim=1)


def test_an_interrupted_drawing_goes_on_behind_its_last_piece(tmp_path: Path, generator: PointGenerator) -> None:
    images = evaluation_set(LABELS, 50, seed=1)
    policy = FixedDecisionsPolicy(decisions(generator, 50, 0))
    with pytest.raises(InterruptedDrawingError):
        DrawAndKeep(tmp_path, Counting(stop_after=2), piece_size=15)(generator, policy, images)
    again = Counting()
    resumed = DrawAndKeep(tmp_path, again, piece_size=15)(generator, policy, images)
    assert again.sizes == [15, 5], "two of four pieces were there"
    whole = DrawHere(50)(generator, policy, images)
    assert torch.equal(resumed.sample, whole.sample)
    assert torch.equal(resumed.decisions, whole.decisions)
    assert torch.equal(resumed.num_passes, whole.num_passes)


@pytest.mark.parametrize("change", ["policy", "seed", "schedule"])
def test_pieces_of_another_policy_seed_or_schedule_are_not_taken(
    tmp_path: Path, generator: PointGenerator, change: str
) -> None:
    images = evaluation_set(LABELS, 20, seed=1)
    policy = FixedDecisionsPolicy(decisions(generator, 20, 0))
    DrawAndKeep(tmp_path, DrawHere(20))(generator, policy, images)
    if change == "policy":
        policy = FixedDecisionsPolicy(decisions(generator, 20, 1))
    elif change == "seed":
        images = evaluation_set(LABELS, 20, seed=2)
    else:
        base = generator.decision_space.base_schedule.numpy() * 0.9
        generator = generator.with_base_schedule(base)
        policy = SchedulePolicy(torch.from_numpy(base).float())
    again = Counting()
    DrawAndKeep(tmp_path, again)(generator, policy, images)
    assert again.sizes == [20]
