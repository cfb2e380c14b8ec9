from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor

from adanat_rl.config.errors import UserError
from adanat_rl.generation.weights import save_network
from adanat_rl.metrics.clip_pixels import clip_pixels
from adanat_rl.rewards.base import RewardBatch, check_scores
from adanat_rl.rewards.image_reward import ImageReward, PromptTokenizer, load_image_reward
from adanat_rl.rewards.image_reward_network import ImageRewardNetwork
from tests.contracts.fill import filled

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "##s", "dog", "red"]
CAPTIONS = ["a red cat", "Dogs, cats", "", "a " * 60]
ARGUMENTS = {
    "image_size": 32,
    "patch_size": 16,
    "vision_width": 24,
    "vision_depth": 1,
    "vision_heads": 2,
    "vocab_size": len(WORDS) + 2,
    "max_positions": 40,
    "text_width": 16,
    "text_depth": 1,
    "text_heads": 2,
    "mlp_widths": [8, 4],
    "reward_mean": 0.5,
    "reward_std": 2.0,
}


def build_network() -> ImageRewardNetwork:
    network = ImageRewardNetwork(**ARGUMENTS)
    state = {name: torch.from_numpy(filled(name, value.shape, 5)) for name, value in network.state_dict().items()}
    network.load_state_dict(state)
    return network.eval()


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{word}\n" for word in WORDS))
    return path


@pytest.fixture
def reward(vocabulary: Path) -> ImageReward:
    return ImageReward(build_network(), PromptTokenizer(vocabulary, len(WORDS) + 2), CAPTIONS, block_rows=4)


def batch_of(labels: list[int], seed: int = 0) -> RewardBatch:
    images = torch.rand(len(labels), 3, 40, 40, generator=torch.Generator().manual_seed(seed))
    return RewardBatch((images * 255).round() / 255, torch.tensor(labels))


def test_prompts_are_lower_case_word_pieces_padded_with_0(vocabulary: Path) -> None:
    ids = PromptTokenizer(vocabulary, len(WORDS) + 2)(["Red CATS", "", "a zebra", "a " * 60, "a [ENC]"])
    assert ids.shape == (5, 35)
    assert ids.dtype == torch.int64
    assert ids[0].tolist() == [2, 9, 6, 7, 3] + [0] * 30
    assert ids[1].tolist() == [2, 3] + [0] * 33
    assert ids[2].tolist() == [2, 5, 1, 3] + [0] * 31
    assert ids[3].tolist() == [2] + [5] * 33 + [3]
    assert ids[4, :4].tolist() == [2, 5, len(WORDS) + 1, 3]


