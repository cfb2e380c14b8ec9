from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import resolve
from adanat_rl.config.schema import BaseScheduleConfig, DecisionsConfig, GeneratorConfig
from adanat_rl.generation.build import assemble_generator, base_schedule, build_decision_space, build_generator
from adanat_rl.generation.masked.patch_tokenizer import PatchTokenizer
from adanat_rl.generation.masked.schedules import hand_made_schedule
from adanat_rl.generation.weights import save_network

ROWS = [[0.5, 1.0, 1.0, 0.0], [0.0, 0.0, 0.7, 3.0]]


def test_the_generator_of_a_configuration_has_its_horizon_and_decisions() -> None:
    generator = build_generator(
        resolve(overrides=["generator.horizon=6", "decisions.learned=[guidance_scale]", "generator.block_rows=8"])
    )
    assert generator.horizon == generator.decision_space.horizon == 6
    assert generator.decision_space.learned == ("guidance_scale",)
    assert generator.block_rows == 8


def test_the_formula_takes_the_settings_of_the_configuration() -> None:
    config = BaseScheduleConfig(
        curve="linear",
        curve_power=0.5,
        confidence_temperature=2,
        sampling_temperature=0.7,
        guidance_scale=3,
        convention="adanat",
    )
    expected = hand_made_schedule(
        5,
        "linear",
        curve_power=0.5,
        confidence_temperature=2,
        sampling_temperature=0.7,
        guidance_scale=3,
        convention="adanat",
    )
    np.testing.assert_array_equal(base_schedule(config, 5), expected)


def test_the_decision_space_takes_the_settings_of_the_configuration() -> None:
    config = DecisionsConfig(residual=False, smoothing=0.3, mask_ineffective=False, sampling_temperature_floor=0.4)
    space = build_decision_space(config, 4)
    assert (space.residual, space.smoothing, space.mask_ineffective) == (False, 0.3, False)
    assert space.decide(torch.full((1, 4), -9.0), 0)[0][0, 2].item() == pytest.approx(0.4)
    lifted = build_decision_space(DecisionsConfig(base_floor=0.5), 4).decide(torch.zeros(1, 4), 0)[0]
    assert lifted[0, 3].item() == pytest.approx(0.5)  # guidance starts at 0
    kept = build_decision_space(DecisionsConfig(base_floor=None), 4).decide(torch.zeros(1, 4), 0)[0]
    assert kept[0, 3].item() == pytest.approx(0, abs=1e-6)


def test_a_schedule_file_replaces_the_formula(tmp_path: Path) -> None:
    file = tmp_path / "schedule.json"
    file.write_text(json.dumps(ROWS))
    space = build_decision_space(DecisionsConfig(base=BaseScheduleConfig(file=str(file))), 2)
    np.testing.assert_allclose(space.base_schedule, ROWS)
    with pytest.raises(UserError, match="expected 3 rows"):
        build_decision_space(DecisionsConfig(base=BaseScheduleConfig(file=str(file))), 3)


def test_a_schedule_file_may_lie_in_the_home_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "schedule.json").write_text(json.dumps(ROWS))
    np.testing.assert_allclose(base_schedule(BaseScheduleConfig(file="~/schedule.json"), 2), ROWS)


def test_missing_weights_are_named_with_the_setting(tmp_path: Path) -> None:
    for key in ("nat", "tokenizer"):
        with pytest.raises(UserError, match=rf"generator\.{key}: no such file"):
            assemble_generator(GeneratorConfig(**{key: str(tmp_path / "none")}), DecisionsConfig())
        with pytest.raises(UserError, match=rf"generator\.{key}: no such asset"):
            assemble_generator(GeneratorConfig(**{key: "asset:none"}), DecisionsConfig())


def test_weights_in_the_wrong_place_are_refused() -> None:
    shipped = GeneratorConfig()
    with pytest.raises(UserError, match="holds: patch; accepted here: transformer"):
        assemble_generator(GeneratorConfig(nat=shipped.tokenizer), DecisionsConfig())
    with pytest.raises(UserError, match="holds: transformer; accepted here: patch"):
        assemble_generator(GeneratorConfig(tokenizer=shipped.nat), DecisionsConfig())


@pytest.mark.parametrize(("vocab_size", "image_size"), [(64, 8), (128, 16)])
def test_a_nat_and_a_tokenizer_that_do_not_fit_are_refused(tmp_path: Path, vocab_size: int, image_size: int) -> None:
    arguments = {"vocab_size": vocab_size, "patch_size": 2, "image_size": image_size}
    file = tmp_path / "other.safetensors"
    save_network(file, "patch", arguments, PatchTokenizer(**arguments))
    message = rf"generator\.nat: .*predicts 128 codes on a 4×4 grid, but the tokenizer has {vocab_size} on"
    with pytest.raises(UserError, match=message):
        assemble_generator(GeneratorConfig(tokenizer=str(file)), DecisionsConfig())


def test_a_decoder_in_half_precision_shows_nearly_the_same_and_encodes_the_same() -> None:
    files = {"nat": "asset:mnist/nat.safetensors", "tokenizer": "asset:mnist/tokenizer.safetensors"}
    exact, half = (
        assemble_generator(GeneratorConfig(**files, decode_precision=precision), DecisionsConfig())
        for precision in ("float32", "bfloat16")
    )
    tokens = torch.randint(0, 128, (16, 49), generator=torch.Generator().manual_seed(1))
    images, nearly = exact.decode(tokens), half.decode(tokens)
    assert nearly.dtype == torch.float32
    error = (nearly - images).abs().mean()
    assert 1e-5 < error < 5e-3, "rounded, and nothing else"
    assert torch.equal(half.tokenizer.encode(images), exact.tokenizer.encode(images))
