"""Parts of different shapes are told before anything starts, with the preset that was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import resolve
from adanat_rl.config.schema import ExperimentConfig
from adanat_rl.experiment.build import complete_known_inputs

MISFITS = {
    "data.name=mnist": ("images of mnist are 28×28 in grey", "draws are 8×8 in grey", "--preset mnist"),
    "generator.nat=asset:mnist/nat.safetensors": ("on a 7×7 grid, but the tokenizer has 128 on 4×4", "--preset mnist"),
    "reward.kind=fid reward.fid.weights=asset:mnist/judge_a.safetensors": ("takes images of 28×28", "are 8×8"),
    "reward.kind=classifier reward.classifier.weights=asset:mnist/classifier_c.safetensors": ("takes images of 28×28",),
    "evaluation.reference=asset:mnist/reference.json": ("holds baselines of mnist, the data is digits",),
    "evaluation.judge=inception": ("takes images in colour; those of digits are grey",),
    "data.name=cifar10 data.path=. data.image_size=32": ("32×32 in colour", "8×8 in grey"),
    "data.name=image_folder data.path=. data.image_size=512": ("--preset imagenet512",),
}


@pytest.mark.parametrize("typed", MISFITS)
def test_parts_that_do_not_fit_are_named_with_the_preset_that_was_meant(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        complete_known_inputs(resolve(None, None, typed.split()))
    for part in MISFITS[typed]:
        assert part in str(caught.value)


@pytest.mark.parametrize("preset", ["digits", "mnist", "imagenet256", "coco", "cc3m", "adagen_maskgit", "imagenet512"])
def test_presets_fit_themselves(preset: str) -> None:
    config = complete_known_inputs(resolve(preset))
    assert (config.preset, config.data) == (preset, resolve(preset).data), "nothing was put right in silence"


def test_a_network_for_which_there_is_no_memory_is_refused() -> None:
    config = ExperimentConfig()
    policy = config.policy.model_copy(update={"hidden_size": 400_000})
    with pytest.raises(UserError, match=r"policy\.hidden_size: 400000 is not accepted"):
        complete_known_inputs(config.model_copy(update={"policy": policy}))