def test_a_tokenizer_json_gives_the_same_ids(vocabulary: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    BertWordPieceTokenizer(str(vocabulary), lowercase=True).save(str(tmp_path / "folder" / "tokenizer.json"))
    both = [PromptTokenizer(path, len(WORDS) + 2)(CAPTIONS) for path in (vocabulary, tmp_path / "folder")]
    assert torch.equal(*both)


def test_the_network_equals_blip_written_out() -> None:
    """One block of each encoder in plain tensor operations."""
    network = build_network()
    state = network.state_dict()
    pixels = torch.from_numpy(filled("pixels", (2, 3, 32, 32), 0))
    ids = torch.tensor([[2, 5, 6, 3, 0, 0], [2, 8, 7, 6, 5, 3]])

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: Tensor, name: str, eps: float) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + eps).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | float = 0.0) -> Tensor:
        q, k, v = (x.unflatten(-1, (2, -1)).transpose(1, 2) for x in (q, k, v))
        weights = (q @ k.mT / math.sqrt(q.shape[-1]) + mask).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)

    def gelu(x: Tensor) -> Tensor:
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    patches = pixels.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    kernel = state["visual.embeddings.patch_embedding.weight"].flatten(1)
    x = patches @ kernel.T + state["visual.embeddings.patch_embedding.bias"]
    x = torch.cat([state["visual.embeddings.class_embedding"].expand(2, -1, -1), x], 1)
    x = x + state["visual.embeddings.position_embedding"]
    block = "visual.encoder.layers.0"
    mixed = attend(*linear(norm(x, f"{block}.layer_norm1", 1e-6), f"{block}.self_attn.qkv").chunk(3, -1))
    x = x + linear(mixed, f"{block}.self_attn.projection")
    x = x + linear(gelu(linear(norm(x, f"{block}.layer_norm2", 1e-6), f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
    seen = norm(x, "visual.post_layernorm", 1e-6)

    y = state["text.embeddings.word_embeddings.weight"][ids]
    y = norm(y + state["text.embeddings.position_embeddings.weight"][:6], "text.embeddings.LayerNorm", 1e-12)
    mask = torch.where(ids == 0, -1e4, 0.0)[:, None, None]
    layer = "text.encoder.layer.0"
    for part, other, m in (("attention", None, mask), ("crossattention", seen, 0.0)):
        source = y if other is None else other
        q = linear(y, f"{layer}.{part}.self.query")
        k, v = (linear(source, f"{layer}.{part}.self.{name}") for name in ("key", "value"))
        mixed = linear(attend(q, k, v, m), f"{layer}.{part}.output.dense")
        y = norm(mixed + y, f"{layer}.{part}.output.LayerNorm", 1e-12)
    hidden = linear(gelu(linear(y, f"{layer}.intermediate.dense")), f"{layer}.output.dense")
    z = norm(hidden + y, f"{layer}.output.LayerNorm", 1e-12)[:, 0]
    for number in range(3):
        z = linear(z, f"mlp.{number}")
    with torch.no_grad():
        torch.testing.assert_close(network(pixels, ids), (z[:, 0] - 0.5) / 2, rtol=1e-4, atol=1e-5)


def test_scores_are_those_of_image_and_caption(reward: ImageReward, vocabulary: Path) -> None:
    batch = batch_of([1, 0, 3, 1, 2])
    scores, info = check_scores("image_reward", reward.score(batch), 5)
    assert info == {}
    tokenize = PromptTokenizer(vocabulary, len(WORDS) + 2)
    for row, label in enumerate(batch.labels.tolist()):
        with torch.no_grad():
            alone = reward.network(clip_pixels(batch.images[row : row + 1], 32), tokenize([CAPTIONS[label]]))
        assert scores[row] == pytest.approx(alone.item(), abs=1e-5)
    assert np.ptp(scores) > 0.01


def test_the_caption_matters(reward: ImageReward) -> None:
    images = batch_of([0, 0]).images[:1].expand(2, -1, -1, -1)
    scores = reward.score(RewardBatch(images, torch.tensor([0, 1]))).scores
    assert abs(scores[0] - scores[1]) > 1e-3


def test_a_score_does_not_depend_on_batch_mates(reward: ImageReward) -> None:
    batch = batch_of([1, 0, 3, 1, 2])
    together = reward.score(batch).scores
    for row in range(5):
        assert torch.equal(reward.score(batch.rows(torch.tensor([row]))).scores[0], together[row])


def test_captions_may_be_a_function(reward: ImageReward, vocabulary: Path) -> None:
    batch = batch_of([0, 2])
    called = ImageReward(
        reward.network, PromptTokenizer(vocabulary, len(WORDS) + 2), lambda row: CAPTIONS[row], block_rows=4
    )
    assert torch.equal(called.score(batch).scores, reward.score(batch).scores)


def test_an_empty_batch_has_no_scores(reward: ImageReward) -> None:
    assert reward.score(batch_of([])).scores.shape == (0,)


def test_nothing_is_trained(reward: ImageReward) -> None:
    assert reward.num_updates == reward.num_warmup_updates == 0
    assert reward.state_dict() == {}
    assert not any(parameter.requires_grad for parameter in reward.network.parameters())


def test_a_weight_file_gives_the_same_scores(reward: ImageReward, vocabulary: Path, tmp_path: Path) -> None:
    path = tmp_path / "image_reward.safetensors"
    save_network(path, "image_reward", ARGUMENTS, reward.network)
    loaded = load_image_reward(path, vocabulary.parent, CAPTIONS, block_rows=4)
    batch = batch_of([3, 1])
    assert torch.equal(loaded.score(batch).scores, reward.score(batch).scores)


def test_building_a_network_draws_nothing() -> None:
    before = torch.get_rng_state()
    ImageRewardNetwork(**ARGUMENTS)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_missing_or_wrong_is_named(vocabulary: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no BERT vocabulary at .*nowhere"):
        load_image_reward(tmp_path / "none.safetensors", tmp_path / "nowhere", CAPTIONS)
    with pytest.raises(UserError, match=r"no such file: .*none\.safetensors"):
        load_image_reward(tmp_path / "none.safetensors", vocabulary, CAPTIONS)
    with pytest.raises(UserError, match=r"has 12 tokens with BLIP's two, the ImageReward network knows 30524"):
        PromptTokenizer(vocabulary, 30524)
    vocabulary.write_text("".join(f"{word}\n" for word in reversed(WORDS)), encoding="utf-8")
    with pytest.raises(UserError, match=r"\[PAD\] must be token 0"):
        PromptTokenizer(vocabulary, len(WORDS) + 2)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"is no BERT vocabulary"):
        PromptTokenizer(tmp_path / "bad", 12)
