"""Rewards of captions as the configuration builds them: real images, caption table and weights from files."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adanat_rl.config.errors import UserError
from adanat_rl.config.loading import resolve
from adanat_rl.experiment.build import check_captions
from adanat_rl.generation.text.encoder import ClipTextEncoder
from adanat_rl.generation.text.table_writer import write_caption_table
from adanat_rl.generation.weights import save_network
from adanat_rl.rewards.base import RewardBatch
from adanat_rl.rewards.build import build_reward_parts, reward_class
from adanat_rl.rewards.image_reward import IMAGE_REWARD_KIND, load_image_reward
from benchmarks.trial_inputs import write_network
from tests.rewards.test_image_reward import ARGUMENTS, WORDS, build_network
from tests.rewards.tiny_dino import write_tiny_dino
from tests.tiny_clip import write_tiny_clip

CAPTIONS = ("a cat", "two dogs", "a red cat", "red")
SIZE = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of captions with photos, its embeddings, a tokenizer, DINO, ImageReward."""
    root = tmp_path_factory.mktemp("text")
    rows = []
    for number, caption in enumerate(CAPTIONS):
        pixels = np.full((20, 20, 3), 60 * number, np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        rows.append(f"train\t{number}\t{caption}\t{base64.b64encode(buffer.getvalue()).decode()}\n")
    (root / "photos.tsv").write_text("".join(rows))
    write_caption_table(root / "captions", CAPTIONS, ClipTextEncoder(write_tiny_clip(root / "clip")), 2)
    shape = {"vocab_size": 32, "code_width": 8, "base_width": 32, "width_multipliers": (1, 1, 1), "num_res_blocks": 1}
    write_network(root / "vqgan.safetensors", "vqgan", {**shape, "image_size": SIZE})
    write_tiny_dino(root / "dino.safetensors")
    save_network(root / "image_reward.safetensors", IMAGE_REWARD_KIND, ARGUMENTS, build_network())
    (root / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    return root


def config_of(folder: Path, *overrides: str):
    settings = [
        "data.name=cc3m_tsv",
        f"data.path={folder}/photos.tsv",
        f"data.index_folder={folder}/index",
        f"data.image_size={SIZE}",
        f"generator.tokenizer={folder}/vqgan.safetensors",
        f"generator.captions={folder}/captions",
        "reward.adversarial.discriminator=projected",
        f"reward.adversarial.features={folder}/dino.safetensors",
        "reward.adversarial.batch_size=8",
        f"reward.image_reward.weights={folder}/image_reward.safetensors",
        f"reward.image_reward.vocabulary={folder}/vocab.txt",
    ]
    return resolve(overrides=[*settings, *overrides])


def test_the_discriminator_is_told_the_caption_and_sees_the_photos_mirrored_too(folder: Path) -> None:
    parts = build_reward_parts(config_of(folder, "data.horizontal_flip=true", "reward.reconstruct_real=false"))
    assert parts.real is not None
    assert len(parts.real) == 2 * len(CAPTIONS)
    batch = parts.real.rows(torch.tensor([2, 6]))
    assert batch.labels.tolist() == [2, 2]
    assert torch.equal(batch.images[0], batch.images[1].flip(-1))
    torch.testing.assert_close(batch.images, torch.full_like(batch.images, 120 / 255))
    model = parts.model
    before = model.score(batch).scores
    other = model.score(RewardBatch(batch.images, torch.tensor([3, 3]))).scores
    assert not torch.allclose(before, other), "another caption, another score"
    metrics = model.update(parts.real, parts.real, np.random.default_rng(0), 1)
    assert np.isfinite(metrics["loss"])


def test_real_images_are_shown_as_the_tokenizer_would_where_asked(folder: Path) -> None:
    parts = build_reward_parts(config_of(folder))
    assert parts.real is not None
    images = parts.real.rows(torch.tensor([1])).images
    assert images.shape == (1, 3, SIZE, SIZE)
    assert not torch.allclose(images, torch.full_like(images, 60 / 255), atol=0.05)


def test_image_reward_reads_the_captions_of_the_table(folder: Path) -> None:
    parts = build_reward_parts(config_of(folder, "reward.kind=image_reward"))
    assert parts.real is None
    direct = load_image_reward(folder / "image_reward.safetensors", folder / "vocab.txt", CAPTIONS)
    tokens = np.zeros((3, 16), np.int64)
    images = parts.images(tokens)
    batch = RewardBatch(images, torch.tensor([0, 2, 3]))
    assert torch.equal(parts.model.score(batch).scores, direct.score(batch).scores)


def test_image_reward_without_captions_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"reward.kind: image_reward needs captions; data digits has labels, real_images"
    ):
        reward_class(resolve(overrides=["reward.kind=image_reward"]))


def test_captions_of_other_data_are_refused(folder: Path) -> None:
    write_caption_table(folder / "fewer", CAPTIONS[:2], ClipTextEncoder(folder / "clip"), 2)
    with pytest.raises(UserError, match="has 2 captions, data cc3m_tsv has 4"):
        build_reward_parts(config_of(folder, f"generator.captions={folder}/fewer"))


def test_real_images_that_are_read_ahead_are_those_that_were_asked_for(folder: Path) -> None:
    parts = build_reward_parts(config_of(folder, "data.horizontal_flip=true", "data.prefetch=3"))
    assert parts.real is not None
    rows = [torch.tensor([number, 7 - number]) for number in range(8)]
    batches = list(parts.real.batches(rows))
    assert len(batches) == len(rows)
    for batch, index in zip(batches, rows, strict=True):
        alone = parts.real.rows(index)
        assert torch.equal(batch.images, alone.images)
        assert batch.labels.tolist() == alone.labels.tolist() == (index % 4).tolist()


def test_captions_in_another_order_than_the_datas_are_refused(folder: Path) -> None:
    check_captions(config_of(folder))
    swapped = (CAPTIONS[0], CAPTIONS[2], CAPTIONS[1], CAPTIONS[3])
    write_caption_table(folder / "turned", swapped, ClipTextEncoder(folder / "clip"), 2)
    with pytest.raises(UserError, match="holds other captions than data cc3m_tsv"):
        check_captions(config_of(folder, f"generator.captions={folder}/turned"))
