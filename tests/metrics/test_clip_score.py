from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.functional.multimodal import clip_score as torchmetrics_clip_score
from transformers import CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from adanat_rl.config.errors import UserError
from adanat_rl.generation.text import local
from adanat_rl.generation.text.encoder import ClipTextEncoder
from adanat_rl.generation.text.local import load_model
from adanat_rl.metrics.clip_score import ClipScorer, clip_score
from tests.tiny_clip import IMAGE_SIZE, LENGTH, write_tiny_clip

CAPTIONS = ["a cat", "", "x " * 40, "dog", "cat cat"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


def images(number: int = 5) -> torch.Tensor:
    """Whole numbers of 255ths, `[B, 3, 48, 48]`."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (number, 3, 48, 48), generator=generator) / 255


def independent_scores(folder: Path, pixels: np.ndarray, captions: list[str]) -> np.ndarray:
    """The whole model of transformers with its own image processor and tokenizer; the cosine in NumPy."""
    processor = CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=IMAGE_SIZE)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    model = CLIPModel.from_pretrained(folder).eval()
    tokens = tokenizer(captions, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    with torch.no_grad():
        output = model(**tokens, **processor(list(pixels), return_tensors="pt"))
    read, seen = output.text_embeds.double().numpy(), output.image_embeds.double().numpy()
    norms = np.linalg.norm(read, axis=1) * np.linalg.norm(seen, axis=1)
    return 100 * (read * seen).sum(axis=1) / norms


def test_scores_equal_those_of_the_whole_model_of_transformers(folder: Path) -> None:
    pixels = (images() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    expected = independent_scores(folder, pixels, CAPTIONS)
    found = ClipScorer(folder, batch_size=2)(images(), CAPTIONS)
    assert found.dtype == torch.float32
    assert np.ptp(expected) > 5  # the pairs differ, so a mix-up would show
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)


def test_judge_reward_and_encoder_of_one_process_load_a_clip_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    monkeypatch.setattr(local, "load_model", lambda cls, place: (loads.append(cls.__name__), load_model(cls, place))[1])
    scorers = [ClipScorer(folder), ClipScorer(folder)]
    scores = [scorer(images(), CAPTIONS) for scorer in scorers]
    ClipTextEncoder(folder)(CAPTIONS)
    assert sorted(loads) == ["CLIPTextModelWithProjection", "CLIPVisionModelWithProjection"]
    assert torch.equal(*scores)


def test_the_score_of_a_set_is_that_of_torchmetrics(folder: Path) -> None:
    """Torchmetrics takes a model and a processor; this transformers returns objects where it expects tensors."""
    model = CLIPModel.from_pretrained(folder).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    processor = CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=IMAGE_SIZE)

    class Adapter(torch.nn.Module):
        config = model.config

        def get_image_features(self, pixels: torch.Tensor) -> torch.Tensor:
            return model.get_image_features(pixels).pooler_output

        def get_text_features(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return model.get_text_features(ids, mask).pooler_output

    def process(text: list[str] | None = None, images: list[torch.Tensor] | None = None, **_: Any) -> Any:
        if text is not None:
            return tokenizer(text, padding=True, return_tensors="pt")
        return processor([image.numpy() for image in images or []], return_tensors="pt")

    captions = [caption for caption in CAPTIONS if len(caption) < LENGTH]  # it cuts the end token off longer ones
    batch = images(len(captions))
    with torch.no_grad():
        whole_numbers = (255 * batch).round().to(torch.uint8)
        expected = torchmetrics_clip_score(whole_numbers, captions, lambda: (Adapter(), process))
    found = clip_score(ClipScorer(folder)(batch, captions))
    assert found == pytest.approx(expected.item(), abs=1e-3)


def test_the_score_of_a_set_is_the_mean_and_not_below_0() -> None:
    assert clip_score(torch.tensor([30.0, -10.0])) == pytest.approx(10.0)
    assert clip_score(torch.tensor([3.0, -10.0])) == 0.0


def test_a_score_does_not_depend_on_batch_mates(folder: Path) -> None:
    scorer = ClipScorer(folder, batch_size=4)
    together = scorer(images(), CAPTIONS)
    for row in range(5):
        assert torch.equal(scorer(images()[row : row + 1], CAPTIONS[row : row + 1])[0], together[row])


def test_normalisation_comes_from_the_folder(tmp_path: Path) -> None:
    folder = write_tiny_clip(tmp_path)
    before = ClipScorer(folder)(images(1), ["cat"])
    settings = folder / "preprocessor_config.json"
    settings.write_text(json.dumps({"image_mean": [0.48145466, 0.4578275, 0.40821073]}))
    assert torch.equal(ClipScorer(folder)(images(1), ["cat"]), before)
    settings.write_text(json.dumps({"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}))
    assert not torch.allclose(ClipScorer(folder)(images(1), ["cat"]), before)
    settings.write_text(json.dumps({"image_mean": [0, 0]}))
    with pytest.raises(UserError, match=r"image_mean and image_std have 2 and 3 numbers"):
        ClipScorer(folder)
    settings.write_text('{"image_std": [1, 0, 1]}')
    with pytest.raises(UserError, match=r"expected finite numbers, std above 0"):
        ClipScorer(folder)
    settings.write_text('{"image_mean": [0, NaN, 0]}')
    with pytest.raises(UserError, match=r"expected finite numbers, std above 0"):
        ClipScorer(folder)
    settings.write_text("{")
    with pytest.raises(UserError, match=r"preprocessor_config\.json is damaged"):
        ClipScorer(folder)


def test_images_and_captions_come_in_pairs(folder: Path) -> None:
    scorer = ClipScorer(folder)
    with pytest.raises(ValueError, match=r"2 images and 1 captions"):
        scorer(images(2), ["cat"])
    assert scorer(images(0), []).shape == (0,)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder: .*nowhere"):
        ClipScorer(tmp_path / "nowhere")
