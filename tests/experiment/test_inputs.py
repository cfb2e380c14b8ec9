from __future__ import annotations

from pathlib import Path

import pytest

from adanat_rl.config.loading import resolve
from adanat_rl.experiment.inputs import with_absolute_paths


def test_paths_hold_in_every_folder_and_assets_stay_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = with_absolute_paths(resolve("cc3m", overrides=["generator.tokenizer=asset:mnist/tokenizer.safetensors"]))
    assert config.generator.nat == str(tmp_path / "weights" / "cc3m" / "nat.safetensors")
    assert config.generator.tokenizer == "asset:mnist/tokenizer.safetensors"
    assert config.generator.captions == str(tmp_path / "weights" / "captions" / "cc3m")
    assert config.data.path == str(tmp_path / "data" / "cc3m" / "train.tsv")
    assert config.reward.adversarial.features == str(tmp_path / "weights" / "dino_vits16.safetensors")
    assert with_absolute_paths(config).model_dump() == config.model_dump()


def test_a_configuration_of_assets_alone_does_not_change() -> None:
    config = resolve()
    assert with_absolute_paths(config).model_dump() == config.model_dump()
