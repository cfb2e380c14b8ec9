from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from adanat_rl.config.errors import UserError
from adanat_rl.config.findings import failures
from adanat_rl.config.loading import resolve
from adanat_rl.generation.text.encoder import ClipTextEncoder
from adanat_rl.generation.text.table_writer import write_caption_table
from adanat_rl.metrics.clip_score import ClipScorer
from adanat_rl.rewards.base import RewardBatch
from adanat_rl.rewards.build import reward_class
from adanat_rl.rewards.clip_score import ClipScoreReward, from_config
from adanat_rl.rewards.conformance import check_reward
from tests.tiny_clip import IMAGE_SIZE, LENGTH, write_tiny_clip

CAPTIONS = ("a cat", "two dogs", "a red cat", "red")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("text")
    write_caption_table(root / "captions", CAPTIONS, ClipTextEncoder(write_tiny_clip(root / "clip")), 2)
    return root


def config_of(folder: Path, *overrides: str):
    settings = [
        "reward.kind=clip_score",
        f"reward.clip_score.encoder={folder}/clip",
        "reward.clip_score.block_rows=2",
        f"generator.captions={folder}/captions",
    ]
    return resolve(overrides=[*settings, *overrides])


def batch() -> RewardBatch:
    """Images of whole 255ths for captions 2, 0, 3, 0, 1."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (5, 3, 40, 40), generator=generator) / 255
    return RewardBatch(images, torch.tensor([2, 0, 3, 0, 1]))


def independent_scores(folder: Path, images: RewardBatch) -> np.ndarray:
    """The whole model of transformers with its own image processor and tokenizer; the cosine in NumPy."""
    processor = CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=IMAGE_SIZE)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    pixels = (images.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    words = [CAPTIONS[row] for row in images.labels.tolist()]
    tokens = tokenizer(words, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    with torch.no_grad():
        output = CLIPModel.from_pretrained(folder).eval()(**tokens, **processor(list(pixels), return_tensors="pt"))
    read, seen = output.text_embeds.double().numpy(), output.image_embeds.double().numpy()
    return 100 * (read * seen).sum(axis=1) / np.linalg.norm(read, axis=1) / np.linalg.norm(seen, axis=1)


def test_scores_are_cosines_of_each_image_with_the_caption_of_its_row(folder: Path) -> None:
    expected = independent_scores(folder / "clip", batch())
    found = from_config(config_of(folder), "cpu").score(batch()).scores
    assert np.ptp(expected) > 5  # the pairs differ, so a mix-up would show
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)


def test_captions_may_come_from_a_function(folder: Path) -> None:
    scorer = ClipScorer(folder / "clip")
    by_function = ClipScoreReward(scorer, lambda row: CAPTIONS[row]).score(batch()).scores
    assert torch.equal(by_function, ClipScoreReward(scorer, CAPTIONS).score(batch()).scores)


def test_it_keeps_the_contract(folder: Path) -> None:
    findings = check_reward(lambda: from_config(config_of(folder), "cpu"), batch())
    assert not failures(findings), "\n".join(map(str, findings))


def test_what_it_lacks_is_named_before_a_launch(folder: Path) -> None:
    with pytest.raises(UserError, match="clip_score needs captions"):
        reward_class(resolve(overrides=["reward.kind=clip_score", f"reward.clip_score.encoder={folder}/clip"]))
    with pytest.raises(UserError, match=r"clip_score.encoder: null is not accepted"):
        reward_class(config_of(folder, "reward.clip_score.encoder=null"))
    with pytest.raises(UserError, match="no such folder"):
        from_config(config_of(folder, "reward.clip_score.encoder=nowhere"), "cpu")
