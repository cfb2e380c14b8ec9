from __future__ import annotations

from types import SimpleNamespace

import pytest

from adanat_rl.config.loading import resolve
from adanat_rl.experiment.experiment import Experiment
from adanat_rl.generation.masked.sampler import MaskedTokenGenerator
from adanat_rl.generation.policies.build import PolicySpec


class AskedError(Exception):
    """Carries the number of images that an evaluation was asked for."""


class AskedEvaluator:
    def of_images(self, num_images: int) -> None:
        raise AskedError(num_images)


@pytest.mark.parametrize(("final", "expected"), [("80", 80), ("null", 64)])
def test_the_final_evaluation_has_images_of_its_own(
    digits_generator: MaskedTokenGenerator, final: str, expected: int
) -> None:
    config = resolve(overrides=["evaluation.num_images=64", f"evaluation.num_final_images={final}"])
    experiment = SimpleNamespace(
        config=config,
        scene=SimpleNamespace(generator=digits_generator),
        _spec=PolicySpec.of(config.policy, digits_generator),
        _evaluator=AskedEvaluator(),
    )
    with pytest.raises(AskedError) as asked:
        Experiment.compare(experiment)  # type: ignore[arg-type]
    assert asked.value.args == (expected,)
