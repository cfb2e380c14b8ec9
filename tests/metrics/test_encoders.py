"""DINOv2 and CLIP as feature spaces: against transformers with pixels of Pillow and NumPy, and what they refuse."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPVisionModelWithProjection, Dinov2Model

from adanat_rl.config.errors import UserError
from adanat_rl.generation.text.local import load_model
from adanat_rl.metrics.checks import NonFiniteError
from adanat_rl.metrics.clip_images import ClipImageEncoder, clip_projection
from adanat_rl.metrics.dinov2 import Dinov2Encoder
from adanat_rl.metrics.encoders import ImageEncoder
from tests import tiny_clip, tiny_dinov2
from tests.tiny_clip import write_tiny_clip
from tests.tiny_dinov2 import write_tiny_dinov2

Load = Callable[..., ImageEncoder]
BOTH = pytest.mark.parametrize(("name", "load"), [("dinov2", Dinov2Encoder), ("clip", ClipImageEncoder)])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("networks")
    write_tiny_dinov2(root / "dinov2")
    write_tiny_clip(root / "clip")
    return root


def images(count: int = 5, size: int = 40, channels: int = 3) -> torch.Tensor:
    """Whole numbers of 255ths, of colours and brightness of their own."""
    generator = torch.Generator().manual_seed(3)
    noise, levels = (torch.rand(count, channels, *shape, generator=generator) for shape in ((size, size), (1, 1)))
    return (255 * levels * (0.5 + 0.5 * noise)).round() / 255


def pixels_of(batch: torch.Tensor, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """By Pillow's bicubic resize and NumPy."""
    rows = []
    for image in (batch * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy():
        resized = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC), np.float64) / 255
        rows.append(((resized - np.array(mean)) / np.array(std)).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(rows)).float()


@torch.no_grad()
def test_dinov2_is_the_class_token_of_transformers_behind_the_last_norm(folders: Path) -> None:
    pixels = pixels_of(images(), 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    model = Dinov2Model.from_pretrained(folders / "dinov2").eval()
    expected = model.layernorm(model(pixels, output_hidden_states=True).hidden_states[-1])[:, 0]
    found = Dinov2Encoder(folders / "dinov2", batch_size=2)(images())
    assert found.shape == (5, tiny_dinov2.WIDTH)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)
    assert float(expected.std(dim=0).mean()) > 0.01  # images differ, so a mix-up would show


@torch.no_grad()
def test_clip_is_the_projected_embedding_of_transformers_at_length_1(folders: Path) -> None:
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    pixels = pixels_of(images(), tiny_clip.IMAGE_SIZE, mean, std)
    expected = CLIPModel.from_pretrained(folders / "clip").eval().get_image_features(pixels).pooler_output
    expected = expected / expected.square().sum(dim=1, keepdim=True).sqrt()
    found = ClipImageEncoder(folders / "clip", batch_size=2)(images())
    assert found.shape == (5, tiny_clip.POOLED_WIDTH)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)
    assert float(expected.std(dim=0).mean()) > 0.01


@BOTH
def test_features_depend_on_their_image_alone_in_any_form(folders: Path, name: str, load: Load) -> None:
    space = load(folders / name, batch_size=4)
    together = space(images())
    for row in range(5):
        assert torch.equal(space(images()[row : row + 1])[0], together[row])
    assert torch.equal(space((images() * 255).round().to(torch.uint8)), together)
    grey = images(channels=1)
    assert torch.equal(space(grey), space(grey.expand(-1, 3, -1, -1)))
    assert space(images(0)).shape == (0, space.num_features)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(space(images()), together)


@BOTH
def test_the_hash_tells_weights_apart_and_not_their_place(folders: Path, tmp_path: Path, name: str, load: Load) -> None:
    write = {"dinov2": write_tiny_dinov2, "clip": write_tiny_clip}[name]
    same, other = (load(write(tmp_path / str(seed), seed)) for seed in (0, 1))
    assert load(folders / name).content_hash() == same.content_hash() != other.content_hash()


def test_the_hash_of_clip_tells_colours_apart(tmp_path: Path) -> None:
    folder = write_tiny_clip(tmp_path)
    before = ClipImageEncoder(folder).content_hash()
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0.5, 0.5]}))
    assert ClipImageEncoder(folder).content_hash() != before


