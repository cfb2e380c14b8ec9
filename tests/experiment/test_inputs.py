from __future__ import annotations

from pathlib import Path

import pytest

from adanat_rl.config.loading import resolve
from adanat_rl.experiment.contents import contents_of
from adanat_rl.experiment.inputs import missing_inputs, with_absolute_paths


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


def test_networks_for_photos_and_their_statistics_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "real.npz").touch()
    photos = (f"evaluation.dinov2={tmp_path}/dinov2", f"evaluation.clip={tmp_path}/clip")
    statistics = f"data.statistics={tmp_path}/real.npz"
    config = resolve("imagenet256", overrides=[statistics, *photos])
    missing = {one.path: one.refusal for one in missing_inputs(config)}
    assert "a folder of transformers" in missing[f"{tmp_path}/dinov2"]
    refusal = missing[f"{tmp_path}/real.clip.npz"]
    assert refusal.startswith(f"data.statistics: no such file: {tmp_path}/real.clip.npz")
    assert "the same for evaluation.clip; to get them: adanat-rl prepare --statistics" in refusal
    assert f"{tmp_path}/real.dinov2.npz" in missing
    assert f"{tmp_path}/real.npz" not in missing
    (tmp_path / "clip").mkdir()
    for file in ("clip/config.json", "real.clip.npz"):
        (tmp_path / file).write_text("{}")
    left = {one.path for one in missing_inputs(config)}
    assert not left & {f"{tmp_path}/clip", f"{tmp_path}/real.clip.npz"}
    contents = contents_of(resolve(overrides=["evaluation.judge=inception", *photos, statistics]))
    assert {"evaluation.clip", "data.statistics clip"} <= contents.keys()
    assert not {"evaluation.dinov2", "data.statistics dinov2"} & contents.keys()