def test_a_vision_tower_alone_is_the_same_clip(folders: Path, tmp_path: Path) -> None:
    tower = cast(Any, load_model(CLIPVisionModelWithProjection, folders / "clip"))
    tower.save_pretrained(tmp_path / "tower")
    tower.half().save_pretrained(tmp_path / "half")
    whole, alone = (ClipImageEncoder(place) for place in (folders / "clip", tmp_path / "tower"))
    assert alone.content_hash() == whole.content_hash()
    assert torch.equal(alone(images()), whole(images()))
    places = (folders / "clip", tmp_path / "tower", tmp_path / "half")
    assert len({clip_projection(place) for place in places}) == 1
    assert clip_projection(write_tiny_clip(tmp_path / "other", 1)) != clip_projection(folders / "clip")
    assert clip_projection(folders / "dinov2") is clip_projection(tmp_path / "nowhere") is None


@BOTH
def test_another_network_is_refused_by_its_family(folders: Path, name: str, load: Load) -> None:
    other = {"dinov2": "clip", "clip": "dinov2"}[name]
    with pytest.raises(UserError, match=rf"config.json: model_type is '{other}'; accepted: {name}"):
        load(folders / other)


def test_dinov2_with_registers_is_not_taken_for_one_without(tmp_path: Path) -> None:
    """Its weights hold all names of a `Dinov2Model`: its features would be others, in silence."""
    folder = write_tiny_dinov2(tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "model_type": "dinov2_with_registers"}))
    with pytest.raises(UserError, match="model_type is 'dinov2_with_registers'; accepted: dinov2"):
        Dinov2Encoder(folder)


@BOTH
def test_a_damaged_folder_is_one_line(tmp_path: Path, name: str, load: Load) -> None:
    write = {"dinov2": write_tiny_dinov2, "clip": write_tiny_clip}[name]
    with pytest.raises(UserError, match=r"no such folder: .*nowhere"):
        load(tmp_path / "nowhere")
    folder = write(tmp_path / "network")
    weights = folder / "model.safetensors"
    whole = load_file(weights)
    lacking = sorted(key for key in whole if "embeddings" in key and "text" not in key)[0]
    save_file({key: tensor for key, tensor in whole.items() if key != lacking}, weights, {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks tensors|has no|more|larger"):
        load(folder)(images(1))
    save_file({**whole, lacking: torch.full_like(whole[lacking], torch.nan)}, weights, {"format": "pt"})
    with pytest.raises(UserError, match="no finite numbers"):
        load(folder)(images(1))
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load(folder)(images(1))
    weights.unlink()
    with pytest.raises(UserError, match=r"has no \*\.safetensors"):
        load(folder)(images(1))
    settings = json.loads((folder / "config.json").read_text())
    where = settings.get("vision_config", settings)
    where["hidden_size"] = 2**20
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(whole, weights, {"format": "pt"})
    with pytest.raises(UserError, match=r"config\.json"):
        load(folder)(images(1))
    (folder / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"config\.json: model_type is None"):
        load(folder)


def test_numbers_that_are_none_are_refused(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = Dinov2Encoder(folders / "dinov2")
    monkeypatch.setattr(space, "_embedding", lambda output: output.last_hidden_state[:, 0] * torch.nan)
    with pytest.raises(NonFiniteError, match=r"features \(DINOv2\) of images are not finite"):
        space(images(1))


@BOTH
def test_a_missing_package_is_told(folders: Path, monkeypatch: pytest.MonkeyPatch, name: str, load: Load) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"needs the package transformers: pip install 'adanat-rl\[text\]'"):
        load(folders / name)


@BOTH
def test_an_outline_is_the_network_without_weights_and_within_its_files(tmp_path: Path, name: str, load: Load) -> None:
    write = {"dinov2": write_tiny_dinov2, "clip": write_tiny_clip}[name]
    folder = write(tmp_path)
    outline = load(folder).outline()
    assert all(parameter.is_meta for parameter in outline.parameters())
    settings = json.loads((folder / "config.json").read_text())
    where = settings.get("vision_config", settings)
    where["hidden_size"] = 2**15
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"config\.json"):
        load(folder).outline()


def test_layers_without_end_are_refused_before_they_are_named(tmp_path: Path) -> None:
    folder = write_tiny_dinov2(tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    for depth in (10**9, 0, "12", None):
        (folder / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": depth}))
        with pytest.raises(UserError, match=r"config\.json: num_hidden_layers is .*; accepted: 1 to 1000"):
            Dinov2Encoder(folder)
